# SPDX-License-Identifier: GPL-2.0-or-later
"""What a controller may still do once it has begun, and what others may not."""

import mmap
import os
import re
import signal
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pyfailover import asking, control
from pyfailover.confinement import become_reader
from pyfailover.datapath import libbpf
from pyfailover.errors import PyFailoverError
from pyfailover.lab import eventually
from pyfailover.place import held, join_namespace
from pyfailover.privileges import CONTROLLER, Account, drop
from pyfailover.transaction import paths
from tests.support.daemon import USER, Daemon, controller
from tests.support.scraping import answers, children, exporter, scrape
from tests.support.streams import damage, deliver, exchange
from tests.support.tool import Tool, spec
from tests.support.topology import Duo

SOMEBODY = 64024
FOUR = sum(1 << cap for cap in CONTROLLER)


def field(pid: int, name: str, thread: int | None = None) -> list[str]:
    """What /proc says of a thread of a process, the first one unless told."""
    text = Path(f"/proc/{pid}/task/{thread or pid}/status").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name}:"))
    return line.split()[1:]


def rights(daemon: Daemon) -> Iterator[dict[str, int]]:
    """Of each thread."""
    for thread in Path(f"/proc/{daemon.pid}/task").iterdir():
        yield {
            name: int(field(daemon.pid, f"Cap{name}", int(thread.name))[0], 16)
            for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")
        }


def owners(*directories: Path) -> set[int]:
    """Whose all of these are, and what is in them."""
    found = [path for top in directories for path in (top, *top.rglob("*"))]
    assert len(found) > len(directories)
    return {path.lstat().st_uid for path in found}


def as_user(uid: int, act: Callable[[], object]) -> str:
    """What it comes to if somebody does it: an error's words, or nothing."""
    return said_by(partial(drop, Account(uid, uid)), act)


def as_reader(act: Callable[[], object]) -> str:
    """The same of an exporter."""
    return said_by(partial(become_reader, Account(USER, USER)), act)


def said_by(become: Callable[[], None], act: Callable[[], object]) -> str:
    """The same of a process that is another one first."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            become()
            act()
        except (OSError, PyFailoverError) as exc:
            os.write(into, str(exc).encode())
        except BaseException as exc:
            os.write(into, f"unforeseen: {exc!r}".encode())
            raise
        finally:
            os._exit(0)
    os.close(into)
    os.waitpid(pid, 0)
    with os.fdopen(out) as said:
        return said.read()


def test_controller_has_four_capabilities(pair: Duo, tool: Tool) -> None:
    """In all of its threads, and no way to more: not by a program that it runs."""
    tool.create(pair.host, spec())
    with controller(tool, pair.host) as daemon:
        assert field(daemon.pid, "Uid") == [str(USER)] * 4
        assert field(daemon.pid, "Gid") == [str(USER)] * 4
        assert field(daemon.pid, "Groups") == []
        assert field(daemon.pid, "NoNewPrivs") == ["1"]
        found = list(rights(daemon))
        assert len(found) > 1  # the poll has one
        for each in found:
            assert each == {"Inh": 0, "Prm": FOUR, "Eff": FOUR, "Bnd": FOUR, "Amb": 0}
        assert field(daemon.pid, "Uid")[0] != "0"


def test_a_user_that_there_is_not(pair: Duo, tool: Tool) -> None:
    """The controller stays root's, with the four capabilities all the same."""
    tool.create(pair.host, spec())
    with controller(tool, pair.host, "--user=nobody-of-that-name") as daemon:
        assert field(daemon.pid, "Uid") == ["0"] * 4
        assert {each["Eff"] for each in rights(daemon)} == {FOUR}
        assert "there is no user 'nobody-of-that-name'" in daemon.log()


