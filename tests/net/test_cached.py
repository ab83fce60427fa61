# SPDX-License-Identifier: GPL-2.0-or-later
"""Attaching from a file, on a host that cannot compile; and both kinds by command."""

import errno
import json
import os
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pyfailover.datapath import btf, build, libbpf
from pyfailover.datapath.toolchain import find_headers
from pyfailover.errors import StateError, UnsupportedError
from pyfailover.place import Roots
from tests.support.tool import Tool, spec
from tests.support.topology import Duo

CREATE = ("create", "fo0", "--primary=eth1", "--standby=eth2")
CAPABLE = pytest.mark.skipif(
    btf.lack() is not None, reason=f"this kernel has {btf.lack()}"
)


@pytest.fixture
def no_bcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are started from now on have no bcc."""
    (tmp_path / "lacking").mkdir()
    text = "raise ModuleNotFoundError(\"No module named 'bcc'\")\n"
    (tmp_path / "lacking/bcc.py").write_text(text)
    old = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'lacking'}:{old}")


@pytest.fixture
def no_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel headers are found."""
    monkeypatch.setattr(
        build, "find_headers", lambda release: find_headers(release, tmp_path / "none")
    )


@pytest.fixture
def shipped(tool: Tool, pair: Duo, tmp_path: Path) -> Tool:
    """A host with a file that it did not make."""
    made = Tool(replace(tool.roots, cache=tmp_path / "var/cache/pyfailover"))
    made.command(pair.host, "cache", "build")
    return made


def status(tool: Tool, pair: Duo) -> dict[str, Any]:
    """What `status --json` tells of fo0."""
    done = tool.command(pair.host, "status", "fo0", "--json", code=None)
    (group,) = json.loads(done.stdout)["groups"]
    assert isinstance(group, dict)
    return group


def complaints(text: str) -> list[str]:
    """Lines of stderr about the programs."""
    return [line for line in text.splitlines() if "programs" in line]


# --- where nothing can be compiled ----------------------------------------


@pytest.mark.parametrize(
    ("lacking", "why"),
    [
        ("no_bcc", "the Python module bcc is missing"),
        ("no_headers", "no kernel headers"),
    ],
)
def test_without_a_file_it_must_compile(
    pair: Duo, cold: Roots, request: pytest.FixtureRequest, lacking: str, why: str
) -> None:
    """What the other tests do without is needed else."""
    request.getfixturevalue(lacking)
    tool = Tool(cold)
    done = tool.command(pair.host, *CREATE, "--no-carrier-test", code=3)
    assert why in done.stderr
    assert not tool.pins(pair.host).exists()


def test_with_a_file_neither_bcc_nor_headers_are_needed(
    shipped: Tool, pair: Duo, no_bcc: None, no_headers: None
) -> None:
    """It attaches, and nothing is said of the programs."""
    done = shipped.command(pair.host, *CREATE)
    assert complaints(done.stderr) == []
    assert status(shipped, pair)["carrier_test"] is (btf.lack() is None)


def test_the_installed_command_imports_no_bcc(
    shipped: Tool, pair: Duo, no_bcc: None
) -> None:
    """In a process of its own, which could not."""
    done = shipped.process(pair.host, *CREATE)
    assert complaints(done.stderr) == []
    assert status(shipped, pair)["active"] == "eth1"


def test_a_damaged_file_is_said_and_made_anew(shipped: Tool, pair: Duo) -> None:
    """The command attaches all the same, and the next one has a good file."""
    (path,) = shipped.roots.cache.iterdir()
    good = path.read_bytes()
    path.write_bytes(good[:-2] + b" \n")
    done = shipped.command(pair.host, *CREATE)
    (said,) = complaints(done.stderr)
    assert f"'{path}': it is damaged" in said
    assert path.read_bytes() == good


# --- the two kinds --------------------------------------------------------


def refuse(name: str, type: int, code: bytes) -> int:
    """As a kernel that lets nobody call its functions."""
    for opcode, registers, _, _ in struct.iter_unpack("=BBhi", code):
        source = registers >> 4 if sys.byteorder == "little" else registers & 0xF
        if (opcode, source) == (0x85, 2):
            raise OSError(errno.EACCES, "Permission denied")
    return LOAD(name, type, code)


LOAD = libbpf.prog_load


@CAPABLE
def test_refused_test_falls_back_to_plain(
    tool: Tool, pair: Duo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One warning, and the group is attached."""
    monkeypatch.setattr(libbpf, "prog_load", refuse)
    done = tool.command(pair.host, *CREATE)
    (said,) = complaints(done.stderr)
    assert "no carrier test in the programs: cannot load the programs: " in said
    assert "Permission denied" in said
    assert status(tool, pair)["carrier_test"] is False


@CAPABLE
def test_refused_test_that_was_asked_for_is_an_error(
    tool: Tool, pair: Duo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3, and nothing is left."""
    monkeypatch.setattr(libbpf, "prog_load", refuse)
    done = tool.command(pair.host, *CREATE, "--carrier-test", code=3)
    (said,) = complaints(done.stderr)
    assert "cannot load the programs: " in said
    assert not tool.pins(pair.host).exists()
    assert "fo0" not in pair.host.ip("-o", "link", "show")


@CAPABLE
@pytest.mark.parametrize("test", [True, False])
def test_the_kind_that_is_asked_for(tool: Tool, pair: Duo, test: bool) -> None:
    """Is loaded, and told by status."""
    option = "--carrier-test" if test else "--no-carrier-test"
    done = tool.command(pair.host, *CREATE, option)
    assert complaints(done.stderr) == []
    assert status(tool, pair)["carrier_test"] is test


@CAPABLE
def test_the_kind_is_one_for_a_namespace(tool: Tool, pair: Duo) -> None:
    """The other one is refused while a group is there, and nothing changes."""
    tool.command(pair.host, *CREATE, "--no-carrier-test")
    pair.plug(3)
    other = ("create", "fo1", "--primary=eth3")
    done = tool.command(pair.host, *other, "--carrier-test", code=1)
    assert "cannot change the carrier test" in done.stderr
    assert status(tool, pair)["carrier_test"] is False
    assert "fo1" not in pair.host.ip("-o", "link", "show")


def test_kernel_without_btf(
    pair: Duo, tool: Tool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A kernel that cannot have the carrier test has plain programs, without a word;
    asked for by name that is an error which says why."""
    monkeypatch.setattr(btf, "VMLINUX", tmp_path / "none")
    with pytest.raises(UnsupportedError, match="no BTF"):
        tool.create(pair.host, spec(), carrier_test=True)
    tool.create(pair.host, spec())
    assert tool.status(pair.host).carrier_test is False


def test_other_kind_of_an_attached_group(pair: Duo, tool: Tool) -> None:
    """Another kind than that of an attached group is refused, not ignored."""
    tool.create(pair.host, spec(), carrier_test=False)
    with pytest.raises(StateError, match="carrier test"):
        tool.create(pair.host, spec(), carrier_test=True)
    tool.create(pair.host, spec(), carrier_test=False)


def test_roots_speak_of_what_is_to_be_loaded(pair: Duo, tool: Tool) -> None:
    """`run --no-carrier-test`, and `reload --programs --carrier-test` later: a group
    that is attached then takes the programs as they are."""
    tool.create(pair.host, spec(standbys=()), carrier_test=True)
    plain = Tool(replace(tool.roots, carrier_test=False))
    plain.create(pair.host, spec("fo1", None, ("eth2",)))
    assert plain.status(pair.host, "fo1").carrier_test is True
