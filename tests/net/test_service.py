# SPDX-License-Identifier: GPL-2.0-or-later
"""The controller as a service: what its manager is told, how it ends, and whether its
log tells an incident."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pyfailover.history import Kind
from pyfailover.lab import eventually
from pyfailover.report import Health
from tests.support.daemon import USER, Daemon, controller
from tests.support.declared import declare, write
from tests.support.streams import damage, deliver, exchange
from tests.support.tool import Tool, spec
from tests.support.topology import Duo


class Manager:
    """A service manager's end of sd_notify(3)."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(30)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def next(self) -> list[str]:
        """The lines of the next message."""
        return self._socket.recv(4096).decode().splitlines()

    def skip_to(self, word: str) -> list[str]:
        """The next message that begins so; before it only the watchdog is fed."""
        while not (lines := self.next())[0].startswith(word):
            assert lines == ["WATCHDOG=1"], lines
        return lines

    def silent(self) -> bool:
        """Whether there is nothing more."""
        self._socket.setblocking(False)
        try:
            return not self._socket.recv(4096)
        except BlockingIOError:
            return True


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """One that the next controllers are started by, as they believe; as systemd's, its
    socket is everybody's to write to."""
    with TemporaryDirectory(prefix="pyfailover-notify-") as directory:
        Path(directory).chmod(0o711)
        path = Path(directory) / "notify"
        made = Manager(path)
        path.chmod(0o777)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield made
        made.close()


def test_ready_once_all_groups_are_attached(
    pair: Duo, tool: Tool, manager: Manager
) -> None:
    """READY=1 is the first that is said, when the groups of the files carry traffic;
    RELOADING=1 with the time of it and READY=1 enclose a reload, one that fails too;
    STOPPING=1 comes before the end, and nothing after it."""
    declare(tool, pair.host)
    argv = tool.argv(pair.host, "run", f"--user={USER}")
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        try:
            assert manager.next() == ["READY=1"]
            assert tool.status(pair.host).health is Health.OK
            tool.command(pair.host, "reload")
            reloading = manager.next()
            assert reloading[0] == "RELOADING=1"
            assert re.fullmatch(r"MONOTONIC_USEC=\d+", reloading[1])
            assert manager.next() == ["READY=1"]
            write(tool, "bad.toml", "x")
            tool.command(pair.host, "reload", code=2)
            assert manager.next()[0] == "RELOADING=1"
            assert manager.next() == ["READY=1"]
            process.send_signal(signal.SIGTERM)
            assert manager.next() == ["STOPPING=1"]
            assert process.wait(30) == 0
            assert manager.silent()
        finally:
            process.kill()


