# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading the files again, by command or SIGHUP: all of what they say, or nothing."""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pyfailover import commands
from pyfailover.lab import Lab, Namespace, eventually
from tests.support.daemon import Daemon, controller
from tests.support.declared import declare, records, write
from tests.support.faults import Checkpoint, kill_at, labels_of
from tests.support.snapshot import Snapshot, assert_same, take
from tests.support.streams import damage, deliver, exchange
from tests.support.tool import Tool
from tests.support.topology import Duo, duo

BY = pytest.mark.parametrize("by", ["command", "SIGHUP"])
UNHARMED = [(0, 0)] * 4


@pytest.fixture
def quad(lab: Lab) -> Duo:
    """Four slaves: two groups of two."""
    return duo(lab, slaves=4)


def reload(tool: Tool, ns: Namespace, daemon: Daemon, by: str) -> str:
    """Have it done; what the command printed."""
    if by == "command":
        return tool.command(ns, "reload").stdout
    done = daemon.log().count(" reloaded ")
    daemon.signal(signal.SIGHUP)
    eventually(lambda: daemon.log().count(" reloaded ") > done, what="a reload")
    return ""


def visible(tool: Tool, ns: Namespace) -> Snapshot:
    """What there is but for our books, pins and maps."""
    return {
        key: value
        for key, value in take(tool, ns).items()
        if key.startswith(("link ", "addresses ", "routes ", "qdisc ", "tcx "))
    }


def second(tool: Tool, ns: Namespace) -> None:
    """The file of another group, over the other two slaves."""
    declare(tool, ns, "fo1", primary="eth3", standbys=["eth4"])


@BY
def test_files_come_and_go(quad: Duo, tool: Tool, by: str) -> None:
    """A new file's group is attached; that of a file that vanished is detached with
    everything restored, which the log tells; the other group is not disturbed."""
    declare(tool, quad.host)
    with controller(tool, quad.host) as daemon:
        quad.address()
        before = visible(tool, quad.host)
        with exchange(quad.host, quad.far) as streams:
            deliver(*streams)
            second(tool, quad.host)
            said = reload(tool, quad.host, daemon, by)
            if by == "command":
                assert said == "fo0: unchanged\nfo1: done\n"
            assert daemon.status()["groups"].keys() == {"fo0", "fo1"}
            assert tool.status(quad.host, "fo1").active == "eth3"
            deliver(*streams)
            (tool.roots.etc / "fo1.toml").unlink()
            said = reload(tool, quad.host, daemon, by)
            if by == "command":
                assert said == "fo0: unchanged\nfo1: detached\n"
            assert daemon.status()["groups"].keys() == {"fo0"}
            assert " warning detached master=fo1 " in daemon.log()
            deliver(*streams)
            assert damage(*streams) == UNHARMED
        assert_same(before, lambda: visible(tool, quad.host), where="detached")


def test_other_settings_under_traffic(pair: Duo, tool: Tool) -> None:
    """Policy, delays and counts are others from then on, and not one packet is lost."""
    declare(tool, pair.host)
    with controller(tool, pair.host) as daemon:
        pair.address()
        changes: list[dict[str, Any]] = [
            {"policy": "failure", "up_delay_ms": 97, "announce_count": 3},
            {"policy": "manual", "down_delay_ms": 9, "flap_changes": 0},
            {},
        ]
        with exchange(pair.host, pair.far) as streams:
            deliver(*streams)
            for more in changes:
                declare(tool, pair.host, **more)
                assert reload(tool, pair.host, daemon, "command") == "fo0: retuned\n"
                deliver(*streams)
                spec = records(tool, pair.host)["fo0"].spec
                assert {key: getattr(spec, key) for key in more} == more
                assert daemon.group()["policy"] == more.get("policy", "always")
            assert damage(*streams) == UNHARMED


def test_new_policy_is_followed_at_once(pair: Duo, tool: Tool) -> None:
    """Traffic that the old policy held on the standby is brought back by the new."""
    declare(tool, pair.host, policy="failure")
    with controller(tool, pair.host) as daemon:
        pair.cut(1)
        eventually(lambda: tool.status(pair.host).active == "eth2", what="failover")
        pair.mend(1)
        eventually(lambda: daemon.group()["usable"] == 2, what="eth1 back")
        assert tool.status(pair.host).active == "eth2"
        declare(tool, pair.host)
        reload(tool, pair.host, daemon, "command")
        assert tool.status(pair.host).active == "eth1"
        assert daemon.switches()[-1] == ("eth2", "eth1", "preferred")