def test_its_work_goes_on(pair: Duo, tool: Tool) -> None:
    """After it has given up its rights: a first group, failing over, mending, other
    programs, the last group's end, and a group once more."""
    host = pair.host
    with controller(tool, host) as daemon:
        for _ in range(2):
            tool.command(host, "create", "fo0", "--primary=eth1", "--standby=eth2")
            pair.address()
            pair.settle()
            with exchange(host, pair.far, rate=2_000) as streams:
                deliver(*streams)
                tool.command(host, "reload", "--programs")
                deliver(*streams)
                assert [lost for lost, _ in damage(*streams)] == [0] * 4
            with exchange(host, pair.far, rate=2_000) as streams:
                pair.cut(1)
                eventually(lambda: tool.status(host).active == "eth2")
                deliver(*streams)
                pair.mend(1)
                eventually(lambda: tool.status(host).active == "eth1")
                deliver(*streams)
            for pin in (tool.pins(host) / "links").iterdir():
                pin.unlink()  # somebody detaches all
            eventually(
                lambda: all(s.attached for s in tool.status(host).slaves),
                timeout=15,
                what="repair",
            )
            tool.command(host, "destroy", "fo0")
            assert not tool.pins(host).exists()
        assert daemon.running


def test_pins_and_records_are_the_users_alone(pair: Duo, tool: Tool) -> None:
    """The directories are 0700; nobody else sees the pins or is heard."""
    tool.create(pair.host, spec())
    with controller(tool, pair.host), pair.host.enter():
        pins, run = paths(tool.roots)
        assert owners(tool.roots.pins, tool.roots.run) == {USER}
        for directory in (tool.roots.pins, pins, tool.roots.run, run):
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        for path in (pins / "maps" / "fo_states", run / "groups"):
            assert "Permission denied" in as_user(SOMEBODY, path.stat)
        ask = "cannot ask the controller: Permission denied"
        assert as_user(SOMEBODY, lambda: control.ask(run, "status")) == ask


def test_who_may_ask_for_what(pair: Duo, tool: Tool) -> None:
    """Somebody who got hold of the socket is refused; the controller's own user may
    look, and change nothing."""
    tool.create(pair.host, spec())
    with controller(tool, pair.host) as daemon, pair.host.enter():
        run = paths(tool.roots)[1]
        socket = run / "control.sock"
        for path in (tool.roots.run, run):
            path.chmod(0o755)
        socket.chmod(0o666)
        assert "may not ask" in as_user(SOMEBODY, lambda: control.ask(run, "status"))
        assert as_user(USER, lambda: control.ask(run, "status")) == ""
        for request in ("detach", "switch", "reload", "attach", "replace"):
            said = as_user(USER, partial(control.ask, run, request))
            assert said == f"only root may ask to {request}"
        assert daemon.group()["usable"] == 2


def test_root_and_the_controller_take_turns(pair: Duo, tool: Tool) -> None:
    """What a command makes while there is none is the next controller's."""
    host = pair.host
    tool.create(host, spec())
    with controller(tool, host) as daemon:
        daemon.kill()
    for command in (
        ("switch", "fo0", "eth2"),
        ("destroy", "fo0"),
        ("create", "fo0", "--primary=eth1", "--standby=eth2"),
        ("switch", "fo0", "eth2"),
    ):
        tool.command(host, *command)
        assert owners(tool.roots.run) == {USER}
    with controller(tool, host) as daemon:
        assert owners(tool.roots.pins, tool.roots.run) == {USER}
        tool.command(host, "switch", "fo0", "auto")
        assert tool.status(host).active == "eth1"
        with host.enter():
            asked = asking.status(tool.roots)
        assert asked is not None
        assert asked["troubles"] == {}


@pytest.mark.parametrize("word", ["detach", "destroy"])
def test_files_are_roots_to_write(pair: Duo, tool: Tool, word: str) -> None:
    """A lasting group's file is written and removed by the command: the controller
    may not."""
    with controller(tool, pair.host):
        tool.command(
            pair.host, "create", "fo0", "--primary=eth1", "--standby=eth2", "--persist"
        )
        (file,) = tool.roots.etc.iterdir()
        assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (0, 0o644)
        assert "Permission denied" in as_user(USER, file.unlink)
        tool.command(pair.host, "reload")
        tool.command(pair.host, word, "fo0", "--persist")
        assert list(tool.roots.etc.iterdir()) == []


