# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of a configuration, put in place and taken away."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pyfailover.errors import PyFailoverError, RefusedError
from pyfailover.netconf import (
    Configuration,
    Manager,
    Subject,
    configuration,
)
from pyfailover.netconf.installing import Done, install, remove
from pyfailover.netconf.subject import Slave

Tree = dict[str, tuple[bytes, int]]

FOREIGN = b"# somebody's\n"


def tell(manager: Manager, *rules: str, master: str = "fo0") -> Configuration:
    slaves = tuple(Slave(rule=rule) for rule in rules)
    return configuration(Subject(master=master, slaves=slaves), manager)


TWO = tell(Manager.NETWORKD, "eth1", "eth2")
ONE = tell(Manager.NETWORKD, "eth7")


def tree(root: Path) -> Tree:
    """All files below a root, hidden ones too, with content and mode."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mode & 0o777)
        for path in root.rglob("*")
        if path.is_file()
    }


def expected(*configurations: Configuration) -> Tree:
    return {
        str(file.path): (each.content(file).encode(), file.mode)
        for each in configurations
        for file in each.files
    }


@pytest.mark.parametrize("manager", list(Manager))
def test_there_and_back(tmp_path: Path, manager: Manager) -> None:
    """All files are there with their modes, then none; each twice, which is once."""
    wanted = tell(manager, "eth1", "name=e[12],driver=x")
    assert {*install(tmp_path, wanted).values()} == {Done.WRITTEN}
    assert tree(tmp_path) == expected(wanted)
    assert {*install(tmp_path, wanted).values()} == {Done.UNCHANGED}
    assert tree(tmp_path) == expected(wanted)
    assert remove(tmp_path, wanted) == {
        file.path: Done.REMOVED for file in wanted.files
    }
    assert tree(tmp_path) == {}
    assert remove(tmp_path, wanted) == {}


def test_a_profile_is_secret(tmp_path: Path) -> None:
    """NetworkManager takes no profile that others may read."""
    install(tmp_path, tell(Manager.NETWORKMANAGER, "eth1"))
    directory = tmp_path / "etc/NetworkManager/system-connections"
    (profile,) = directory.iterdir()
    assert profile.stat().st_mode & 0o777 == 0o600


def test_what_is_no_longer_wanted_goes(tmp_path: Path) -> None:
    """A group of fewer slaves leaves no file of the former ones; the rest is new."""
    install(tmp_path, TWO)
    done = install(tmp_path, ONE)
    assert {path.name: what for path, what in done.items()} == {
        "05-pyfailover-fo0.network": Done.UNCHANGED,
        "06-pyfailover-fo0.slave0.network": Done.WRITTEN,
        "06-pyfailover-fo0.slave1.network": Done.REMOVED,
    }
    assert tree(tmp_path) == expected(ONE)


def test_others_stay(tmp_path: Path) -> None:
    """Files of other masters, managers and people are none of ours."""
    others = [
        tell(Manager.NETWORKD, "eth5", master="fo0-1"),
        tell(Manager.NETWORKMANAGER, "name=e[12]"),
        tell(Manager.IFUPDOWN, "name=e[12]"),
    ]
    for each in others:
        install(tmp_path, each)
    own = tmp_path / "etc/systemd/network/10-eth.network"
    own.write_bytes(FOREIGN)
    before = tree(tmp_path)
    install(tmp_path, TWO)
    assert tree(tmp_path) == before | expected(TWO)
    remove(tmp_path, TWO)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("act", [install, remove])
@pytest.mark.parametrize(
    "name", ["06-pyfailover-fo0.slave1.network", "06-pyfailover-fo0.slave7.network"]
)
@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(FOREIGN),
        lambda path: path.write_bytes(b""),
        lambda path: path.symlink_to("/dev/null"),
        lambda path: path.mkdir(),
    ],
    ids=["text", "empty", "masked", "directory"],
)
def test_a_foreign_file(
    tmp_path: Path,
    act: Callable[[Path, Configuration], object],
    name: str,
    make: Callable[[Path], object],
) -> None:
    """One that is not ours, and is called as if it were, ends it; nothing is done."""
    install(tmp_path, ONE)
    path = tmp_path / "etc/systemd/network" / name
    make(path)
    before = tree(tmp_path)
    with pytest.raises(RefusedError, match=f"'{path}' is not a file that this command"):
        act(tmp_path, TWO)
    assert tree(tmp_path) == before
    assert os.path.lexists(path)


@pytest.mark.parametrize("at", range(4))
def test_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Whichever file cannot be put in its place: all is as before, and said so."""
    install(tmp_path, ONE)
    before = tree(tmp_path)
    real, calls = Path.replace, iter(range(100))

    def fail(self: Path, target: Path) -> Path:
        if next(calls) == at:
            raise OSError(28, "No space left on device", str(target))
        return real(self, target)

    wanted = tell(Manager.NETWORKD, "eth1", "eth2", "eth3", "eth4")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", fail)
        with pytest.raises(PyFailoverError, match=r"No space left.*nothing is changed"):
            install(tmp_path, wanted)
    assert tree(tmp_path) == before
    install(tmp_path, wanted)
    assert tree(tmp_path) == expected(wanted)


@pytest.mark.parametrize("at", range(3))
def test_removed_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """One that cannot be removed brings the others back."""
    install(tmp_path, TWO)
    before = tree(tmp_path)
    real, calls = Path.unlink, iter(range(100))

    def fail(self: Path, missing_ok: bool = False) -> None:
        if not self.name.startswith(".") and next(calls) == at:
            raise PermissionError(1, "Operation not permitted", str(self))
        real(self, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", fail)
        with pytest.raises(PyFailoverError, match="Operation not permitted") as caught:
            remove(tmp_path, TWO)
    assert caught.value.hint == "run as root"
    assert tree(tmp_path) == before


def test_directories_that_were_made_go_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failure not even a directory is left."""

    def fail(self: Path, target: Path) -> Path:
        raise OSError(30, "Read-only file system", str(target))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(PyFailoverError, match="Read-only"):
        install(tmp_path, TWO)
    assert list(tmp_path.iterdir()) == []
