# SPDX-License-Identifier: GPL-2.0-or-later
"""Kept images: used, refused and made anew, listed, removed. Nothing is compiled."""

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pyfailover.datapath import btf, cache, recipe
from pyfailover.datapath.cache import Fit
from pyfailover.datapath.image import Image, Map
from pyfailover.datapath.recipe import Recipe
from pyfailover.errors import RefusedError

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="chown needs root")
STRANGER = 12345
PLAIN = Recipe(97, carrier_test=False)
COMPILED = Image(maps={"fo_states": Map(2, 4, 16, 97, 0)}, programs={})


class Compiler:
    """Stands for bcc; counts."""

    def __init__(self) -> None:
        self.flags: list[tuple[str, ...]] = []

    def __call__(self, flags: Sequence[str], **_: object) -> Image:
        self.flags.append(tuple(flags))
        return COMPILED


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Compiler:
    """What is asked when nothing is kept; the kernel's BTF is a small file."""
    made = Compiler()
    monkeypatch.setattr(cache, "build", made)
    types = tmp_path / "vmlinux"
    types.write_bytes(b"types")
    monkeypatch.setattr(btf, "VMLINUX", types)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where the files are; not there yet."""
    return tmp_path / "var/cache"


def obtain(store: Path, wanted: Recipe = PLAIN) -> Image:
    return cache.obtain(store, wanted, lock_fd=None, scratch=store / "headers")


def only(store: Path) -> Path:
    """The one file there is."""
    (path,) = store.iterdir()
    return path


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING
    ]


# --- obtain ---------------------------------------------------------------


def test_compiled_once(
    store: Path, compiler: Compiler, caplog: pytest.LogCaptureFixture
) -> None:
    """The second time the file will do, and nothing is said."""
    first = obtain(store)
    assert first == replace(
        COMPILED, key=PLAIN.key(), release=os.uname().release, kfuncs={}
    )
    assert obtain(store) == first
    assert compiler.flags == [PLAIN.flags]
    assert not warnings(caplog)


def test_what_the_kernel_tells_is_compiled_in(
    store: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the carrier test alone, and asked only when something is compiled."""
    asked = []

    def resolve() -> btf.Resolved:
        asked.append(1)
        return btf.Resolved(("-DFO_SK_BUFF_DEV=16",), {"bpf_cast": 7})

    monkeypatch.setattr(btf, "resolve", resolve)
    wanted = Recipe(97, carrier_test=True)
    assert obtain(store, wanted).kfuncs == {"bpf_cast": 7}
    assert obtain(store, wanted).kfuncs == {"bpf_cast": 7}
    assert compiler.flags == [(*wanted.flags, "-DFO_SK_BUFF_DEV=16")]
    assert len(asked) == 1


@pytest.mark.parametrize(
    "other", [Recipe(96, carrier_test=False)], ids=["another number of groups"]
)
def test_another_wish_is_compiled(
    store: Path, compiler: Compiler, other: Recipe
) -> None:
    """Both are kept then."""
    obtain(store)
    obtain(store, other)
    obtain(store)
    assert compiler.flags == [PLAIN.flags, other.flags]


def test_another_kernel_misses(store: Path, compiler: Compiler) -> None:
    """Its types are others."""
    obtain(store)
    btf.VMLINUX.write_bytes(b"other types")
    obtain(store)
    assert len(compiler.flags) == 2


def damage(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-2] ^= 1
    path.write_bytes(raw)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def give_away(path: Path) -> None:
    os.chown(path, STRANGER, STRANGER)


def open_up(path: Path) -> None:
    path.chmod(0o666)


def link(path: Path) -> None:
    path.rename(path.parent.parent / "good")
    path.symlink_to(path.parent.parent / "good")


def swap(path: Path) -> None:
    """Another recipe's image, whole, under this one's name."""
    elsewhere = path.parent.parent / "elsewhere"
    obtain(elsewhere, Recipe(96, carrier_test=False))
    only(elsewhere).rename(path)


