# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of a namespace's set: loaded beside its place, renamed into it, removed."""

import ctypes as ct
import errno
import logging
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path

from pyfailover.datapath import abi, btf, cache, libbpf
from pyfailover.datapath.build import MAPS
from pyfailover.datapath.image import Image, Program
from pyfailover.datapath.programs import ProgramSet
from pyfailover.datapath.recipe import Recipe
from pyfailover.errors import LoadError, StateError, UnsupportedError
from pyfailover.model import Word

log = logging.getLogger(__name__)

DEFAULT_MAX_GROUPS = 64
_ABOUT = "fo_about"


def load(
    pins: Path,
    max_groups: int | None,
    carrier_test: bool | None = None,
    *,
    store: Path,
    lock_fd: int,
    scratch: Path,
) -> bool:
    """Have the set of a namespace loaded; True if it had to be.

    All or nothing: it is pinned beside its place and then renamed.

    Args:
        max_groups: None: as it is, or as usual.
        carrier_test: None: as it is, or if this kernel can.
        store: where images are kept; see cache.obtain(), for `lock_fd` and
            `scratch` too.

    Raises:
        StateError: it is loaded, and is another.
        BuildError, UnsupportedError: see cache.obtain() and fill().
    """
    if pins.is_dir():
        with _whole(pins) as loaded:
            if max_groups not in (None, loaded.max_groups):
                raise StateError(
                    f"cannot change --max-groups to {max_groups}: the programs of "
                    f"this namespace are loaded for {loaded.max_groups} groups",
                    hint="detach all of its groups first",
                )
            if carrier_test not in (None, loaded.carrier_test):
                raise StateError(
                    "cannot change the carrier test: the programs of this namespace "
                    f"are loaded {'with' if loaded.carrier_test else 'without'} it",
                    hint="pyfailover reload --programs replaces them under traffic",
                )
        return False
    groups = max_groups or DEFAULT_MAX_GROUPS

    def place(test: bool) -> None:
        recipe = Recipe(groups, test)
        image = cache.obtain(store, recipe, lock_fd=lock_fd, scratch=scratch)
        _place(pins, image)

    with_test(carrier_test, place)
    return True


def replace(
    pins: Path, *, carrier_test: bool, store: Path, lock_fd: int, scratch: Path
) -> None:
    """Have other programs pinned over the same maps.

    Who attaches them is the caller. What is attached and not pinned any more is known
    by that, so an interruption is mended like any other fault.

    Raises:
        BuildError, UnsupportedError: see load(); nothing is changed.
    """
    coming = _coming(pins)
    _remove(coming)
    with ExitStack() as opened:
        given = {}
        for name in MAPS:
            if name != _ABOUT:
                given[name] = opened.enter_context(libbpf.opened(pins / "maps" / name))
        recipe = Recipe(libbpf.map_entries(given["fo_states"]), carrier_test)
        image = cache.obtain(store, recipe, lock_fd=lock_fd, scratch=scratch)
        coming.mkdir(mode=0o700)
        try:
            fill(coming, image, given)
            for path in (*(coming / "progs").iterdir(), coming / "maps" / _ABOUT):
                path.rename(pins / path.relative_to(coming))
        finally:
            _remove(coming)


def keep_image(
    groups: int | None, carrier_test: bool | None, *, store: Path, scratch: Path
) -> None:
    """Have a file with what load() would load, so that it need not be compiled then.

    Raises:
        OSError, RefusedError, BuildError, UnsupportedError: see cache.make().
    """
    room = groups or DEFAULT_MAX_GROUPS
    with_test(
        carrier_test,
        lambda test: cache.make(store, Recipe(room, test), scratch=scratch),
    )


def groups_of(pins: Path) -> int:
    """Groups that a set has room for, of whatever version it is."""
    with libbpf.opened(pins / "maps" / "fo_states") as fd:
        return libbpf.map_entries(fd)


def word_of(pins: Path, index: int) -> Word:
    """The word of a group: the first in its state, in every version."""
    with libbpf.opened(pins / "maps" / "fo_states") as fd:
        raw = libbpf.map_lookup(fd, index, libbpf.map_value_size(fd))
    return abi.unpack_word(int.from_bytes((raw or bytes(8))[:8], sys.byteorder))


