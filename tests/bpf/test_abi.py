# SPDX-License-Identifier: GPL-2.0-or-later
"""bpf/failover.h against its mirror in abi.py, by the compiler that loads it."""

import ctypes as ct
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path

import pytest

from pyfailover.datapath import abi
from pyfailover.datapath.toolchain import bpf_dir, find_headers, merge_headers
from pyfailover.model import MAX_SLAVES, Word

STRUCTS: dict[str, type[ct.Structure]] = {
    "fo_state": abi.State,
    "fo_seat": abi.Seat,
    "fo_group": abi.Group,
    "fo_port": abi.Port,
    "fo_step": abi.Step,
    "fo_about": abi.About,
    "fo_seat_request": abi.SeatRequest,
    "fo_look_request": abi.LookRequest,
    "fo_cas_request": abi.CasRequest,
    "fo_source": abi.Source,
    "fo_last_source": abi.LastSource,
}
ARRAYS: dict[str, type[ct.Array[ct.c_uint64]]] = {
    "fo_slave_stats": abi.SlaveStats,
    "fo_group_stats": abi.GroupStats,
}
# Prefix of the enumerators, and the one that counts them.
ENUMS: dict[type[IntEnum], tuple[str, str | None]] = {
    abi.RxRule: ("FO_RX_", None),
    abi.SlaveCounter: ("FO_SLAVE_", "FO_SLAVE_COUNTERS"),
    abi.GroupCounter: ("FO_GROUP_", "FO_GROUP_COUNTERS"),
    abi.LinkState: ("FO_LINK_", None),
    abi.SeatVerdict: ("FO_SEAT_", None),
    abi.CasVerdict: ("FO_CAS_", None),
}
NUMBERS = {
    "FO_ABI_VERSION": abi.ABI_VERSION,
    "FO_MAX_SLAVES": MAX_SLAVES,
    "FO_NO_SLOT": abi.NO_SLOT,
    "FO_FLAG_KERNEL": abi.FLAG_KERNEL,
    "FO_PORT_PROBES": abi.PORT_PROBES,
    "FO_MAX_SOURCES": abi.MAX_SOURCES,
    "FO_PORT_HASH": abi._PORT_HASH,
    "FO_STEPS_PAGES * 4096": abi.STEPS_BYTES,
    "FO_LOOK_VALID": abi.LOOK_VALID,
    "FO_KFUNC_CAST_TO_KERN_CTX": abi.KFUNCS["bpf_cast_to_kern_ctx"],
    "FO_KFUNC_RDONLY_CAST": abi.KFUNCS["bpf_rdonly_cast"],
}
GROUPS = 97
_COMPILE = """
import sys
from bcc import BPF
BPF(text=sys.stdin.read(), cflags=sys.argv[1:])
"""


def lowest_bit(word: Word) -> int:
    """Where the field that this word has over an empty one begins."""
    bits = abi.pack_word(word) ^ abi.pack_word(Word(generation=0, active=0))
    return (bits & -bits).bit_length() - 1


def claims() -> Iterator[str]:
    """What abi.py says about the header, as constant expressions of C."""
    for name, struct in STRUCTS.items():
        yield f"sizeof(struct {name}) == {ct.sizeof(struct)}"
        for field, *_ in struct._fields_:
            found = getattr(struct, field)
            member = f"struct {name}, {field}"
            yield f"__builtin_offsetof({member}) == {found.offset}"
            yield f"sizeof((({member.split(',')[0]} *)0)->{field}) == {found.size}"
    for name, array in ARRAYS.items():
        yield f"sizeof(struct {name}) == {ct.sizeof(array)}"
        yield f"sizeof(((struct {name} *)0)->counter[0]) == 8"
    for enum, (prefix, number_of) in ENUMS.items():
        for member_of in enum:
            yield f"{prefix}{member_of.name} == {member_of.value}"
        if number_of:
            yield f"{number_of} == {len(enum)}"
    for name, value in NUMBERS.items():
        yield f"{name} == {value}"
    for field, word in {
        "ACTIVE": Word(generation=0, active=1),
        "LEFT": Word(generation=0, active=0, left=1),
        "APPROVED": Word(generation=0, active=0, approved=1),
        "FLAGS": Word(generation=0, active=0, by_kernel=True),
    }.items():
        yield f"FO_WORD_{field}_SHIFT == {lowest_bit(word)}"
    yield f"FO_MAX_GROUPS == {GROUPS}"
    yield f"FO_PORT_BITS == {abi.port_bits(GROUPS)}"


def compiled(lines: list[str], directory: Path) -> str:
    """What the compiler says about a program of these lines."""
    merge_headers(*find_headers(os.uname().release), directory)
    flags = (f"-DFO_MAX_GROUPS={GROUPS}", f"-DFO_PORT_BITS={abi.port_bits(GROUPS)}")
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE, f"-I{bpf_dir()}", "-ferror-limit=0", *flags],
        input="\n".join(lines),
        env=dict(os.environ, BCC_KERNEL_SOURCE=str(directory)),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.stderr


def test_layout(tmp_path: Path) -> None:
    """Every size, offset and number of abi.py is that of failover.h; and the
    compiler does look, for one claim that is wrong on purpose fails."""
    wrong = "sizeof(struct fo_state) == 17"
    lines = ['#include "failover.h"', "int nothing(void *ctx) { return 0; }"]
    lines += [f'_Static_assert({c}, "<{c}>");' for c in (*claims(), wrong)]
    said = compiled(lines, tmp_path)
    assert re.findall(r'error:.*"<(.*)>"', said) == [wrong], said
    assert said.count("error:") == 1, said


def test_no_name_is_missing() -> None:
    """Every enumerator, struct and kernel function of failover.h has its mirror."""
    header = (bpf_dir() / "failover.h").read_text()
    bare = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    bodies = re.findall(r"\benum \w+ \{(.*?)\}", bare, flags=re.DOTALL)
    theirs = {name for body in bodies for name in re.findall(r"\bFO_\w+", body)}
    ours = {prefix + c.name for enum, (prefix, _) in ENUMS.items() for c in enum}
    ours |= {number_of for _, number_of in ENUMS.values() if number_of}
    assert theirs == ours
    numbers = set(re.findall(r"^#define (FO_KFUNC_\w+)", bare, re.MULTILINE))
    assert numbers == {name for name in NUMBERS if name.startswith("FO_KFUNC_")}
    structs = set(re.findall(r"\bstruct (\w+) \{", bare))
    assert structs == STRUCTS.keys() | ARRAYS.keys()


@pytest.mark.parametrize("groups", [1, 2, 64, 65, 4096])
def test_table_of_ports_is_an_eighth_full_at_most(groups: int) -> None:
    """There is room for eight times the ports, and not for sixteen times."""
    ports = groups * (MAX_SLAVES + 1)
    assert ports * 8 <= 1 << abi.port_bits(groups) < ports * 16
