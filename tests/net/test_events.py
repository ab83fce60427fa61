# SPDX-License-Identifier: GPL-2.0-or-later
"""What commands show of a controller's work: `events`, `status`, `switch`."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import pytest

from pyfailover.lab import eventually
from tests.support.daemon import controller
from tests.support.tool import Tool, spec
from tests.support.topology import Duo

WARNING = "warning: no controller: nothing will be brought back\n"
FIELDS = {
    "time",
    "group",
    "kind",
    "before",
    "after",
    "reason",
    "by",
    "took_s",
    "generation",
    "detail",
}


def events(tool: Tool, pair: Duo, *args: str) -> list[dict[str, Any]]:
    """What `events --json` shows."""
    said = tool.command(pair.host, "events", "--json", *args).stdout
    return [json.loads(line) for line in said.splitlines()]


def facts(event: dict[str, Any]) -> tuple[Any, ...]:
    """What is the same each time."""
    return tuple(event[key] for key in ("kind", "before", "after", "reason", "by"))


@contextmanager
def background(tool: Tool, pair: Duo, out: Path, *args: str) -> Iterator[Any]:
    """A command that goes on; killed at the end."""
    argv = tool.argv(pair.host, *args)
    with out.open("wb") as stream, subprocess.Popen(argv, stdout=stream) as process:
        try:
            yield process
        finally:
            process.kill()


def test_events_without_a_controller(pair: Duo, tool: Tool) -> None:
    """Switches that commands made themselves are told, by the user, with all facts;
    to follow them there is nobody."""
    assert events(tool, pair) == []
    tool.create(pair.host, spec())
    start = time.time()
    for slave in ("eth2", "eth1"):
        tool.command(pair.host, "switch", "fo0", slave)
    shown = events(tool, pair)
    assert [facts(event) for event in shown] == [
        ("switch", "eth1", "eth2", "operator", "user"),
        ("switch", "eth2", "eth1", "operator", "user"),
    ]
    for event in shown:
        assert event.keys() == FIELDS
        assert event["group"] == "fo0"
        assert start <= event["time"] <= time.time()
        assert 0 < event["took_s"] < 60
    assert [event["generation"] for event in shown] == [3, 4]
    done = tool.command(pair.host, "events", "--follow", code=1)
    assert done.stderr.startswith("Error: no controller runs here\n")


def test_events_of_a_controller(pair: Duo, tool: Tool) -> None:
    """What the controller, the programs and the operator did, in order, over its end
    and a restart; the table has a line for each, --last and a master pick some."""
    tool.create(pair.host, spec())
    with controller(tool, pair.host) as daemon:
        pair.cut(1)
        eventually(lambda: daemon.switches(), what="the failover")
        pair.mend(1)
        eventually(lambda: len(daemon.switches()) == 2, what="the fail-back")
        daemon.stop()
    tool.command(pair.host, "switch", "fo0", "eth2")
    with controller(tool, pair.host) as daemon:
        tool.command(pair.host, "switch", "fo0", "auto")
        eventually(lambda: len(daemon.switches()) == 4, what="the last switch")
        asked = ("create", "fo1", "--standby=eth9", "--allow-missing")
        tool.command(pair.host, *asked, code=1)
        shown = events(tool, pair)
    failover, *others = [facts(e) for e in shown if e["kind"] == "switch"]
    assert failover[:4] == ("switch", "eth1", "eth2", "carrier_lost")
    assert failover[4] in ("controller", "kernel")
    assert others == [
        ("switch", "eth2", "eth1", "preferred", "controller"),
        ("switch", "eth1", "eth2", "operator", "user"),
        ("switch", "eth2", "eth1", "operator", "user"),
    ]
    assert all(one["time"] <= two["time"] for one, two in pairwise(shown))
    assert {"degraded", "whole", "pin"} <= {event["kind"] for event in shown}
    assert events(tool, pair, "--last", "2") == shown[-2:]
    assert events(tool, pair, "fo0") == shown
    assert events(tool, pair, "fo1") == []
    head, *lines = tool.command(pair.host, "events").stdout.splitlines()
    assert head.split() == [
        *("TIME", "MASTER", "WHAT", "FROM", "TO", "REASON", "BY", "TOOK")
    ]
    assert len(lines) == len(shown)
    for line, event in zip(lines, shown, strict=True):
        assert len(line) <= 88
        told = event["reason"] if event["kind"] == "switch" else event["detail"]
        words = [event["kind"], event["before"] or "-", event["after"] or "-"]
        assert line.split()[2:5] == words
        assert f" {told or '-'} " in line
        assert f" {event['by']} " in line


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_events_that_are_followed(
    pair: Duo, tool: Tool, tmp_path: Path, *, as_json: bool
) -> None:
    """--follow shows each switch as it happens, of the group that was asked for; it
    ends with the controller, and by Ctrl-C with 130."""
    tool.create(pair.host, spec())
    out, other = tmp_path / "out", tmp_path / "other"
    more = ["--json"] if as_json else []
    with (
        controller(tool, pair.host) as daemon,
        background(tool, pair, out, "events", "--follow", *more) as follower,
        background(tool, pair, other, "events", "fo9", "--follow") as stranger,
    ):
        slaves = cycle(("eth2", "eth1"))

        def follows() -> bool:
            # Until it listens; and once more, so that the last one is seen.
            tool.command(pair.host, "switch", "fo0", next(slaves))
            return out.read_text().count("switch") >= 2

        eventually(follows, timeout=20, what="a switch that is followed")
        last = daemon.events()[-1].time
        eventually(other.read_text, timeout=20, what="the other one's table")
        stranger.send_signal(signal.SIGINT)
        assert stranger.wait(20) == 130
        daemon.stop()
        assert follower.wait(20) == 0
    lines = out.read_text().splitlines()
    if as_json:
        shown = [json.loads(line) for line in lines]
        assert all(event.keys() == FIELDS for event in shown)
        assert shown[-1]["time"] == last
        moves = [
            (e["before"], e["after"], e["by"]) for e in shown if e["kind"] == "switch"
        ]
    else:
        assert lines[0].startswith("TIME ")
        cells = [line.split() for line in lines[1:]]
        moves = [(c[3], c[4], c[6]) for c in cells if c[2] == "switch"]
    assert len(moves) >= 2
    assert {move[2] for move in moves} == {"user"}
    assert all(one[1] == two[0] for one, two in pairwise(moves))
    assert other.read_text().splitlines()[1:] == []


def shown_group(tool: Tool, pair: Duo, code: int = 0) -> dict[str, Any]:
    """The one group of `status --json`."""
    done = tool.command(pair.host, "status", "--json", code=code)
    (group,) = json.loads(done.stdout)["groups"]
    assert isinstance(group, dict)
    return group


def test_status_says_what_the_controller_makes_of_it(pair: Duo, tool: Tool) -> None:
    """Policy, pin, since when it is degraded, a verdict of each slave and what is left
    of a delay; without a controller it says what it can, and warns."""
    asked = ("create", "fo0", "--primary=eth1", "--standby=eth2", "--policy=failure")
    tool.command(pair.host, *asked, "--up-delay=600000")
    with controller(tool, pair.host) as daemon:
        group = shown_group(tool, pair)
        assert (group["policy"], group["pinned"]) == ("failure", None)
        assert (group["carrier"], group["degraded_since"]) == ("follows", None)
        assert [slave["verdict"] for slave in group["slaves"]] == ["usable"] * 2
        start = time.time()
        pair.cut(1)
        eventually(lambda: daemon.group()["usable"] == 1, what="one usable")
        group = shown_group(tool, pair, code=1)
        assert group["active"] == "eth2"
        assert start <= group["degraded_since"] <= time.time()
        assert [s["verdict"] for s in group["slaves"]] == ["not ready", "usable"]
        text = tool.command(pair.host, "status", code=1).stdout
        moment = time.strftime("%Y-%m-%d", time.localtime(start))
        assert "fo0: degraded, active eth2\n" in text
        assert f" degraded since {moment} " in text
        pair.mend(1)
        eventually(
            lambda: shown_verdict(tool, pair) == "up delay",
            what="an up-delay",
        )
        slave = shown_group(tool, pair, code=1)["slaves"][0]
        assert 0 < slave["left_s"] <= 600
        text = tool.command(pair.host, "status", code=1).stdout
        assert re.search(r" eth1: up delay, \d+\.\d s left\n", text)
        tool.command(pair.host, "switch", "fo0", "eth1")
        group = shown_group(tool, pair)
        assert (group["pinned"], group["active"]) == ("eth1", "eth1")
        assert group["degraded_since"] is None
        daemon.kill()
    done = tool.command(pair.host, "status", "--json")
    body = json.loads(done.stdout)
    assert body["controller"] is False
    (group,) = body["groups"]
    assert (group["policy"], group["pinned"]) == ("failure", "eth1")
    assert [slave["verdict"] for slave in group["slaves"]] == [None] * 2
    assert tool.command(pair.host, "status").stderr == WARNING


def shown_verdict(tool: Tool, pair: Duo) -> str:
    """Of eth1."""
    done = tool.command(pair.host, "status", "--json", code=None)
    (group,) = json.loads(done.stdout)["groups"]
    return str(group["slaves"][0]["verdict"])


def test_status_that_is_watched(pair: Duo, tool: Tool, tmp_path: Path) -> None:
    """--watch shows it again and again, over the controller's end, and ends with
    Ctrl-C."""
    tool.create(pair.host, spec())
    out = tmp_path / "out"
    with (
        controller(tool, pair.host) as daemon,
        background(tool, pair, out, "status", "--watch") as watcher,
    ):
        head = "fo0: ok, active eth"
        eventually(lambda: out.read_text().count(head) >= 2, timeout=20, what="two")
        assert "active eth2" not in out.read_text()
        tool.command(pair.host, "switch", "fo0", "eth2")
        daemon.kill()
        eventually(lambda: "active eth2" in out.read_text(), timeout=20, what="news")
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(20) == 130
    assert "Traceback" not in out.read_text()


@pytest.mark.parametrize("served", [True, False], ids=["served", "alone"])
def test_switch_says_what_it_did(pair: Duo, tool: Tool, *, served: bool) -> None:
    """Where the traffic went, that it is pinned and what then happens if the slave
    dies; a slave that is not ready or not there is refused, and nothing changes."""
    tool.create(pair.host, spec())
    pair.address()
    eventually(lambda: "fe80:" in pair.host.ip("addr show fo0"), what="link-local")
    pinned = (
        "fo0: pinned to eth2: if that dies the best other slave carries until it is "
        "back; 'pyfailover switch fo0 auto' unpins\n"
    )
    moved = r"fo0: {} in \d+\.\d\d ms, generation \d+, 3 addresses announced\n"
    with controller(tool, pair.host) as daemon:
        if not served:
            daemon.stop()
        warning = "" if served else WARNING
        done = tool.command(pair.host, "switch", "fo0", "eth2")
        said = moved.format("eth1 -> eth2") + re.escape(pinned)
        assert re.fullmatch(said, done.stdout)
        assert done.stderr == warning
        done = tool.command(pair.host, "switch", "fo0", "eth2")
        assert done.stdout == "fo0: eth2 is active already\n" + pinned
        done = tool.command(pair.host, "switch", "fo0", "auto")
        unpinned = "fo0: not pinned, its policy decides\n"
        assert re.fullmatch(moved.format("eth2 -> eth1") + unpinned, done.stdout)
        assert tool.command(pair.host, "switch", "fo0", "auto").stdout == unpinned
        pair.cut(2)
        eventually(
            lambda: not tool.status(pair.host).slaves[1].ready, what="eth2 to be cut"
        )
        for asked, said in (
            (("fo0", "eth2"), "cannot switch 'fo0' to 'eth2': it has no carrier"),
            (("fo0", "eth3"), "cannot switch 'fo0' to 'eth3': it is not one of its"),
            (("fo9", "eth1"), "'fo9' is not attached"),
        ):
            done = tool.command(pair.host, "switch", *asked, code=1)
            assert done.stderr.startswith(f"Error: {said}")
            assert done.stdout == ""
        assert tool.status(pair.host).pinned is None
        assert tool.status(pair.host).active == "eth1"