def everything(tool: Tool, ns: Namespace) -> Snapshot:
    """What there is, books and all."""
    return take(tool, ns)


Spoil = Callable[[Tool, Namespace], str]  # returns what is named


def other_slaves(tool: Tool, ns: Namespace) -> str:
    declare(tool, ns, standbys=["eth2", "eth9"])
    return "'fo0' is attached already, with standbys eth2 instead of eth2, eth9"


def bad_key(tool: Tool, ns: Namespace) -> str:
    path = declare(tool, ns, "zz", primary="eth9", prinary="eth9")
    return f"{path}: unknown key 'prinary'"


def bad_file_of_another(tool: Tool, ns: Namespace) -> str:
    path = write(tool, "zz.toml", 'netns = "elsewhere"\nmaster = 1\n')
    return f"{path}: 'master' cannot be the number 1"


@pytest.mark.parametrize(
    ("spoil", "code"),
    [(other_slaves, 1), (bad_key, 2), (bad_file_of_another, 2)],
    ids=["slaves", "key", "elsewhere"],
)
def test_one_that_cannot_be_changes_nothing(
    quad: Duo, tool: Tool, spoil: Spoil, code: int
) -> None:
    """Among files that are new, changed and gone a single one with an error, or with
    what cannot be changed under traffic, has it all refused: it is named, by command
    and in the log, and nothing whatever is changed."""
    lab = quad.lab
    lab.veth(quad.host, "eth5", quad.far, "p5")
    declare(tool, quad.host)
    second(tool, quad.host)
    with controller(tool, quad.host) as daemon:
        before = everything(tool, quad.host)
        (tool.roots.etc / "fo1.toml").unlink()
        declare(tool, quad.host, policy="manual")
        declare(tool, quad.host, "fo2", primary="eth5", standbys=[])
        named = spoil(tool, quad.host)
        done = tool.command(quad.host, "reload", code=code)
        assert done.stdout == ""
        assert done.stderr.startswith(f"Error: {named}"), done.stderr
        assert_same(before, lambda: everything(tool, quad.host), where="command")
        daemon.signal(signal.SIGHUP)
        eventually(lambda: " reload failed " in daemon.log(), what="it in the log")
        assert named in daemon.log()
        assert_same(before, lambda: everything(tool, quad.host), where="SIGHUP")
        assert daemon.status()["groups"].keys() == {"fo0", "fo1"}


def test_group_that_no_file_declares_is_left_alone(quad: Duo, tool: Tool) -> None:
    """What was attached until reboot is no business of a reload's."""
    asked = ("create", "fo1", "--primary=eth3", "--standby=eth4", "--policy=manual")
    declare(tool, quad.host)
    with controller(tool, quad.host) as daemon:
        tool.command(quad.host, *asked)
        tool.command(quad.host, "switch", "fo1", "eth4")
        before = visible(tool, quad.host)
        kept = records(tool, quad.host)["fo1"]
        declare(tool, quad.host, policy="failure")
        assert reload(tool, quad.host, daemon, "command") == "fo0: retuned\n"
        assert_same(before, lambda: visible(tool, quad.host), where="reloaded")
        assert records(tool, quad.host)["fo1"] == kept
        assert tool.status(quad.host, "fo1").active == "eth4"


def test_group_becomes_lasting_when_a_file_declares_it(pair: Duo, tool: Tool) -> None:
    """Attached until reboot, and then declared just so: it goes with its file."""
    with controller(tool, pair.host) as daemon:
        tool.command(pair.host, "create", "fo0", "--primary=eth1", "--standby=eth2")
        path = declare(tool, pair.host)
        assert reload(tool, pair.host, daemon, "command") == "fo0: unchanged\n"
        path.unlink()
        assert reload(tool, pair.host, daemon, "command") == "fo0: detached\n"


