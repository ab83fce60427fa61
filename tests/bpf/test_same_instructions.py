# SPDX-License-Identifier: GPL-2.0-or-later
"""A program from a file is the one that bcc itself would load.

bcc loads each program in a process of its own, its kfunc calls filled in within
bcc's own memory: none of our relocations has a part in that. Compared are all
instructions as they are given to the kernel, with the names of maps in the place
of their descriptors, and the tag by which the kernel tells programs apart.
"""

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyfailover.datapath import abi, btf, cache, libbpf, loading
from pyfailover.datapath.build import MAPS, PROGRAMS
from pyfailover.datapath.recipe import Recipe
from pyfailover.datapath.toolchain import bpf_dir, find_headers, merge_headers
from pyfailover.place import Roots, ensure_bpffs
from tests.bpf.conftest import no_compiler
from tests.support.progrun import MAX_GROUPS, Kind

_BY_BCC = """
import ctypes, json, struct, sys
from pathlib import Path
from bcc import BPF, lib

wanted = json.load(sys.stdin)
text = (Path(wanted["bpf"]) / "failover_tc.c").read_text()
module = BPF(text=text, cflags=[f"-I{wanted['bpf']}", *wanted["flags"]])
handle = ctypes.c_void_p(module.module)
programs = {}
for name in wanted["programs"]:
    start = lib.bpf_function_start(handle, name.encode())
    for at in range(start, start + lib.bpf_function_size(handle, name.encode()), 8):
        raw = ctypes.string_at(at, 8)
        for magic, id_ in wanted["kfuncs"]:
            if raw == struct.pack("=BBhi", 0x85, 0, 0, magic):
                registers = 0x20 if sys.byteorder == "little" else 0x02
                ctypes.memmove(at, struct.pack("=BBhi", 0x85, registers, 0, id_), 8)
    loaded = module.load_func(name.encode(), BPF.SCHED_CLS)
    programs[name] = (
        module.dump_func(name.encode()).hex(),
        Path(f"/proc/self/fdinfo/{loaded.fd}").read_text(),
    )
maps = {name: lib.bpf_table_fd(handle, name.encode()) for name in wanted["maps"]}
print(json.dumps({"programs": programs, "maps": maps}))
"""
_LOAD_IMM64, _MAP_FD = 0x18, 1


@dataclass(frozen=True)
class Loaded:
    """A program as the kernel was given it."""

    instructions: tuple[tuple[int, int, int, int | str], ...]
    tag: str


def loaded(code: bytes, maps: Mapping[int, str], about: str) -> Loaded:
    """The program of some code.

    Args:
        maps: names by descriptors.
        about: what /proc tells of its descriptor.
    """
    found: list[tuple[int, int, int, int | str]] = []
    for opcode, registers, offset, value in struct.iter_unpack("=BBhi", code):
        source = registers >> 4 if sys.byteorder == "little" else registers & 0xF
        named = opcode == _LOAD_IMM64 and source == _MAP_FD
        found.append((opcode, registers, offset, maps[value] if named else value))
    (tag,) = re.findall(r"^prog_tag:\s*([0-9a-f]{16})$", about, re.MULTILINE)
    return Loaded(tuple(found), tag)


def by_bcc(recipe: Recipe, scratch: Path) -> Mapping[str, Loaded]:
    """All programs, loaded by bcc."""
    resolved = recipe.resolve()
    merge_headers(*find_headers(os.uname().release), scratch)
    wanted = {
        "bpf": str(bpf_dir()),
        "flags": [*recipe.flags, *resolved.flags],
        "programs": PROGRAMS,
        "maps": MAPS,
        "kfuncs": [(abi.KFUNCS[name], id_) for name, id_ in resolved.kfuncs.items()],
    }
    done = subprocess.run(
        [sys.executable, "-c", _BY_BCC],
        input=json.dumps(wanted),
        env=dict(os.environ, BCC_KERNEL_SOURCE=str(scratch)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    maps = {fd: name for name, fd in said["maps"].items()}
    return {
        name: loaded(bytes.fromhex(code), maps, about)
        for name, (code, about) in said["programs"].items()
    }


def by_file(recipe: Recipe, store: Path, pins: Path) -> Mapping[str, Loaded]:
    """All programs, loaded from a file by our loader, where nothing can compile."""
    cache.make(store, recipe, scratch=store / "headers")
    maps: dict[int, str] = {}
    found: dict[str, Loaded] = {}
    map_create, prog_load = libbpf.map_create, libbpf.prog_load

    def noted_map(name: str, **definition: int) -> int:
        fd = map_create(name, **definition)
        maps[fd] = name
        return fd

    def noted_program(name: str, type: int, code: bytes) -> int:
        fd = prog_load(name, type, code)
        about = Path(f"/proc/self/fdinfo/{fd}").read_text()
        found[name] = loaded(code, maps, about)
        return fd

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cache, "build", no_compiler)
        patched.setattr(libbpf, "map_create", noted_map)
        patched.setattr(libbpf, "prog_load", noted_program)
        image = cache.obtain(store, recipe, lock_fd=None, scratch=store / "headers")
        loading.fill(pins, image)
    return found


@pytest.mark.parametrize("kind", list(Kind))
def test_same_instructions(kind: Kind, roots: Roots, tmp_path: Path) -> None:
    """Each program of each kind, to the last instruction."""
    test = kind is Kind.CARRIER_TEST
    if test and (why := btf.lack()) is not None:
        pytest.skip(f"this kernel has {why}")
    recipe = Recipe(MAX_GROUPS, test)
    ensure_bpffs(roots.pins)
    pins = roots.pins / "same"
    pins.mkdir(parents=True)
    expected = by_bcc(recipe, tmp_path / "headers")
    kept = by_file(recipe, tmp_path / "store", pins)
    assert set(expected) == set(PROGRAMS)
    assert kept == expected
