# SPDX-License-Identifier: GPL-2.0-or-later
"""The filter of system calls, by a machine that runs it as the kernel would."""

import platform
import struct

import pytest

from pyfailover import confinement
from pyfailover.confinement import _ARCHES, _filter
from pyfailover.errors import UnsupportedError

ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050001, 0x80000000
PROT_READ, PROT_WRITE = 1, 2
SHARED, PRIVATE, SHARED_VALIDATE = 1, 2, 3


def judge(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """What the filter returns for a call."""
    known, calls = _ARCHES[machine]
    code = list(struct.iter_unpack("HBBI", _filter(known, calls).raw))
    data = struct.pack(
        "IIQ6Q", number, arch or known, 0, *arguments, *[0] * (6 - len(arguments))
    )
    at, loaded = 0, 0
    while True:
        operation, yes, no, k = code[at]
        at += 1
        match operation:
            case 0x20:
                (loaded,) = struct.unpack_from("I", data, k)
            case 0x15:
                at += yes if loaded == k else no
            case 0x35:
                at += yes if loaded >= k else no
            case 0x45:
                at += yes if loaded & k else no
            case 0x06:
                return int(k)


@pytest.mark.parametrize("machine", _ARCHES)
def test_filter(machine: str) -> None:
    """Reading is allowed, changing refused, another architecture's process ends."""
    calls = _ARCHES[machine][1]
    for command in range(50):
        wanted = ALLOW if command in {1, 4, 7, 15, 24} else REFUSE
        assert judge(machine, calls["bpf"], command) == wanted
    for name in calls.keys() - {"bpf", "mmap"}:
        assert judge(machine, calls[name]) == REFUSE
    assert judge(machine, 0) == ALLOW
    assert judge(machine, 0, arch=0x40000003) == KILL


@pytest.mark.parametrize("machine", _ARCHES)
@pytest.mark.parametrize(
    ("prot", "flags", "wanted"),
    [
        (PROT_READ, SHARED, ALLOW),
        (PROT_WRITE, PRIVATE, ALLOW),
        (PROT_READ | PROT_WRITE, SHARED, REFUSE),
        (PROT_WRITE, SHARED_VALIDATE, REFUSE),
    ],
)
def test_filter_of_mappings(machine: str, prot: int, flags: int, wanted: int) -> None:
    """What others have is mapped to be read only."""
    mmap = _ARCHES[machine][1]["mmap"]
    assert judge(machine, mmap, 0, 4096, prot, flags) == wanted


def test_filter_of_x32() -> None:
    """No way around it by the other numbers that x86_64 has for the same calls."""
    for number in (1, 321, 547):
        assert judge("x86_64", 0x40000000 | number) == REFUSE


def test_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the numbers are not known nothing is filtered, and that is said."""
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    with pytest.raises(UnsupportedError, match="not known on pdp11"):
        confinement._change_nobody()