def test_group_that_cannot_be_attached_keeps_no_other_waiting(
    quad: Duo, tool: Tool
) -> None:
    """The files are right but a slave is in use: the others are attached, the command
    fails and names it, and it is shown as trouble until it is there."""
    quad.host.ip("addr add 203.0.113.1/24 dev eth2")
    with controller(tool, quad.host) as daemon:
        declare(tool, quad.host)
        second(tool, quad.host)
        done = tool.command(quad.host, "reload", code=1)
        assert "fo1: done\n" in done.stdout
        assert "fo0: " in done.stderr
        assert "203.0.113.1" in done.stderr
        assert "203.0.113.1" in daemon.status()["troubles"]["fo0"]
        quad.host.ip("addr del 203.0.113.1/24 dev eth2")
        reload(tool, quad.host, daemon, "command")
        assert daemon.status()["groups"].keys() == {"fo0", "fo1"}
        assert "fo0" not in daemon.status()["troubles"]


def test_reload_without_a_controller(pair: Duo, tool: Tool) -> None:
    """There is nobody to do it, and that is said."""
    declare(tool, pair.host)
    done = tool.command(pair.host, "reload", code=1)
    assert done.stderr.startswith("Error: no controller runs here\nhint: ")


def test_reload_killed_at_any_step(quad: Duo, tool: Tool) -> None:
    """Killed at any step between two states of the files: who comes next ends in
    what they say, and what was gone with a file is restored."""
    tool = Tool(replace(tool.roots, netns=quad.host.name))
    host = quad.host

    def state_a() -> None:
        declare(tool, host, policy="always")
        (tool.roots.etc / "fo1.toml").unlink(missing_ok=True)

    def state_b() -> None:
        declare(tool, host, policy="failure")
        second(tool, host)

    def reload(checkpoint: Checkpoint = lambda _: None) -> None:
        with tool.locked(host, checkpoint) as locked:
            commands.reload(locked)

    state_a()
    reload()
    shown = {"a": visible(tool, host)}
    state_b()
    forth = labels_of(reload)
    shown["b"] = visible(tool, host)
    state_a()
    back = labels_of(reload)
    assert min(len(forth), len(back)) > 8
    assert_same(shown["a"], lambda: visible(tool, host), where="to and fro")
    for position in range(0, max(len(forth), len(back)), 3):
        for name, go, labels in (("b", state_b, forth), ("a", state_a, back)):
            go()
            if position < len(labels):
                kill_at(position, reload)
            reload()
            where = f"to {name}, killed at {position}"
            assert_alike(shown[name], visible(tool, host), where)
            policy = records(tool, host)["fo0"].spec.policy
            assert policy == ("always" if name == "a" else "failure")


def assert_alike(wanted: Snapshot, found: Snapshot, where: str) -> None:
    """The same interfaces with the same of ours; a master that was made anew has
    other numbers."""
    assert wanted.keys() == found.keys(), where
    for key in wanted:
        if "fo1" not in key and "routes" not in key:
            assert wanted[key] == found[key], f"{where}: {key}"


def test_controller_killed_while_it_reloads(quad: Duo, tool: Tool) -> None:
    """`kill -9` at some moment of a reload under traffic: the next `run` ends in what
    the files say, and the group that stays loses nothing."""
    moments = random.Random(97)
    declare(tool, quad.host)
    with controller(tool, quad.host) as daemon:
        quad.address()
        daemon.kill()
    with exchange(quad.host, quad.far, rate=1_000) as streams:
        for number in range(4):
            with controller(tool, quad.host) as daemon:
                declare(tool, quad.host, up_delay_ms=number)
                if number % 2:
                    (tool.roots.etc / "fo1.toml").unlink()
                else:
                    second(tool, quad.host)
                daemon.signal(signal.SIGHUP)
                time.sleep(moments.uniform(0, 0.15))  # the fault, not a wait
                daemon.kill()
            with controller(tool, quad.host) as daemon:
                wanted = {"fo0"} if number % 2 else {"fo0", "fo1"}
                assert daemon.status()["groups"].keys() == wanted, daemon.log()
                assert records(tool, quad.host)["fo0"].spec.up_delay_ms == number
                for name in wanted:
                    assert tool.status(quad.host, name).health == "ok"
                deliver(*streams, more=23)
        assert damage(*streams) == UNHARMED
