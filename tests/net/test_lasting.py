# SPDX-License-Identifier: GPL-2.0-or-later
"""Lasting groups: files that declare them, which a controller brings about."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pyfailover import commands
from pyfailover.lab import Namespace, eventually
from pyfailover.report import Health
from pyfailover.transaction import locked_namespace
from tests.support.daemon import controller
from tests.support.declared import declare, records, write
from tests.support.snapshot import Snapshot, assert_same, take
from tests.support.streams import damage, deliver, exchange
from tests.support.tool import Tool
from tests.support.topology import MAC, Duo

SERVED = pytest.mark.parametrize("served", [False, True], ids=["alone", "served"])
SLAVES = ("--primary=eth1", "--standby=eth2")


@contextmanager
def perhaps(served: bool, tool: Tool, ns: Namespace) -> Iterator[None]:
    """A controller, if there shall be one."""
    with ExitStack() as stack:
        if served:
            stack.enter_context(controller(tool, ns))
        yield


def make(tool: Tool, pair: Duo, *options: str, create: bool) -> None:
    """`create fo0`, or `attach fo0` over an interface that is made for it."""
    if not create:
        pair.lab.veth(pair.host, "fo0", pair.far, "fo0-far", mac_a=MAC)
    word = "create" if create else "attach"
    tool.command(pair.host, word, "fo0", *SLAVES, *options)


def reboot(tool: Tool, pair: Duo, *, create: bool) -> None:
    """What is left after one: the files, and interfaces as they are at first."""
    for path in (tool.roots.run, tool.roots.pins):
        shutil.rmtree(path)
    for number in (1, 2):
        pair.unplug(number)
        pair.plug(number)
    pair.host.ip("link del fo0")
    if not create:
        pair.lab.veth(pair.host, "fo0", pair.far, "fo0-far", mac_a=MAC)


def file_of(tool: Tool, ns: Namespace) -> Path:
    """The one file that `--persist` writes for fo0."""
    return tool.roots.etc / f"fo0@{ns.name}.toml"


def attached(tool: Tool, ns: Namespace, name: str = "fo0") -> bool:
    """Whether a group is attached whole."""
    done = tool.command(ns, "status", name, code=None)
    return done.returncode == 0 and f"{name}: ok" in done.stdout


@pytest.mark.parametrize(
    ("served", "create"), [(False, True), (True, False)], ids=["create", "attach"]
)
def test_persisted_group_is_there_after_a_boot(
    pair: Duo, tool: Tool, *, served: bool, create: bool
) -> None:
    """--persist writes a file that only root changes, and a controller that finds
    nothing but files attaches the group with all its settings, and traffic flows."""
    with perhaps(served, tool, pair.host):
        make(
            tool,
            pair,
            "--persist",
            "--policy=failure",
            "--up-delay=97",
            "--rx=all",
            create=create,
        )
        assert [p.name for p in tool.roots.etc.iterdir()] == [
            file_of(tool, pair.host).name
        ]
        info = file_of(tool, pair.host).stat()
        assert (info.st_uid, info.st_mode & 0o777) == (0, 0o644)
        wanted = records(tool, pair.host)["fo0"].spec
    reboot(tool, pair, create=create)
    with controller(tool, pair.host) as daemon:
        assert " ready groups=1" in daemon.log()
        found = records(tool, pair.host)["fo0"]
        assert (found.spec, found.lasting, found.created) == (wanted, True, create)
        pair.address()
        eventually(lambda: attached(tool, pair.host), what="both slaves")
        with exchange(pair.host, pair.far) as streams:
            deliver(*streams)
            assert damage(*streams) == [(0, 0)] * 4


def test_without_persist_nothing_lasts(pair: Duo, tool: Tool) -> None:
    """A group that was not asked to last is gone after a boot, and has no file."""
    with controller(tool, pair.host):
        make(tool, pair, create=True)
        assert not tool.roots.etc.exists()
    reboot(tool, pair, create=True)
    with controller(tool, pair.host) as daemon:
        assert " ready groups=0" in daemon.log()


@pytest.mark.parametrize(("served", "word"), [(True, "detach"), (False, "destroy")])
def test_lasting_group_is_not_detached_by_the_way(
    pair: Duo, tool: Tool, word: str, *, served: bool
) -> None:
    """Its file would bring it back: refused with the file's path, and nothing is
    changed; with --persist file and group are gone, for the next controller too."""
    with perhaps(served, tool, pair.host):
        make(tool, pair, "--persist", create=True)
        path = file_of(tool, pair.host)
        before = things(tool, pair.host)
        done = tool.command(pair.host, word, "fo0", code=1)
        assert f"'{path}' declares it\n" in done.stderr
        assert "hint: --persist removes that file too\n" in done.stderr
        assert_same(before, lambda: things(tool, pair.host), where="refused")
        tool.command(pair.host, word, "fo0", "--persist")
        assert not path.exists()
        assert not attached(tool, pair.host)
    with controller(tool, pair.host) as daemon:
        assert " ready groups=0" in daemon.log()


def test_master_that_was_left_idle_is_left_alone(pair: Duo, tool: Tool) -> None:
    """`detach --persist` keeps a master of ours, as `detach` does: neither a reload
    nor the next controller takes it away."""
    with controller(tool, pair.host):
        make(tool, pair, "--persist", create=True)
        tool.command(pair.host, "detach", "fo0", "--persist")
        assert tool.command(pair.host, "reload").stdout == ""
    with controller(tool, pair.host):
        assert tool.status(pair.host).health is Health.IDLE
        assert "fo0-low" in pair.host.ip("link show fo0")


def things(tool: Tool, ns: Namespace) -> Snapshot:
    """What there is in a namespace, and the files that declare groups."""
    found = take(tool, ns)
    found["files"] = {p.name: p.read_text() for p in tool.roots.etc.rglob("*")}
    return found


@SERVED
def test_refused_group_is_not_declared(pair: Duo, tool: Tool, *, served: bool) -> None:
    """A group that cannot be attached leaves no file behind."""
    pair.host.ip("addr add 192.0.2.9/24 dev eth2")
    before = links(tool, pair.host)
    with perhaps(served, tool, pair.host):
        tool.command(pair.host, "create", "fo0", *SLAVES, "--persist", code=1)
        assert not tool.roots.etc.exists()
        assert_same(before, lambda: links(tool, pair.host), where="refused")


@pytest.mark.parametrize(
    ("served", "state"), [(True, "new"), (False, "idle"), (True, "attached")]
)
def test_group_that_cannot_be_declared_is_not_attached(
    pair: Duo, tool: Tool, state: str, *, served: bool
) -> None:
    """Where its file cannot be written everything stays as it was: nothing, an idle
    master, or a group with other settings."""
    if state != "new":
        make(tool, pair, create=True)
    if state == "idle":
        tool.command(pair.host, "detach", "fo0")
    tool.roots.etc.mkdir()
    tool.roots.etc.chmod(0o777)
    before = links(tool, pair.host)
    with perhaps(served, tool, pair.host):
        asked = ("create", "fo0", *SLAVES, "--persist", "--policy=manual")
        done = tool.command(pair.host, *asked, code=2)
        assert f"{tool.roots.etc}: others may write to it" in done.stderr
        assert_same(before, lambda: links(tool, pair.host), where="refused")
        if state != "new":
            assert records(tool, pair.host)["fo0"].spec.policy == "always"
    assert list(tool.roots.etc.iterdir()) == []


def links(tool: Tool, ns: Namespace) -> Snapshot:
    """What there is but for books and pins, which a controller has, too."""
    return {
        key: value
        for key, value in take(tool, ns).items()
        if key.startswith(("link ", "addresses ", "routes ", "qdisc ", "tcx "))
    }


@dataclass(frozen=True)
class Bad:
    """A file that declares nothing, and what is said about it."""

    text: str
    faults: tuple[str, ...]  # the key, what is wrong, what is allowed


HEAD = 'master = "bad0"\nprimary = "bad1"\n'
BAD = {
    "syntax": Bad("master fo1", ("not TOML",)),
    "key": Bad(HEAD + "prinary = 1", ("'prinary'", "unknown key", "'primary'")),
    "type": Bad(HEAD + 'up_delay_ms = "1"', ("'up_delay_ms'", "string", "3600000")),
    "bool": Bad(HEAD + "create = 1", ("'create'", "number 1", "true or false")),
    "choice": Bad(HEAD + 'policy = "best"', ("'policy'", "best", "always, better")),
    "range": Bad(HEAD + "announce_count = 256", ("'announce_count'", "0 to 255")),
    "list": Bad(HEAD + 'standbys = "bad2"', ("'standbys'", "a list of strings")),
    "name": Bad('master = "a b"\nprimary = "c"', ("'a b'", "15 bytes")),
    "none": Bad('primary = "bad1"', ("no key 'master'",)),
    "slaves": Bad('master = "bad0"', ("no slave",)),
    "itself": Bad('master = "bad0"\nprimary = "bad0"', ("its own slave",)),
    "twice": Bad(HEAD + 'standbys = ["bad1"]', ("'bad1'", "named twice")),
    "rule": Bad(HEAD + 'standbys = ["pci=3"]', ("'3'", "0000:03:00.1")),
}


def test_files_with_errors_keep_no_other_waiting(pair: Duo, tool: Tool) -> None:
    """Each file with an error is named in the log with key, fault and what is
    allowed; all the others are attached."""
    declare(tool, pair.host)
    paths = {kind: write(tool, f"x-{kind}.toml", bad.text) for kind, bad in BAD.items()}
    with controller(tool, pair.host) as daemon:
        assert " ready groups=1" in daemon.log()
        assert attached(tool, pair.host)
        for kind, bad in BAD.items():
            (line,) = [x for x in daemon.log().splitlines() if str(paths[kind]) in x]
            assert [f for f in bad.faults if f not in line] == [], line
            assert " error " in line


def test_files_that_contradict_each_other(pair: Duo, tool: Tool) -> None:
    """A master of two files, a slave of two masters, a loop of masters: the log
    names both files, and what is left of them is attached."""
    declare(tool, pair.host)
    same = f'netns = "{pair.host.name}"\ncreate = true\n'
    twice = write(tool, "x-twice.toml", same + 'master = "fo0"\nstandbys = ["eth7"]\n')
    shared = write(
        tool, "x-shared.toml", same + 'master = "fo1"\nstandbys = ["eth2"]\n'
    )
    loop = [
        write(
            tool,
            f"x-loop{n}.toml",
            same + f'master = "lo{n}"\nstandbys = ["lo{(n + 1) % 3}"]\n',
        )
        for n in range(3)
    ]
    with controller(tool, pair.host) as daemon:
        assert " ready groups=1" in daemon.log()
        assert attached(tool, pair.host)
        faults = [x for x in daemon.log().splitlines() if " error " in x]
        assert len(faults) == 3
        first = str(tool.roots.etc / "fo0.toml")
        assert all(text in faults[0] for text in (str(twice), first, "'master'"))
        assert all(str(path) in faults[1] for path in loop)
        assert "lo0 -> lo1 -> lo2 -> lo0" in faults[1]
        assert all(text in faults[2] for text in (str(shared), first, "'eth2'"))


def test_file_of_others_is_refused(pair: Duo, tool: Tool) -> None:
    """One that somebody else owns or may write declares nothing, nor a link to one;
    the log says what is wrong and how to mend it."""
    paths = [declare(tool, pair.host, f"fo{n}") for n in range(3)]
    os.chown(paths[0], 65534, 65534)
    paths[1].chmod(0o646)
    elsewhere = tool.roots.etc / "aside"
    paths[2].rename(elsewhere)
    elsewhere.chmod(0o666)
    paths[2].symlink_to(elsewhere)
    before = links(tool, pair.host)
    with controller(tool, pair.host) as daemon:
        assert " ready groups=0" in daemon.log()
        for path, fault, mend in zip(
            paths,
            ("belongs to user 65534", "mode 0646", "mode 0666"),
            ("chown root", "chmod go-w", "chmod go-w"),
            strict=True,
        ):
            (line,) = [x for x in daemon.log().splitlines() if f"{path}: " in x]
            assert fault in line
            assert f"{mend} {path}" in line
        assert_same(before, lambda: links(tool, pair.host), where="refused")


def test_directory_of_others_is_refused(pair: Duo, tool: Tool) -> None:
    """Where others may put files nothing is declared."""
    declare(tool, pair.host)
    tool.roots.etc.chmod(0o757)
    before = links(tool, pair.host)
    with controller(tool, pair.host) as daemon:
        assert " ready groups=0" in daemon.log()
        assert f"{tool.roots.etc}: others may write to it" in daemon.log()
        assert_same(before, lambda: links(tool, pair.host), where="refused")


def test_a_controller_takes_the_files_of_its_namespace(pair: Duo, tool: Tool) -> None:
    """Files with `netns` are for the controller of that namespace alone, files
    without it for none but the first namespace's; two may declare the same name."""
    declare(tool, pair.host, "fo0")
    declare(tool, pair.far, "fo1")
    write(tool, "fo2.toml", 'master = "fo2"\nprimary = "eth1"\ncreate = true\n')
    with controller(tool, pair.host) as daemon:
        assert " ready groups=1" in daemon.log()
        assert " error " not in daemon.log()
        assert attached(tool, pair.host)
        assert "fo1" not in pair.far.ip("link show")


