# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel's BTF is asked for, and what it lacks."""

import re
from pathlib import Path

import pytest

from pyfailover.datapath import btf
from pyfailover.datapath.abi import KFUNCS
from pyfailover.errors import UnsupportedError

CAPABLE = pytest.mark.skipif(
    btf.lack() is not None, reason=f"this kernel has {btf.lack()}"
)


@pytest.fixture
def types(tmp_path: Path) -> Path:
    """Stands for the BTF of a kernel that has all functions."""
    path = tmp_path / "vmlinux"
    path.write_bytes(b"\0" + b"".join(b"%s\0" % name.encode() for name in KFUNCS))
    return path


def test_nothing_is_lacking(types: Path) -> None:
    """All names are there."""
    assert btf.lack(types) is None


@pytest.mark.parametrize("name", list(KFUNCS))
def test_a_missing_function_is_named(types: Path, name: str) -> None:
    """Also where another's name has it as a part."""
    raw = types.read_bytes()
    types.write_bytes(
        raw.replace(b"\0%s\0" % name.encode(), b"\0x%s_2\0" % name.encode())
    )
    assert btf.lack(types) == f"no {name} (requires Linux 6.2)"


def test_no_types_at_all(tmp_path: Path) -> None:
    """A kernel without BTF is told as such."""
    assert btf.lack(tmp_path / "none") == "no BTF (CONFIG_DEBUG_INFO_BTF)"


def test_resolving_without_types(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Says what to do without."""
    monkeypatch.setattr(btf, "VMLINUX", tmp_path / "none")
    with pytest.raises(UnsupportedError, match="no BTF") as told:
        btf.resolve()
    assert "--no-carrier-test" in str(told.value.hint)


@CAPABLE
@pytest.mark.parametrize(
    ("way", "lacking"),
    [
        (("sk_puff", "dev"), "no structure sk_puff"),
        (("sk_buff", "devil"), "no member devil in its struct sk_buff"),
        (("net_device", "nd_net.nut"), "no member nd_net.nut in its struct net_device"),
        (("net_device", "ifindex.x"), "no member ifindex.x in its struct net_device"),
    ],
    ids=["structure", "member", "inner member", "member of a number"],
)
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, way: tuple[str, str], lacking: str
) -> None:
    """A kernel that calls it otherwise gets no carrier test, and is told why."""
    monkeypatch.setitem(btf._OFFSETS, "FO_SK_BUFF_DEV", way)
    with pytest.raises(UnsupportedError, match=re.escape(lacking)):
        btf.resolve()


@CAPABLE
def test_a_missing_function_is_told_by_resolving(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As by the quick look."""
    monkeypatch.setitem(KFUNCS, "bpf_no_such_thing", 1)
    with pytest.raises(UnsupportedError, match="no function bpf_no_such_thing"):
        btf.resolve()


@CAPABLE
def test_all_macros_have_a_number() -> None:
    """One for each, and an id for each function."""
    found = btf.resolve()
    numbers = dict(flag.removeprefix("-D").split("=") for flag in found.flags)
    assert set(numbers) == {"FO_NET_DEVICE", *btf._OFFSETS}
    assert all(int(number) >= 0 for number in numbers.values())
    assert set(found.kfuncs) == set(KFUNCS)
    assert len(set(found.kfuncs.values())) == len(KFUNCS)
