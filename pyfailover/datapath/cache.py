# SPDX-License-Identifier: GPL-2.0-or-later
"""Images that are kept, so that nothing is compiled twice.

A file has the name of its image's key, and is as trusted as the package itself:
one that is damaged, or that others might have written, is refused; that is said,
and the programs are compiled anew.
"""

import logging
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from pyfailover.datapath.build import build
from pyfailover.datapath.image import Image, ImageError
from pyfailover.datapath.recipe import Key, Recipe, digest, here
from pyfailover.datapath.trusted import TrustedDirectory
from pyfailover.errors import RefusedError

log = logging.getLogger(__name__)

# Where the images came from that obtain() had in this process.
obtained: Counter[str] = Counter(cache=0, compiler=0)

_NAME = re.compile(r"programs-[0-9a-f]{16}\.image")


class Fit(StrEnum):
    """Whether a file is of use here."""

    HERE = "fits this kernel"
    OTHER_KERNEL = "other kernel"
    OTHER_VERSION = "other version of pyfailover"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file of the cache; if it is refused, `image` is None and `why` says why."""

    name: str
    fit: Fit
    size: int  # bytes
    age_s: float
    image: Image | None = None
    why: str = ""

    @property
    def max_groups(self) -> int | None:
        """Groups of a namespace that uses it."""
        return None if self.image is None else self.image.maps["fo_states"].max_entries


def obtain(
    directory: Path, recipe: Recipe, *, lock_fd: int | None, scratch: Path
) -> Image:
    """The image for this kernel: a file's if there is one, else compiled and kept.

    That it cannot be kept is no error. See build() for `lock_fd` and `scratch`.

    Raises:
        BuildError, UnsupportedError: see build().
    """
    key = recipe.key()
    image = _kept(directory, key)
    obtained["compiler" if image is None else "cache"] += 1
    if image is None:
        image = _compiled(recipe, key, lock_fd=lock_fd, scratch=scratch)
        try:
            with suppress(RefusedError):  # the directory: said already
                _keep(directory, image)
        except OSError as exc:
            log.warning("cannot keep the programs in '%s': %s", directory, exc.strerror)
    return image


def make(directory: Path, recipe: Recipe, *, scratch: Path) -> tuple[Path, bool]:
    """Have a file for this kernel; True if it had to be made.

    Raises:
        OSError: it cannot be written.
        RefusedError: the directory is not to be trusted.
        BuildError, UnsupportedError: see build().
    """
    key = recipe.key()
    path = directory / _file_name(key)
    if _kept(directory, key) is not None:
        return path, False
    _keep(directory, _compiled(recipe, key, lock_fd=None, scratch=scratch))
    return path, True


def has(directory: Path, recipe: Recipe) -> bool:
    """Whether obtain() would find a file; says nothing of why not."""
    with suppress(OSError, RefusedError), TrustedDirectory(directory) as files:
        _read(files, _file_name(recipe.key()))
        return True
    return False


def entries(directory: Path) -> Iterator[Entry]:
    """All files of ours, the newest first; none where there is no directory.

    Raises:
        OSError: it cannot be read.
        RefusedError: the directory is not to be trusted.
    """
    now, present = time.time(), here()
    with suppress(FileNotFoundError), TrustedDirectory(directory) as files:
        found = {name: files.info(name) for name in _ours(files)}
        for name in sorted(found, key=lambda name: -found[name].st_mtime):
            entry = Entry(
                name=name,
                fit=Fit.REFUSED,
                size=found[name].st_size,
                age_s=max(0.0, now - found[name].st_mtime),
            )
            try:
                image = _read(files, name)
                yield replace(entry, image=image, fit=_fit(image, present))
            except RefusedError as exc:
                yield replace(entry, why=exc.message.rpartition("': ")[2])
            except OSError as exc:
                yield replace(entry, why=exc.strerror or "")


def clear(directory: Path) -> list[str]:
    """Remove all files of ours, and what killed processes left of such; their names.

    Raises:
        OSError: one cannot be removed.
        RefusedError: the directory is not to be trusted.
    """
    with suppress(FileNotFoundError), TrustedDirectory(directory) as files:
        files.sweep()
        gone = sorted(_ours(files))
        for name in gone:
            files.remove(name)
        return gone
    return []


def _file_name(key: Key) -> str:
    return f"programs-{digest(key)}.image"


def _ours(files: TrustedDirectory) -> list[str]:
    return [name for name in files.names() if _NAME.fullmatch(name)]


def _fit(image: Image, present: Key) -> Fit:
    if any(image.key[part] != present[part] for part in ("kernel", "architecture")):
        return Fit.OTHER_KERNEL
    same = image.key["sources"] == present["sources"]
    return Fit.HERE if same else Fit.OTHER_VERSION


def _kept(directory: Path, key: Key) -> Image | None:
    """The image of a key, if there is a file to be trusted; says why if not."""
    try:
        with TrustedDirectory(directory) as files:
            image = _read(files, _file_name(key))
    except FileNotFoundError:
        return None
    except RefusedError as exc:
        log.warning("%s: the programs are compiled anew", exc)
        return None
    except OSError as exc:
        log.warning("cannot read the programs in '%s': %s", directory, exc.strerror)
        return None
    return image


def _read(files: TrustedDirectory, name: str) -> Image:
    """The image in a file, whose name must be that of its key."""
    try:
        image = Image.from_bytes(files.read(name))
    except ImageError as exc:
        raise RefusedError(f"'{files.path / name}': {exc}") from exc
    if _file_name(image.key) != name:
        raise RefusedError(f"'{files.path / name}': it has the name of another")
    return image


def _compiled(recipe: Recipe, key: Key, *, lock_fd: int | None, scratch: Path) -> Image:
    resolved = recipe.resolve()
    flags = (*recipe.flags, *resolved.flags)
    image = build(flags, lock_fd=lock_fd, scratch=scratch)
    release = os.uname().release
    return replace(image, key=key, kfuncs=resolved.kfuncs, release=release)


def _keep(directory: Path, image: Image) -> None:
    with TrustedDirectory.made(directory) as files:
        files.write(_file_name(image.key), image.to_bytes())