def test_slave_that_is_not_there_at_boot_joins(pair: Duo, tool: Tool) -> None:
    """A declared group is attached with the slaves that are there."""
    declare(tool, pair.host)
    pair.unplug(1)
    with controller(tool, pair.host) as daemon:
        assert daemon.group()["usable"] == 1
        pair.plug(1)
        eventually(lambda: daemon.group()["usable"] == 2, what="eth1 to join")
        assert tool.status(pair.host).active == "eth1"


@pytest.mark.parametrize("late", ["slaves", "master"])
def test_declared_group_waits_for_what_is_not_there(
    pair: Duo, tool: Tool, late: str
) -> None:
    """A group of which no slave, or not even the master, is there at boot is
    attached once they are (S11): it need not be asked for again."""
    declare(tool, pair.host, create=late == "slaves")
    if late == "slaves":
        pair.unplug(1)
        pair.unplug(2)
    with controller(tool, pair.host) as daemon:
        assert " ready groups=0" in daemon.log()
        if late == "slaves":
            pair.plug(1)
            pair.plug(2)
        else:
            pair.lab.veth(pair.host, "fo0", pair.far, "fo0-far", mac_a=MAC)
        eventually(lambda: attached(tool, pair.host), what="the group", timeout=60)


def test_more_groups_than_there_is_usually_room_for(
    pair: Duo, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a boot the programs are loaded with room for all that is declared, and
    some beside, in steps of as many as there are usually."""
    monkeypatch.setattr(commands, "DEFAULT_MAX_GROUPS", 3)
    for number in (3, 4):
        pair.plug(number)
    declare(tool, pair.host, "fo0")
    declare(tool, pair.host, "fo1", primary="eth3", standbys=["eth4"])
    roots = replace(tool.roots, netns=pair.host.name)
    with pair.host.enter(), locked_namespace(roots) as namespace:
        done = commands.reload(namespace)
        assert namespace.host.loaded.max_groups == 3
        monkeypatch.setattr(commands, "DEFAULT_MAX_GROUPS", 2)
        namespace.retreat(namespace.journal.all()["fo0"], 0)
        namespace.retreat(namespace.journal.all()["fo1"], 0)
        commands.reload(namespace)
        assert namespace.host.loaded.max_groups == 4
    assert list(done.done) == ["fo0", "fo1"]
    assert not done.failed
