# SPDX-License-Identifier: GPL-2.0-or-later
"""Traffic through failovers and fail-backs of the real controller (C1-C4, C7, C18,
C19): what a dead slave costs, and that nothing else costs anything."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from pyfailover.history import Kind
from pyfailover.lab import Lab
from pyfailover.model import Policy, Side, TcMode
from pyfailover.traffic import UdpStream, account
from tests.support.daemon import controller, under_traffic
from tests.support.streams import damage, deliver, exchange, outcomes
from tests.support.tool import WAYS, Tool, spec
from tests.support.topology import FAR_V4, FAR_V6, HOST_V4, HOST_V6, Duo, duo

RATE = 2_000  # of one stream
# A far end that is told of a carrier takes a moment to forward (see Duo.settle).
UP_DELAY_MS = 200
# Of one stream, for a slave that died: a quarter of a second of it. Who stays on
# the dead slave loses all of what is waited for after it.
MAY_LOSE = RATE // 4
UNHARMED = [(0, 0)] * 4


@dataclass(frozen=True)
class Trigger:
    """A way for the active slave to be lost."""

    reason: str
    lose: Callable[[Duo], object]


def move_away(pair: Duo) -> None:
    """Move eth1 to another namespace."""
    other = pair.lab.namespace("other")
    pair.host.ip(f"link set eth1 netns {other.name}")


TRIGGERS = [
    Trigger("admin_down", lambda pair: pair.host.ip("link set eth1 down")),
    Trigger("carrier_lost", lambda pair: pair.cut(1)),
    Trigger("removed", lambda pair: pair.unplug(1)),
    Trigger("removed", move_away),
]


@WAYS
def test_primary_is_preferred_at_start(
    pair: Duo, tool: Tool, tc: TcMode, side: Side
) -> None:
    """A controller that finds the standby active and the primary good moves to the
    primary, and that costs nothing (C1)."""
    pair.cut(1)
    tool.create(pair.host, spec(tc=tc, side=side))
    pair.address()
    pair.mend(1)
    pair.settle()
    with exchange(pair.host, pair.far) as streams:
        deliver(*streams)
        assert tool.status(pair.host).active == "eth2"
        with controller(tool, pair.host) as daemon:
            deliver(*streams, more=999)
            assert tool.status(pair.host).active == "eth1"
            assert daemon.switches() == [("eth2", "eth1", "preferred")]
        assert damage(*streams) == UNHARMED


@WAYS
@pytest.mark.parametrize(
    "trigger", TRIGGERS, ids=["admin-down", "carrier", "deleted", "moved"]
)
def test_standby_takes_over(
    pair: Duo, tool: Tool, tc: TcMode, side: Side, trigger: Trigger
) -> None:
    """However the active slave is lost, the standby carries, in both directions and
    families, and the event says why (C2)."""
    with under_traffic(pair, tool, spec(tc=tc, side=side), rate=RATE) as run:
        run.flow()
        trigger.lose(pair)
        run.carries("eth2")
        run.flow(more=2 * MAY_LOSE)
        for lost, duplicated in damage(*run.streams):
            assert lost < MAY_LOSE
            assert duplicated == 0
        assert run.daemon.switches() == [("eth1", "eth2", trigger.reason)]
        (event,) = run.daemon.events(Kind.DEGRADED)
        assert event.detail == "1 of 2 usable"


def test_fail_back_always(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """By policy `always` the traffic returns with the primary, and loses nothing by
    that (C3)."""
    with under_traffic(pair, tool, spec(tc=tc, up_delay_ms=UP_DELAY_MS)) as run:
        pair.cut(1)
        run.carries("eth2")
        start_ns = time.monotonic_ns()
        pair.mend(1)
        run.carries("eth1")
        run.flow(more=999)
        for stream in run.streams:
            outcome = account(*stream.stop(), start_ns)
            assert (outcome.lost, outcome.duplicated) == (0, 0)
        assert run.daemon.switches()[1:] == [("eth2", "eth1", "preferred")]


@pytest.mark.parametrize("policy", [Policy.BETTER, Policy.FAILURE, Policy.MANUAL])
def test_no_fail_back(lab: Lab, tool: Tool, policy: Policy) -> None:
    """By the other policies a primary that is back, and no faster, is left idle until
    the standby dies (C3); by `manual` even then another standby is preferred."""
    trio = duo(lab, slaves=3)
    wanted = spec(standbys=("eth2", "eth3"), policy=policy)
    with under_traffic(trio, tool, wanted) as run:
        trio.cut(1)
        run.carries("eth2")
        trio.mend(1)
        run.verdict(0, "held" if policy is Policy.MANUAL else "usable")
        run.flow(more=999)
        assert tool.status(trio.host).active == "eth2"
        trio.cut(2)
        run.carries("eth3" if policy is Policy.MANUAL else "eth1")
        trio.cut(3)
        run.carries("eth1")


@WAYS
def test_all_slaves_down(pair: Duo, tool: Tool, tc: TcMode, side: Side) -> None:
    """With nobody left frames are dropped and counted, and the first link that is
    back carries at once, whatever the up-delay (C4)."""
    wanted = spec(tc=tc, side=side, up_delay_ms=60_000)
    with under_traffic(pair, tool, wanted) as run:
        for number in (1, 2):
            pair.cut(number)
        run.carries(None)

        def dropped() -> int:
            return tool.status(pair.host).counters["tx_drop_no_active"]

        run.wait(lambda: dropped() > 0, "drops that are counted")
        assert "fo0: down" in tool.command(pair.host, "status", code=2).stdout
        pair.mend(2)
        run.carries("eth2")
        counted = dropped()
        run.flow()
        assert dropped() == counted
        assert run.daemon.switches() == [
            ("eth1", "eth2", "carrier_lost"),
            ("eth2", None, "carrier_lost"),
            (None, "eth2", "recovered"),
        ]


@WAYS
def test_standby_receives_while_the_primary_has_no_carrier(
    pair: Duo, tool: Tool, tc: TcMode, side: Side
) -> None:
    """Frames come in over the standby while the primary is plugged but dead, also to
    a host that sends nothing itself (C7)."""
    tool.create(pair.host, spec(tc=tc, side=side))
    pair.address()
    pair.settle()
    ends = [(FAR_V4, HOST_V4), (FAR_V6, HOST_V6)]
    one, two = (
        UdpStream(pair.far, pair.host, *end, port=port, rate=RATE)
        for port, end in enumerate(ends, 9001)
    )
    with controller(tool, pair.host), one, two:
        deliver(one, two)
        pair.cut(1)
        deliver(one, two, more=3 * MAY_LOSE)
        for lost, duplicated in damage(one, two):
            assert lost < MAY_LOSE
            assert duplicated == 0
    primary, standby = tool.status(pair.host).slaves
    assert primary.link == "no carrier"
    assert standby.counters["rx_packets"] > 4 * MAY_LOSE


def test_ten_failovers(
    pair: Duo,
    tool: Tool,
    tc: TcMode,
    record_property: Callable[[str, object], None],
) -> None:
    """Ten times there and back: each cut costs a bounded number of packets, and the
    longest gap is in the report (C18)."""
    wanted = spec(tc=tc, up_delay_ms=UP_DELAY_MS // 2, flap_changes=0)
    with under_traffic(pair, tool, wanted, rate=RATE) as run:
        for _ in range(10):
            pair.cut(1)
            run.carries("eth2")
            pair.mend(1)
            run.carries("eth1")
        found = outcomes(*run.streams)
        gap_s = max(outcome.gap_s for outcome in found)
        record_property("longest gap of ten failovers, ms", round(gap_s * 1e3, 1))
        record_property("lost by ten failovers", [outcome.lost for outcome in found])
        for outcome in found:
            assert outcome.lost < 10 * MAY_LOSE
            assert outcome.duplicated == 0
            assert outcome.gap_s < 1.0
        there, back = ("eth1", "eth2", "carrier_lost"), ("eth2", "eth1", "preferred")
        assert run.daemon.switches() == [there, back] * 10


@WAYS
def test_pin(pair: Duo, tool: Tool, tc: TcMode, side: Side) -> None:
    """`switch` holds the traffic on a slave: when that dies the other one carries,
    once it is back the pin holds again, over a restart of the controller too, until
    `auto`; nothing but the death costs a packet (C19)."""
    wanted = spec(tc=tc, side=side, up_delay_ms=UP_DELAY_MS)
    with under_traffic(pair, tool, wanted) as run:
        said = run.command("switch", "fo0", "eth2")
        assert "fo0: eth1 -> eth2" in said
        assert "if that dies the best other slave carries until it is back" in said
        run.carries("eth2")
        pair.cut(2)
        run.carries("eth1")
        assert "pinned to eth2" in tool.command(pair.host, "status", code=1).stdout
        start_ns = time.monotonic_ns()
        pair.mend(2)
        run.carries("eth2")
        assert run.daemon.stop() == 0
        with controller(tool, pair.host) as second:
            assert second.group()["pinned"] == "eth2"
            run.flow()
            assert tool.status(pair.host).active == "eth2"
            assert "policy decides" in run.command("switch", "fo0", "auto")
            run.carries("eth1")
            run.flow(more=999)
            assert second.switches() == [
                ("eth1", "eth2", "operator"),
                ("eth2", "eth1", "carrier_lost"),
                ("eth1", "eth2", "operator"),
                ("eth2", "eth1", "operator"),
            ]
            (*_, last) = second.events(Kind.PIN)
            assert last.after is None
        for stream in run.streams:
            outcome = account(*stream.stop(), start_ns)
            assert (outcome.lost, outcome.duplicated) == (0, 0)
