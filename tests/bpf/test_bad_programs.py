# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of programs that the compiler or the verifier will not have."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

import pyfailover
from pyfailover.datapath import loading
from pyfailover.datapath.toolchain import bpf_dir
from pyfailover.errors import BuildError
from pyfailover.place import Roots, ensure_bpffs, locked

# What is put in the place of two lines of failover_tc.c, and what is said then.
LINE = "\tid = request->group;\n\tstate = fo_states.lookup(&id);\n"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A mistake in the program fo_cas."""

    description: str
    instead: str
    message: str  # a regular expression
    log: str


CASES = [
    Case(
        description="not C",
        instead=LINE.replace("group", "gruop"),
        message=r"bpf/failover_tc\.c:\d+:\d+: error: no member named 'gruop'",
        log="gruop",
    ),
    Case(
        description="a warning",
        instead="\tint unused;\n" + LINE,
        message=r"bpf/failover_tc\.c:\d+:\d+: error: unused variable 'unused'",
        log="-Wunused-variable",
    ),
    Case(
        description="beyond the packet",
        instead=LINE.replace("->", "[1]."),
        message=r"R\d offset is outside of the packet",
        log="R1=ctx",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.description)
def test_bad_program(
    case: Case, cold: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what is wrong and where, keeps all of the log, and nothing
    stays pinned."""
    package = tmp_path / "pyfailover"
    here = Path(pyfailover.__file__).parent
    shutil.copytree(here, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(bpf_dir(), package / "bpf")
    source = package / "bpf" / "failover_tc.c"
    text = source.read_text()
    assert text.count(LINE) == 1
    source.write_text(text.replace(LINE, case.instead))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ensure_bpffs(cold.pins)
    pins = cold.pins / "v3" / "97"
    with locked(cold.run) as lock_fd, pytest.raises(BuildError) as failed:
        loading.load(
            pins,
            1,
            store=cold.cache,
            lock_fd=lock_fd,
            scratch=cold.run / "headers",
        )
    assert failed.match(case.message)
    assert case.log in failed.value.log
    assert failed.value.message.count("\n") == 0
    assert failed.value.exit_code == 3
    assert not list(cold.pins.glob("*/*"))