def with_test(asked: bool | None, act: Callable[[bool], object]) -> None:
    """Do something with the carrier test, or without it if this kernel cannot.

    Args:
        asked: None: if it can.

    Raises:
        UnsupportedError: it was asked for, and this kernel cannot.
    """
    if asked and (why := btf.lack()) is not None:
        raise btf.cannot(why)
    if asked is not None:
        act(asked)
        return
    try:
        act(True)
    except (LoadError, UnsupportedError) as exc:
        act(False)
        if btf.lack() is None:
            log.warning("no carrier test in the programs: %s", exc)


def _place(pins: Path, image: Image) -> None:
    """Load an image beside its place, then rename it."""
    coming = _coming(pins)
    _remove(coming)
    coming.mkdir(mode=0o700, parents=True)
    (coming / "links").mkdir(mode=0o700)
    try:
        fill(coming, image)
        coming.rename(pins)
    except BaseException:
        _remove(coming)
        raise


def fill(directory: Path, image: Image, given: Mapping[str, int] | None = None) -> None:
    """Load an image into the kernel and pin it as `maps/NAME` and `progs/NAME`.

    Args:
        directory: of a bpffs, without either.
        given: descriptors of maps that are there already and are used in the
            place of new ones, by name.

    Raises:
        LoadError: the kernel does not take it.
    """
    with ExitStack() as opened:
        fds = dict(given or {})
        for name, each in image.maps.items():
            if name not in fds:
                try:
                    fds[name] = libbpf.map_create(name, **asdict(each))
                except OSError as exc:
                    raise _refused(f"map '{name}'", exc) from exc
                opened.callback(os.close, fds[name])
        about = abi.About(
            carrier_test="-DFO_CARRIER_TEST" in image.key["flags"].split(),
            sources=(ct.c_uint8 * 32)(*bytes.fromhex(image.key["sources"])),
        )
        libbpf.map_update(fds[_ABOUT], 0, bytes(about))
        programs = {}
        for name, program in image.programs.items():
            code = program.relocated(fds, image.kfuncs)
            programs[name] = _load(name, program, code)
            opened.callback(os.close, programs[name])
        for sub, found in (("maps", fds), ("progs", programs)):
            (directory / sub).mkdir(mode=0o700)
            for name, fd in found.items():
                libbpf.obj_pin(fd, directory / sub / name)


def _load(name: str, program: Program, code: bytes) -> int:
    try:
        return libbpf.prog_load(name, program.type, code)
    except OSError as exc:
        log = libbpf.prog_verdict(name, program.type, code)
        raise _refused(f"program '{name}'", exc, log) from exc


def _refused(what: str, exc: OSError, log: str = "") -> LoadError:
    lines = [line for line in log.splitlines() if line.strip()]
    because = [*_verdict(lines), f"{what}: {exc.strerror}"]
    omitted = len(lines) - len(because) + 1
    forbidden = exc.errno == errno.EPERM
    return LoadError(
        f"cannot load the programs: {' / '.join(because)} ({omitted} lines omitted)",
        log=log,
        hint="run as root" if forbidden else "--debug shows the whole log",
    )


def _verdict(lines: list[str]) -> list[str]:
    """The verifier's reason stands above its count of instructions."""
    for number, line in enumerate(lines):
        if line.startswith("processed "):
            return lines[max(0, number - 2) : number]
    return lines[-2:]


def in_use(pins: Path) -> bool:
    """Whether a pinned link still has its device; false with clsact alone."""
    for pin in (pins / "links").glob("*"):
        with suppress(FileNotFoundError), libbpf.opened(pin) as fd:
            if libbpf.link_info(fd).ifindex:
                return True
    return False


def unload(pins: Path) -> None:
    """Take the set away, and what an interrupted load left; both may be absent."""
    _remove(_coming(pins))
    _remove(pins)
    version, root = pins.parent, pins.parent.parent
    with suppress(OSError):  # other namespaces' sets, or not there
        version.rmdir()
        if root.stat().st_uid == os.geteuid():  # else a controller may hold on to it
            root.rmdir()


def _whole(pins: Path) -> ProgramSet:
    try:
        return ProgramSet(pins)
    except FileNotFoundError as exc:
        raise StateError(
            f"cannot use the programs of this namespace: '{exc.filename}' is missing",
            hint="pyfailover detach --force takes away what is left of them",
        ) from exc


def _coming(pins: Path) -> Path:
    return pins.with_name(f"new-{pins.name}")


def _remove(directory: Path) -> None:
    if directory.is_dir():
        shutil.rmtree(directory)