def test_exporter_has_no_rights(pair: Duo, tool: Tool) -> None:
    """Not one capability is left, as its own command and as a child of the controller;
    and it answers, also when the programs were replaced."""
    tool.create(pair.host, spec())
    with exporter(tool, pair.host) as process:
        assert scrape(pair.host).get("group_usable_slaves") == 2
        confined(process.pid)
        assert int(field(process.pid, "CapBnd")[0], 16) == 0
    with controller(tool, pair.host, "--metrics=127.0.0.1:9909") as daemon:
        eventually(lambda: answers(pair.host), timeout=20, what="an exporter")
        (child,) = children(daemon.pid)
        assert scrape(pair.host).get("controller_up") == 1
        confined(child)
        tool.command(pair.host, "reload", "--programs")
        assert scrape(pair.host).get("slave_ready", slave="eth1") == 1


def confined(pid: int) -> None:
    """See that a process is a reader."""
    for name in ("Inh", "Prm", "Eff", "Amb"):
        assert int(field(pid, f"Cap{name}")[0], 16) == 0, name
    assert field(pid, "Uid") == [str(USER)] * 4
    assert field(pid, "NoNewPrivs") == ["1"]
    assert field(pid, "Seccomp") == ["2"]


def test_exporter_can_change_nothing(pair: Duo, tool: Tool) -> None:
    """With the controller's own user, and its pins and records at hand."""
    tool.create(pair.host, spec())
    with controller(tool, pair.host) as daemon, pair.host.enter():
        pins, _ = held(paths(tool.roots)[0])
        run, _ = held(paths(tool.roots)[1])
        states = libbpf.obj_get(pins / "maps" / "fo_states")
        size = libbpf.map_value_size(states)
        ring = libbpf.obj_get(pins / "maps" / "fo_steps")
        link = libbpf.obj_get(next((pins / "links").iterdir()))
        record = run / "groups" / "fo0.json"
        detach: dict[str, Any] = {"master": "fo0", "destroy": False, "persist": False}
        refused: dict[str, Callable[[], object]] = {
            "map": partial(libbpf.map_update, states, 0, bytes(size)),
            "new map": partial(
                libbpf.map_create,
                *("x",),
                type=2,
                key_size=4,
                value_size=8,
                max_entries=1,
                flags=0,
            ),
            "link": partial(libbpf.link_detach, link),
            "ring": partial(mmap.mmap, ring, mmap.PAGESIZE),
            "record": partial(record.write_text, "{}"),
            "mode": partial(record.chmod, 0o666),
            "record's end": record.unlink,
            "pin's end": (pins / "maps" / "fo_states").unlink,
            "new file": (run / "new").touch,
            "signal": partial(os.kill, daemon.pid, signal.SIGKILL),
            "program": partial(os.execv, "/bin/true", ["true"]),
            "namespace": partial(join_namespace, Path("/proc/self/ns/net")),
            "request": partial(control.ask, run, "detach", **detach),
        }
        for what, attempt in refused.items():
            words = as_reader(attempt)
            assert re.search("not permitted|denied|only root may", words), (what, words)
        read: dict[str, Callable[[], object]] = {
            "map": partial(libbpf.map_lookup, states, 0, size),
            "pin": partial(libbpf.obj_get, pins / "maps" / "fo_groups"),
            "record": record.read_text,
            "controller": partial(control.ask, run, "metrics"),
        }
        for what, attempt in read.items():
            assert as_reader(attempt) == "", what
        for fd in (states, ring, link):
            os.close(fd)
        assert daemon.group()["usable"] == 2
    assert tool.status(pair.host).active == "eth1"