def test_watchdog_is_fed(
    pair: Duo, tool: Tool, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WATCHDOG=1 again and again, at least twice in the time that is allowed, also
    while it works; none while it hangs."""
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    with controller(tool, pair.host) as daemon:
        assert manager.next() == ["READY=1"]
        for _ in range(5):
            assert manager.next() == ["WATCHDOG=1"]
        tool.command(pair.host, "create", "fo0", "--primary=eth1", "--standby=eth2")
        tool.command(pair.host, "switch", "fo0", "eth2")
        for _ in range(5):
            assert manager.next() == ["WATCHDOG=1"]
        assert daemon.stop() == 0
        assert manager.skip_to("STOPPING=1")


def test_watchdog_of_a_parent_is_not_fed(
    pair: Duo, tool: Tool, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another process is watched we say nothing in its name."""
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    with controller(tool, pair.host) as daemon:
        daemon.status()
        daemon.stop()
    assert [manager.next(), manager.next()] == [["READY=1"], ["STOPPING=1"]]


def test_manager_that_is_gone_does_no_harm(
    pair: Duo, tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens on NOTIFY_SOCKET: it runs, reloads and ends all the same."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    with controller(tool, pair.host) as daemon:
        tool.command(pair.host, "reload")
        assert daemon.stop() == 0
        assert " error " not in daemon.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_end_leaves_traffic_running(
    pair: Duo, tool: Tool, number: signal.Signals
) -> None:
    """Exit code 0, and not one packet is lost: groups, pins and the active slave are
    left as they are, the history tells nothing new, and the next one adopts them."""
    tool.create(pair.host, spec())
    pair.address()
    with (
        controller(tool, pair.host) as daemon,
        exchange(pair.host, pair.far) as streams,
    ):
        tool.command(pair.host, "switch", "fo0", "eth2")
        deliver(*streams)
        told = daemon.switches()
        daemon.signal(number)
        eventually(lambda: not daemon.running, timeout=20, what="its end")
        assert daemon.stop() == 0
        assert daemon.log().splitlines()[-1].endswith(" info stopped groups=1")
        deliver(*streams)
        assert tool.status(pair.host).active == "eth2"
        with controller(tool, pair.host) as after:
            deliver(*streams)
            assert after.switches() == told
            assert after.group()["pinned"] == "eth2"
        assert damage(*streams) == [(0, 0)] * 4


def test_second_one_is_refused(pair: Duo, tool: Tool) -> None:
    """A namespace has one controller: another is told the first one's process, and
    does no harm; once that is gone it may start."""
    tool.create(pair.host, spec())
    with controller(tool, pair.host) as daemon:
        done = tool.process(pair.host, "run", f"--user={USER}", code=1)
        expected = f"Error: a controller runs here already: process {daemon.pid}\n"
        assert done.stderr.startswith(expected)
        assert daemon.group()["usable"] == 2
        with controller(tool, pair.far) as other:
            assert other.status()["groups"] == {}
        daemon.kill()
    with controller(tool, pair.host) as daemon:
        assert daemon.group()["usable"] == 2


@contextmanager
def logged_json(tool: Tool, pair: Duo, log: Path) -> Iterator[None]:
    """A controller that writes its log as JSON."""
    argv = tool.argv(
        pair.host, "run", f"--user={USER}", "--log-format=json", "--reconcile=0.5"
    )
    with log.open("wb") as file, subprocess.Popen(argv, stderr=file) as process:
        try:
            eventually(lambda: '"ready"' in log.read_text(), timeout=30, what="ready")
            yield
        finally:
            process.terminate()
            process.wait(30)


def test_json_log(pair: Duo, tool: Tool, tmp_path: Path) -> None:
    """Each line is an object with time, level and what; a switch has all of its facts
    in fields of their own, an error its hint."""
    tool.create(pair.host, spec())
    log = tmp_path / "log"
    with logged_json(tool, pair, log):
        pair.cut(1)
        eventually(lambda: tool.status(pair.host).active == "eth2", what="failover")
        eventually(lambda: '"degraded"' in log.read_text(), what="degraded")
        pair.unplug(1)
        pair.host.ip("addr flush dev eth2")
        eventually(lambda: '"leave"' in log.read_text(), what="the primary's leave")
        write(tool, "bad.toml", "x")
        tool.command(pair.host, "reload", code=2)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        assert list(line)[:3] == ["time", "level", "what"]
        assert datetime.fromisoformat(line["time"]).tzinfo is not None
        assert line["level"] in ("info", "warning", "error")
    words = [line["what"] for line in lines]
    assert words[0] == "ready"
    assert words[-1] == "stopped"
    (switch,) = [line for line in lines if line["what"] == "switch"]
    facts = {"master": "fo0", "from": "eth1", "to": "eth2", "reason": "carrier_lost"}
    assert facts.items() <= switch.items()
    assert switch["by"] in ("kernel", "controller")
    assert isinstance(switch["generation"], int)
    assert isinstance(switch["took_ms"], float)


SWITCH = re.compile(r"^(\S+) (info|warning) switch (.*)$", re.MULTILINE)


def from_log(daemon: Daemon) -> list[tuple[str, ...]]:
    """All switches that the text of a log tells of."""
    found = []
    for _, _, words in SWITCH.findall(daemon.log()):
        fields = dict(word.split("=", 1) for word in shlex.split(words))
        keys = ("master", "from", "to", "reason", "by", "generation")
        found.append(tuple(fields[key] for key in keys))
    return found


def test_log_tells_an_incident(pair: Duo, tool: Tool) -> None:
    """Every change of the active slave, with from, to, reason and who decided, is in
    the lines of the log in the order in which `events` has it; between them are the
    slaves that left and joined, and the loss of redundancy."""
    tool.create(pair.host, spec())

    def wait_for(slave: str | None, usable: int) -> None:
        eventually(
            lambda: (
                (tool.status(pair.host).active, daemon.group()["usable"])
                == (slave, usable)
            ),
            what=f"{slave} active, {usable} usable",
        )

    with controller(tool, pair.host) as daemon:
        pair.cut(1)
        wait_for("eth2", 1)
        pair.mend(1)
        wait_for("eth1", 2)
        pair.unplug(1)
        wait_for("eth2", 1)
        pair.plug(1)
        wait_for("eth1", 2)
        tool.command(pair.host, "switch", "fo0", "eth2")
        wait_for("eth2", 2)
        pair.host.ip("link set eth2 down")
        wait_for("eth1", 1)
        pair.cut(1)
        wait_for(None, 0)
        pair.host.ip("link set eth2 up")
        wait_for("eth2", 1)
        pair.mend(1)
        wait_for("eth2", 2)
        tool.command(pair.host, "switch", "fo0", "auto")
        wait_for("eth1", 2)
        said = tool.command(pair.host, "events", "--json").stdout
        shown = [json.loads(line) for line in said.splitlines()]
        switches = [
            (
                event["group"],
                event["before"] or "-",
                event["after"] or "-",
                event["reason"],
                event["by"],
                str(event["generation"]),
            )
            for event in shown
            if event["kind"] == Kind.SWITCH
        ]
        assert from_log(daemon) == switches
        assert [each[1:4] for each in switches] == [
            ("eth1", "eth2", "carrier_lost"),
            ("eth2", "eth1", "preferred"),
            ("eth1", "eth2", "removed"),
            ("eth2", "eth1", "preferred"),
            ("eth1", "eth2", "operator"),
            ("eth2", "eth1", "admin_down"),
            ("eth1", "-", "carrier_lost"),
            ("-", "eth2", "recovered"),
            ("eth2", "eth1", "operator"),
        ]
        assert [each[4] for each in switches if each[3] == "operator"] == ["user"] * 2
        log = daemon.log()
        kinds = ("degraded", "whole", "leave", "join", "pin")
        told = re.findall(rf" ({'|'.join(kinds)}) master=fo0", log)
        listed = [event["kind"] for event in shown if event["kind"] in kinds]
        assert told == listed
        assert set(told) == set(kinds)
