# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyfailover netconf`: what it prints, writes and takes away."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pyfailover import netconf
from pyfailover.errors import StateError
from pyfailover.netconf import Subject
from pyfailover.netconf.subject import Slave
from pyfailover.place import Roots

Main = Callable[..., tuple[int, str, str]]  # see conftest.py

NETWORK = "etc/systemd/network/05-pyfailover-fo0.network"
SLAVE = "etc/systemd/network/06-pyfailover-fo0.slave0.network"


@pytest.fixture(autouse=True)
def group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that has one slave, there is no other."""

    def find(_: Roots, master: str) -> Subject:
        if master != "fo0":
            raise StateError(f"there is no '{master}'")
        return Subject(master=master, slaves=(Slave(rule="altname=e*"),))

    monkeypatch.setattr(netconf, "find_subject", find)


def test_shown(main: Main) -> None:
    """By default each file is printed under its name, and none is written."""
    code, out, err = main("netconf", "fo0", "--for", "networkd")
    assert (code, err) == (0, "")
    heads = [line for line in out.splitlines() if line.startswith("# ---")]
    assert heads == [f"# --- /{NETWORK}, mode 0644", f"# --- /{SLAVE}, mode 0644"]
    assert "\nDHCP=yes\n" in out
    assert not Path("/", NETWORK).exists()


def test_installed_and_removed(main: Main, tmp_path: Path) -> None:
    """What was done is told file by file; the group may be gone when they go."""
    at = ("--for", "networkd", f"--root={tmp_path}")
    code, out, _ = main("netconf", "fo0", *at, "--dhcp=ipv4", "--install")
    assert code == 0
    assert out == f"written {tmp_path / NETWORK}\nwritten {tmp_path / SLAVE}\n"
    assert "\nDHCP=ipv4\n" in (tmp_path / NETWORK).read_text()
    code, out, _ = main("netconf", "gone", *at, "--remove")
    assert (code, out) == (0, "nothing of ours is there\n")
    code, out, _ = main("netconf", "fo0", *at, "--remove")
    assert out == f"removed {tmp_path / NETWORK}\nremoved {tmp_path / SLAVE}\n"


def test_a_note_is_a_warning(main: Main) -> None:
    """What the manager cannot be told is said beside the files."""
    _, out, err = main("netconf", "fo0", "--for", "ifupdown")
    assert "warning" not in out
    assert err.startswith("warning: ifupdown cannot be told of the rule 'altname=e*'")


def test_a_foreign_file_is_told(main: Main, tmp_path: Path) -> None:
    """The error names the file."""
    foreign = tmp_path / NETWORK
    foreign.parent.mkdir(parents=True)
    foreign.write_text("[Match]\n")
    code, _, err = main(
        "netconf", "fo0", "--for=networkd", f"--root={tmp_path}", "--install"
    )
    assert code == 1
    assert err.startswith(f"Error: '{foreign}' is not a file that this command wrote")
    assert foreign.read_text() == "[Match]\n"


@pytest.mark.parametrize("act", ["--install", "--remove"])
def test_no_root(main: Main, tmp_path: Path, act: str) -> None:
    """A root that is not there is not made."""
    root = tmp_path / "image"
    code, _, err = main("netconf", "fo0", "--for=networkd", f"--root={root}", act)
    assert (code, err) == (2, f"Error: there is no directory '{root}'\n")
    assert not root.exists()


def test_no_group(main: Main) -> None:
    """Of what is not there no file is written."""
    code, _, err = main("netconf", "fo1", "--for", "networkd")
    assert (code, err) == (1, "Error: there is no 'fo1'\n")
