# SPDX-License-Identifier: GPL-2.0-or-later
"""Slaves that come and go while a controller runs (S0, S11): what carries the
traffic meanwhile loses nothing."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pyfailover.history import Kind
from pyfailover.lab import Lab, Namespace
from pyfailover.model import GroupSpec, MacPolicy, TcMode
from pyfailover.report import Health
from tests.support.daemon import RARELY, Daemon, Run, controller, under_traffic
from tests.support.streams import damage, exchange
from tests.support.tool import Tool, spec
from tests.support.topology import Duo, duo

UNHARMED = [(0, 0)] * 4
OTHER_MAC = "02:00:5e:10:00:99"
# A far end that is told of a carrier takes a moment to forward (see Duo.settle).
UP_DELAY_MS = 200


@contextmanager
def on_the_standby(
    pair: Duo, tool: Tool, wanted: GroupSpec, *, reconcile: float = RARELY
) -> Iterator[Run]:
    """Traffic over eth2, which loses nothing whatever happens to the primary."""
    with under_traffic(pair, tool, wanted, reconcile=reconcile) as run:
        run.command("switch", "fo0", "eth2")
        run.carries("eth2")
        yield run
        run.flow()
        assert damage(*run.streams) == UNHARMED


def left(run: Run, *, times: int = 1) -> None:
    """Wait until the group knows that its primary is gone."""
    run.wait(lambda: len(run.daemon.events(Kind.LEAVE)) == times, "a slave that left")


def joined(run: Run, name: str, *, times: int = 1) -> None:
    """Wait until a primary joined for the nth time, and see that it is good."""
    run.wait(lambda: len(run.daemon.events(Kind.JOIN)) == times, "a slave that joined")
    assert run.daemon.events(Kind.JOIN)[-1].after == name
    run.wait(
        lambda: run.tool.status(run.pair.host).health is Health.OK, "a whole group"
    )
    assert run.tool.status(run.pair.host).slaves[0].name == name


def back_to(run: Run, name: str) -> None:
    """Give the traffic back to the primary; it carries."""
    run.command("switch", "fo0", "auto")
    run.carries(name)
    run.flow(more=999)


def link(ns: Namespace, name: str) -> dict[str, object]:
    """An interface as `ip` shows it."""
    found: list[dict[str, object]] = json.loads(
        ns.ip("-d", "-j", "link", "show", "dev", name)
    )
    return found[0]


@contextmanager
def stopped(daemon: Daemon) -> Iterator[None]:
    """Have the controller see nothing before all is done."""
    daemon.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        daemon.signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("primary", "mac", "tc"),
    [
        ("name=eth1*", MacPolicy.MATCH, TcMode.TCX),
        ("driver=veth,name=eth1*", MacPolicy.MATCH, TcMode.CLSACT),
        (f"mac={OTHER_MAC}", MacPolicy.CLONE, TcMode.TCX),
        (f"mac={OTHER_MAC}", MacPolicy.CLONE, TcMode.CLSACT),
    ],
    ids=["name", "driver", "mac-tcx", "mac-clsact"],
)
def test_primary_comes_back_as_another_interface(
    pair: Duo, tool: Tool, tc: TcMode, primary: str, mac: MacPolicy
) -> None:
    """Deleted and made again under a new name and ifindex, the interface that fits
    the rule joins, is set up as the group's, and carries."""
    pair.host.ip(f"link set eth1 address {OTHER_MAC}")
    if mac is MacPolicy.MATCH:
        pair.host.ip(f"link set eth1 address {pair.host.mac('eth2')}")
    born = pair.host.mac("eth1")
    wanted = spec(primary=primary, mac=mac, tc=tc, up_delay_ms=UP_DELAY_MS)
    with on_the_standby(pair, tool, wanted) as run:
        old = pair.host.ifindex("eth1")
        pair.unplug(1)
        left(run)
        pair.plug(1, name="eth1new", mac=born, mtu=1400)
        joined(run, "eth1new")
        assert pair.host.ifindex("eth1new") != old
        found = link(pair.host, "eth1new")
        assert found["address"] == pair.host.mac("fo0")
        assert (found["mtu"], found["inet6_addr_gen_mode"]) == (1500, "none")
        back_to(run, "eth1new")
    assert tool.status(pair.host).slaves[0].counters["tx_packets"] > 0


def test_primary_moves_to_another_namespace_and_back(
    pair: Duo, tool: Tool, tc: TcMode
) -> None:
    """It leaves the group with the namespace, and joins and carries once it is back,
    with the ifindex that it had."""
    other = pair.lab.namespace("other")
    with on_the_standby(pair, tool, spec(tc=tc, up_delay_ms=UP_DELAY_MS)) as run:
        old = pair.host.ifindex("eth1")
        for times in (1, 2):
            pair.host.ip(f"link set eth1 netns {other.name}")
            left(run, times=times)
            other.ip(f"link set eth1 netns {pair.host.name}")
            joined(run, "eth1", times=times)
            assert pair.host.ifindex("eth1") == old
        back_to(run, "eth1")


