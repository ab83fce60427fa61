# SPDX-License-Identifier: GPL-2.0-or-later
"""When an old image will do: what its key depends on."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pyfailover.datapath import btf, recipe
from pyfailover.datapath.recipe import Key, Recipe, digest, here
from pyfailover.datapath.toolchain import bpf_dir

WANTED = Recipe(97, carrier_test=True)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the programs' sources, in the place of them."""
    made = tmp_path / "bpf"
    shutil.copytree(bpf_dir(), made)
    monkeypatch.setattr(recipe, "bpf_dir", lambda: made)
    return made


@pytest.fixture
def types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the kernel's BTF; more than is read at once."""
    made = tmp_path / "vmlinux"
    made.write_bytes(bytes(100_000))
    monkeypatch.setattr(btf, "VMLINUX", made)
    return made


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have uname() say something else."""
    real = os.uname()

    def says(**other: str) -> None:
        names = ("sysname", "nodename", "release", "version", "machine")
        values = [other.get(name, getattr(real, name)) for name in names]
        monkeypatch.setattr(os, "uname", lambda: os.uname_result(values))

    return says


def parts(one: Key, other: Key) -> set[str]:
    """Where two keys differ, if their digests do."""
    different = {part for part in one if one[part] != other[part]}
    assert bool(different) == (digest(one) != digest(other))
    return different


def test_same_is_same(sources: Path, types: Path) -> None:
    """Neither time nor other files make another key."""
    before = WANTED.key()
    os.utime(sources / "failover.h", (0, 0))
    (sources / "README").write_text("not compiled")
    assert not parts(before, WANTED.key())


@pytest.mark.parametrize(
    "other",
    [replace(WANTED, max_groups=96), replace(WANTED, carrier_test=False)],
    ids=["groups", "kind"],
)
def test_another_wish_is_another_key(types: Path, other: Recipe) -> None:
    """Sizes and the kind are among the flags."""
    assert parts(WANTED.key(), other.key()) == {"flags"}


def test_another_flag_is_another_key(
    types: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flag that all kinds have counts like the others."""
    before = WANTED.key()
    monkeypatch.setattr(recipe, "_STRICT", ("-Wall",))
    assert parts(before, WANTED.key()) == {"flags"}


def change(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def rename(path: Path) -> None:
    path.rename(path.with_name(f"a{path.name}"))


@pytest.mark.parametrize("act", [change, rename, Path.unlink])
def test_another_source_is_another_key(
    sources: Path, types: Path, act: Callable[[Path], None]
) -> None:
    """Any file that is compiled, its content and its name."""
    for number, path in enumerate(sorted(sources.glob("*.[ch]"))):
        before = WANTED.key()
        act(path)
        assert parts(before, WANTED.key()) == {"sources"}, (number, path)


@pytest.mark.parametrize("at", [0, 65_535, 65_536, 99_999])
def test_other_types_are_another_kernel(types: Path, at: int) -> None:
    """All of the BTF counts."""
    before = WANTED.key()
    other = bytearray(types.read_bytes())
    other[at] = 1
    types.write_bytes(other)
    assert parts(before, WANTED.key()) == {"kernel"}


def test_same_types_are_the_same_kernel(
    types: Path, system: Callable[..., None]
) -> None:
    """A kernel that was built again with the same types can use the same."""
    before = WANTED.key()
    system(release="6.99.0", version="#2")
    assert not parts(before, WANTED.key())


@pytest.mark.parametrize("part", ["release", "version"])
def test_without_types_a_kernel_is_its_version(
    types: Path, system: Callable[..., None], part: str
) -> None:
    """Then each build is a kernel of its own."""
    types.unlink()
    system(release="5.10.0", version="#1")
    before = WANTED.key()
    assert before["kernel"] == "5.10.0 #1"
    system(**{"release": "5.10.0", "version": "#1", part: "#2"})
    assert parts(before, WANTED.key()) == {"kernel"}


def test_another_architecture_is_another_key(
    types: Path, system: Callable[..., None]
) -> None:
    """Code for one CPU is not looked for on another."""
    before = WANTED.key()
    system(machine="riscv64")
    assert parts(before, WANTED.key()) == {"architecture"}


def test_what_is_here_is_part_of_every_key(types: Path) -> None:
    """So that a file can be judged without its recipe."""
    assert here().items() < WANTED.key().items()