@pytest.mark.parametrize(
    ("act", "why"),
    [
        (damage, "it is damaged: not what its digest says"),
        (truncate, "it is damaged: not what its digest says"),
        (empty, "it is not an image that this version can read"),
        pytest.param(give_away, f"it belongs to user {STRANGER}", marks=ROOT),
        (open_up, "others may write to it (mode 0666)"),
        (link, "it is a symbolic link"),
        (swap, "it has the name of another"),
    ],
)
def test_refused_said_and_made_anew(
    store: Path,
    compiler: Compiler,
    caplog: pytest.LogCaptureFixture,
    act: Callable[[Path], None],
    why: str,
) -> None:
    """One warning with the file and the reason; then a good file is there."""
    good = obtain(store)
    path = only(store)
    act(path)
    compiler.flags.clear()
    assert obtain(store) == good
    assert compiler.flags == [PLAIN.flags]
    assert warnings(caplog) == [f"'{path}': {why}: the programs are compiled anew"]
    assert obtain(store) == good
    assert compiler.flags == [PLAIN.flags]
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("act", [pytest.param(give_away, marks=ROOT), open_up, link])
def test_untrusted_directory_is_not_used(
    store: Path,
    compiler: Compiler,
    caplog: pytest.LogCaptureFixture,
    act: Callable[[Path], None],
) -> None:
    """Said once; compiled each time, and nothing is written there."""
    good = obtain(store)
    path = only(store)
    path.unlink()
    act(store)
    assert obtain(store) == good
    assert len(compiler.flags) == 2
    (said,) = warnings(caplog)
    assert said.startswith(f"'{store}': ")
    assert said.endswith(": the programs are compiled anew")
    assert not list(store.iterdir())


def test_that_it_cannot_be_kept_is_no_error(
    store: Path, compiler: Compiler, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as where a part of the path is a file; said once, with the reason."""
    store.parent.write_text("in the way")
    assert obtain(store).maps == COMPILED.maps
    assert len(compiler.flags) == 1
    assert len(warnings(caplog)) == 1


def test_full_disk_is_no_error(
    store: Path,
    compiler: Compiler,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The programs are loaded all the same."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    assert obtain(store).maps == COMPILED.maps
    assert warnings(caplog) == [
        f"cannot keep the programs in '{store}': No space left on device"
    ]
    assert not list(store.iterdir())


# --- make, has ------------------------------------------------------------


def test_make_says_whether_it_had_to(store: Path, compiler: Compiler) -> None:
    """And where the file is; has() then knows of it."""
    assert not cache.has(store, PLAIN)
    path, fresh = cache.make(store, PLAIN, scratch=store / "headers")
    assert (path, fresh) == (only(store), True)
    assert cache.make(store, PLAIN, scratch=store / "headers") == (path, False)
    assert cache.has(store, PLAIN)
    damage(path)
    assert not cache.has(store, PLAIN)


def test_make_refuses_an_untrusted_directory(store: Path, compiler: Compiler) -> None:
    """To have a file there was what was asked for."""
    store.mkdir(parents=True)
    open_up(store)
    with pytest.raises(RefusedError, match="others may write to it"):
        cache.make(store, PLAIN, scratch=store / "headers")


# --- entries, clear -------------------------------------------------------


def fits(store: Path) -> Mapping[str, Fit]:
    return {entry.name: entry.fit for entry in cache.entries(store)}


def test_entries_judge_all_files(
    store: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """For this kernel, another, another version of ours, refused; the newest first."""
    obtain(store)
    here = only(store).name
    types = btf.VMLINUX.read_bytes()
    btf.VMLINUX.write_bytes(b"other types")
    obtain(store)
    btf.VMLINUX.write_bytes(types)
    (kernel,) = {path.name for path in store.iterdir()} - {here}
    with monkeypatch.context() as patched:
        patched.setattr(recipe, "bpf_dir", lambda: tmp_path)  # no sources
        obtain(store)
    (version,) = {path.name for path in store.iterdir()} - {here, kernel}
    bad = f"programs-{'0' * 16}.image"
    shutil.copy(store / here, store / bad)
    (store / "notes").write_text("of somebody")
    for age, name in enumerate((kernel, bad, here, version)):
        then = btf.VMLINUX.stat().st_mtime - 1000 * age
        os.utime(store / name, (then, then))
    assert list(fits(store).items()) == [
        (kernel, Fit.OTHER_KERNEL),
        (bad, Fit.REFUSED),
        (here, Fit.HERE),
        (version, Fit.OTHER_VERSION),
    ]
    _, refused, good, _ = cache.entries(store)
    assert (refused.image, refused.why) == (None, "it has the name of another")
    assert (good.max_groups, good.why) == (97, "")
    assert good.size == (store / here).stat().st_size
    assert 2000 <= good.age_s < 3000


def test_clear_removes_ours_alone(store: Path, compiler: Compiler) -> None:
    """Refused ones and what was half written too; its links, not what they lead to."""
    obtain(store)
    name = only(store).name
    link(store / name)
    half = store / f".new-{'0' * 16}"
    half.write_bytes(b"")
    (store / "notes").write_text("of somebody")
    assert cache.clear(store) == [name]
    assert [path.name for path in store.iterdir()] == ["notes"]
    assert (store.parent / "good").exists()
    assert cache.clear(store) == []


def test_no_directory_is_nothing(store: Path) -> None:
    """Neither to show nor to clear."""
    assert list(cache.entries(store)) == []
    assert cache.clear(store) == []
    assert not store.exists()