def test_slave_renamed_while_it_carries(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """A new name costs not one packet, and is the one that is shown and taken."""
    with under_traffic(pair, tool, spec(tc=tc)) as run:
        run.flow()
        pair.host.ip("link set eth1 name wan0")
        run.wait(lambda: " renamed " in run.daemon.log(), "a rename in the log")
        run.carries("wan0")
        run.command("switch", "fo0", "eth2")
        run.carries("eth2")
        run.command("switch", "fo0", "wan0")
        run.carries("wan0")
        assert damage(*run.streams) == UNHARMED
        assert run.daemon.switches() == [
            ("wan0", "eth2", "operator"),
            ("eth2", "wan0", "operator"),
        ]


def test_admin_down_is_left_alone_until_a_rename(pair: Duo, tool: Tool) -> None:
    """A slave that the operator set down stays down, however often everything is
    compared; a rename sets it up once more (S0, net_failover_slave_name_change)."""
    with on_the_standby(pair, tool, spec(), reconcile=0.2) as run:
        pair.host.ip("link set eth1 down")
        run.verdict(0, "not ready")
        start = run.daemon.status()["counts"]["resyncs"]
        run.wait(
            lambda: run.daemon.status()["counts"]["resyncs"] >= start + 2, "resyncs"
        )
        assert "UP" not in str(link(pair.host, "eth1")["flags"])
        pair.host.ip("link set eth1 name wan0")
        run.verdict(0, "usable")
        assert run.daemon.events(Kind.JOIN) == []


def test_group_waits_for_ever(pair: Duo, tool: Tool) -> None:
    """Without its primary a group is degraded, and says since when, over a restart of
    the controller too; events tell of the end of it."""
    with on_the_standby(pair, tool, spec()) as run:
        pair.unplug(1)
        left(run)
        since = run.daemon.group()["degraded_since"]
        assert since is not None
        status = tool.command(pair.host, "status", code=1).stdout
        assert "fo0: degraded, active eth2\n" in status
        assert "\n degraded since " in status
        assert run.daemon.stop() == 0
        with controller(tool, pair.host, reconcile=0.1) as second:
            run.wait(lambda: second.status()["counts"]["resyncs"] > 5, "resyncs")
            assert second.group()["degraded_since"] == pytest.approx(since, abs=0.1)
            pair.plug(1)
            run.wait(lambda: len(second.events(Kind.JOIN)) == 1, "a slave that joined")
            run.wait(lambda: len(second.events(Kind.WHOLE)) == 1, "a whole group")
            assert second.group()["degraded_since"] is None
            assert "since" not in tool.command(pair.host, "status").stdout
            kinds = [e.kind for e in second.events() if e.kind not in ("switch", "pin")]
            assert sorted(kinds) == [Kind.DEGRADED, Kind.JOIN, Kind.LEAVE, Kind.WHOLE]


def test_two_interfaces_that_fit(pair: Duo, tool: Tool) -> None:
    """Neither joins, the trouble lists both, and the group stays on its standby; once
    one of them is gone the other joins."""
    wanted = spec(primary="name=eth1*", up_delay_ms=UP_DELAY_MS)
    with on_the_standby(pair, tool, wanted, reconcile=0.5) as run:
        pair.unplug(1)
        left(run)
        with stopped(run.daemon):
            pair.plug(1, name="eth1a")
            pair.plug(3, name="eth1b")
        run.wait(lambda: bool(run.daemon.status()["troubles"]), "trouble")
        trouble = run.daemon.status()["troubles"]["fo0"]
        assert trouble.startswith("cannot tell which interface is 'name=eth1*': 'eth1a")
        assert "'eth1b' (" in trouble
        status = tool.command(pair.host, "status", code=1).stdout
        assert trouble in " ".join(status.split())
        run.flow()
        assert run.daemon.events(Kind.JOIN) == []
        pair.host.ip("link del eth1a")
        joined(run, "eth1b")
        assert run.daemon.status()["troubles"] == {}
        back_to(run, "eth1b")


def test_candidate_with_an_address(pair: Duo, tool: Tool) -> None:
    """An interface that somebody uses is refused, by name and with what is on it, and
    joins once that is gone."""
    wanted = spec(up_delay_ms=UP_DELAY_MS)
    with on_the_standby(pair, tool, wanted, reconcile=0.5) as run:
        pair.unplug(1)
        left(run)
        pair.plug(1, name="new0")
        pair.lab.address(pair.host, "new0", "198.51.100.1/24")
        pair.host.ip("link set new0 name eth1")
        run.wait(lambda: bool(run.daemon.status()["troubles"]), "trouble")
        assert run.daemon.status()["troubles"]["fo0"] == (
            "cannot use 'eth1' as a slave: it has the address 198.51.100.1/24"
        )
        pair.host.ip("addr del 198.51.100.1/24 dev eth1")
        joined(run, "eth1")
        assert run.daemon.status()["troubles"] == {}
        back_to(run, "eth1")


def test_primary_that_never_was_there(lab: Lab, tool: Tool) -> None:
    """A group is made without it, by the controller, and takes it in when it comes."""
    pair = duo(lab)
    pair.unplug(1)
    with controller(tool, pair.host, reconcile=RARELY) as daemon:
        said = tool.command(
            pair.host,
            "create",
            "fo0",
            "--primary=name=eth1*",
            "--standby=eth2",
            "--allow-missing",
            f"--up-delay={UP_DELAY_MS}",
        )
        assert "no controller" not in said.stderr
        pair.address()
        pair.settle()
        with exchange(pair.host, pair.far) as streams:
            run = Run(pair, tool, daemon, streams)
            run.carries("eth2")
            assert daemon.group()["degraded_since"] is not None
            pair.plug(1, name="eth1first")
            joined(run, "eth1first")
            run.carries("eth1first")
            assert damage(*streams) == UNHARMED
        assert daemon.switches() == [("eth2", "eth1first", "preferred")]
