# SPDX-License-Identifier: GPL-2.0-or-later
"""What a shell is offered, and the manual page."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pyfailover.cli import completing, manual
from pyfailover.place import netns_cookie

PAGE = Path(__file__).parents[2] / "docs" / "pyfailover.8"
COMMAND = Path(sys.executable).with_name("pyfailover")


@pytest.fixture
def run_root(tmp_path: Path) -> Path:
    """Two groups of this namespace, and one of another."""
    for cookie, name in ((netns_cookie(), "fo0"), (netns_cookie(), "vnet7"), (1, "x")):
        records = tmp_path / str(cookie) / "groups"
        records.mkdir(parents=True, exist_ok=True)
        (records / f"{name}.json").touch()
    return tmp_path


def offered(line: str) -> list[str]:
    """What bash offers for the last word, by the script that it is given."""
    words = line.split(" ")
    script = (
        f'eval "$({COMMAND} completion bash)"; COMP_WORDS=("$@"); '
        f"COMP_CWORD={len(words) - 1}; _pyfailover_completion pyfailover; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", *words],
        env={**os.environ, "PATH": f"{COMMAND.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_bash_completes(run_root: Path) -> None:
    """Commands, groups of this namespace, options, interfaces."""
    assert offered("pyfailover swi") == ["switch"]
    options = f"pyfailover --run-root {run_root}"
    assert offered(f"{options} status ") == ["fo0", "vnet7"]
    assert offered(f"{options} detach v") == ["vnet7"]
    assert offered(f"{options} --netns lab detach ") == ["fo0", "vnet7", "x"]
    assert "--persist" in offered("pyfailover detach --p")
    names = {name for _, name in socket.if_nameindex()}
    assert set(offered("pyfailover create fo0 --primary ")) == names


@pytest.mark.parametrize("shell", completing.SHELLS)
def test_script(shell: str) -> None:
    """For each shell, of its own kind."""
    done = subprocess.run(
        [COMMAND, "completion", shell], capture_output=True, text=True, check=True
    )
    assert f"{shell}_complete" in done.stdout


def test_page_is_of_these_commands() -> None:
    """`pyfailover manual > docs/pyfailover.8` brings it up to date."""
    assert PAGE.read_text() == manual.page()


def test_page_is_good_roff() -> None:
    """No warning, no line that a terminal would break."""
    argv = ["groff", "-man", "-Tutf8", "-ww", "-rLL=80n"]
    done = subprocess.run(
        argv, input=PAGE.read_bytes(), capture_output=True, check=True
    )
    assert done.stderr == b""
    text = re.sub(".\b", "", done.stdout.decode())  # bold by overstriking
    for word in ("pyfailover", "switch", "--persist", "EXIT STATUS"):
        assert word in text
