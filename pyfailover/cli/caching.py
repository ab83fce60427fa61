# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands about the compiled programs that are kept."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from pyfailover.cli.app import cli
from pyfailover.datapath import cache, loading
from pyfailover.datapath.cache import Entry, Fit
from pyfailover.datapath.recipe import Recipe
from pyfailover.errors import PyFailoverError
from pyfailover.place import Roots

_NONE_FITS = 1


@cli.group(
    name="cache",
    epilog="""\b
Examples:
  pyfailover cache build
  pyfailover cache show
  pyfailover cache clear
""",
)
def kept() -> None:
    """The compiled programs: made once for a kernel, then loaded without bcc."""


@kept.command(
    epilog="""\b
Attaching does it by itself where bcc and kernel headers are. A host that has
neither needs what another one with the same kernel has built.
\b
Examples:
  pyfailover cache build
  pyfailover --cache-root ./rootfs/var/cache/pyfailover cache build
"""
)
@click.option(
    "--max-groups",
    metavar="N",
    type=click.IntRange(1, 4096),
    default=loading.DEFAULT_MAX_GROUPS,
    show_default=True,
    help="Groups of a namespace that uses them.",
)
@click.option(
    "--carrier-test/--no-carrier-test",
    default=None,
    help="Whether they look at the slaves' carrier.  [default: if this kernel can]",
)
@click.pass_obj
def build(roots: Roots, max_groups: int, carrier_test: bool | None) -> None:
    """Compile the programs for the running kernel, if they are not there."""

    def make(test: bool) -> None:
        recipe = Recipe(max_groups, test)
        with TemporaryDirectory(prefix="pyfailover-headers-") as scratch:
            path, fresh = cache.make(roots.cache, recipe, scratch=Path(scratch))
        click.echo(f"{path}: {'built' if fresh else 'fits this kernel already'}")

    try:
        loading.with_test(carrier_test, make)
    except OSError as exc:
        raise _cannot("write", roots, exc) from exc


@kept.command(
    epilog="""\b
Exit code: 0 if one fits this kernel, else 1.
\b
Examples:
  pyfailover cache show
  pyfailover cache show --json
"""
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_context
def show(context: click.Context, as_json: bool) -> None:
    """List what is kept, and whether it fits this kernel."""
    roots: Roots = context.obj
    try:
        found = list(cache.entries(roots.cache))
    except OSError as exc:
        raise _cannot("read", roots, exc) from exc
    if as_json:
        body = {"directory": str(roots.cache), "files": list(map(_data, found))}
        click.echo(json.dumps(body, indent=2))
    else:
        for line in (line for entry in found for line in _lines(entry)):
            click.echo(line)
        if not found:
            click.echo(f"nothing in '{roots.cache}'")
    if not any(entry.fit is Fit.HERE for entry in found):
        context.exit(_NONE_FITS)


@kept.command(
    epilog="""\b
Programs that are loaded stay. Files of others in the directory do, too.
\b
Example:
  pyfailover cache clear
"""
)
@click.pass_obj
def clear(roots: Roots) -> None:
    """Remove all that is kept."""
    try:
        gone = cache.clear(roots.cache)
    except OSError as exc:
        raise _cannot("clear", roots, exc) from exc
    for name in gone:
        click.echo(f"removed {roots.cache / name}")


def _cannot(verb: str, roots: Roots, exc: OSError) -> PyFailoverError:
    hint = "run as root" if isinstance(exc, PermissionError) else None
    return PyFailoverError(f"cannot {verb} '{roots.cache}': {exc.strerror}", hint=hint)


def _data(entry: Entry) -> dict[str, Any]:
    """The content of a file by its names alone: the code is in the file."""
    image = entry.image
    return {
        "name": entry.name,
        "fit": entry.fit,
        "why": entry.why,
        "size": entry.size,
        "age_s": round(entry.age_s, 3),
        "max_groups": entry.max_groups,
        "programs": [] if image is None else list(image.programs),
        "release": None if image is None else image.release,
        "key": None if image is None else dict(image.key),
    }


def _lines(entry: Entry) -> Iterator[str]:
    size = f"{entry.size / 1000:.0f} kB, {_age(entry.age_s)} old"
    if entry.image is None:
        yield f"{entry.name}: {entry.fit}: {entry.why}"
        yield f" {size}"
        return
    yield f"{entry.name}: {entry.fit}"
    yield f" {entry.max_groups} groups, {size}, made on Linux {entry.image.release}"
    yield f" {', '.join(entry.image.programs)}"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
