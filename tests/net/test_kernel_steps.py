# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel leaves a dead link by itself, controller or not; it never comes back by
itself while another link is good."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from pyfailover.history import Kind
from pyfailover.lab import Namespace, Switches, eventually
from pyfailover.model import GroupSpec, Policy, Side, TcMode
from pyfailover.report import Health
from pyfailover.traffic import UdpStream, account
from tests.support.daemon import RARELY, controller, under_traffic
from tests.support.streams import damage, deliver
from tests.support.tool import WAYS, Tool, spec
from tests.support.topology import FAR_V4, HOST_V4, MAC, Duo

_RATE = 4_000
# What a veth itself drops as its other end closes, for some microseconds in which
# this end still has its carrier.
_OF_THE_LINK = 1
# What a device that flaps, is deleted or moved has taken, and not delivered yet.
_IN_FLIGHT = 20


@pytest.fixture
def out(pair: Duo) -> Iterator[UdpStream]:
    """A stream that the host sends, not started yet."""
    stream = UdpStream(pair.host, pair.far, HOST_V4, FAR_V4, rate=_RATE)
    yield stream
    stream.kill()


def made(pair: Duo, tool: Tool, wanted: GroupSpec) -> None:
    """A group with addresses and without a controller."""
    tool.create(pair.host, wanted)
    pair.address()
    pair.settle()


def sent_by(ns: Namespace, name: str) -> int:
    """Packets that an interface has sent."""
    (link,) = json.loads(ns.ip(f"-s -j link show {name}"))
    return int(link["stats64"]["tx"]["packets"])


@WAYS
def test_not_one_packet(
    pair: Duo, tool: Tool, tc: TcMode, side: Side, out: UdpStream
) -> None:
    """Without a controller a carrier that is lost costs no packet that the host sends;
    the link that is back is left idle."""
    made(pair, tool, spec(tc=tc, side=side))
    with out:
        deliver(out)
        pair.cut(1)
        deliver(out)
        assert tool.status(pair.host).active == "eth2"
        pair.mend(1)
        deliver(out)
        ((lost, duplicated),) = damage(out)
        assert lost <= _OF_THE_LINK
        assert duplicated == 0
    status = tool.status(pair.host)
    assert (status.active, status.decided_by) == ("eth2", "kernel")
    assert [slave.counters["left"] for slave in status.slaves] == [1, 0]
    assert status.health is Health.OK


@WAYS
def test_host_that_only_receives(pair: Duo, tool: Tool, tc: TcMode, side: Side) -> None:
    """A frame on the standby moves the traffic there, and is taken."""
    made(pair, tool, spec(tc=tc, side=side))
    with UdpStream(pair.far, pair.host, FAR_V4, HOST_V4, rate=_RATE) as stream:
        deliver(stream)
        pair.cut(1)
        deliver(stream)
        assert tool.status(pair.host).active == "eth2"
        moved_ns = time.monotonic_ns()
        deliver(stream)
        outcome = account(*stream.stop(), moved_ns)
        assert (outcome.lost, outcome.duplicated) == (0, 0)


def test_controller_tells_of_a_step(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """The log, the events and the status say that the kernel decided, and why."""
    with under_traffic(pair, tool, spec(tc=tc, policy=Policy.FAILURE)) as run:
        run.flow()
        before = time.time()
        run.daemon.signal(signal.SIGSTOP)  # else it might be faster than a packet
        pair.cut(1)
        run.carries("eth2")
        run.daemon.signal(signal.SIGCONT)
        run.wait(lambda: bool(run.daemon.switches()), "the event")
        (event,) = run.daemon.events(Kind.SWITCH)
        assert (event.before, event.after) == ("eth1", "eth2")
        assert (event.reason, event.by) == ("carrier_lost", "kernel")
        assert before < event.time < time.time()
        assert "by=kernel" in run.daemon.log()
        assert run.daemon.group()["decided_by"] == "kernel"
        shown = tool.command(pair.host, "status", code=1).stdout  # degraded
        assert "by kernel" in shown
        assert " kernel " in run.command("events")
        for lost, duplicated in damage(run.streams[0], run.streams[2]):  # sent
            assert lost <= _OF_THE_LINK
            assert duplicated == 0


def test_steps_while_no_controller_ran(pair: Duo, tool: Tool, out: UdpStream) -> None:
    """The next controller tells of them, with the time at which they happened, once."""
    made(pair, tool, spec())
    with out:
        deliver(out)
        start = time.time()
        pair.cut(1)
        deliver(out)
        pair.mend(1)
        end = time.time()
        pair.cut(2)  # back to one that was left: there is no other
        deliver(out)
        assert tool.status(pair.host).active == "eth1"
    for _ in range(2):
        with controller(tool, pair.host, reconcile=RARELY) as daemon:
            eventually(lambda: len(daemon.switches()) >= 2, what="the steps")
            daemon.stop()
            events = daemon.events(Kind.SWITCH)
    assert [(e.before, e.after, e.by) for e in events] == [
        ("eth1", "eth2", "kernel"),
        ("eth2", "eth1", "kernel"),
    ]
    assert start < events[0].time < end < events[1].time


def flap(pair: Duo, out: UdpStream) -> None:
    """Take eth1's carrier 1,000 times."""
    with closing(Switches(pair.far)) as far, out:
        deliver(out)
        for _ in range(1_000):
            far.set("p1", False)
            far.set("p1", True)
        deliver(out)
        ((lost, duplicated),) = damage(out)
        assert lost < _IN_FLIGHT
        assert duplicated == 0


def test_thousand_flaps(pair: Duo, tool: Tool, out: UdpStream) -> None:
    """A primary that flaps 1,000 times is left once."""
    made(pair, tool, spec())
    flap(pair, out)
    status = tool.status(pair.host)
    assert status.active == "eth2"
    assert [slave.counters["left"] for slave in status.slaves] == [1, 0]


def test_thousand_flaps_under_a_controller(
    pair: Duo, tool: Tool, out: UdpStream
) -> None:
    """The same, be it the kernel or the controller who leaves it; with policy
    `failure` nothing brings the traffic back."""
    made(pair, tool, spec(policy=Policy.FAILURE))
    with controller(tool, pair.host, reconcile=RARELY) as daemon:
        flap(pair, out)
        assert tool.status(pair.host).active == "eth2"
        assert daemon.switches() == [("eth1", "eth2", "carrier_lost")]


@pytest.mark.parametrize("first", [1, 2])
def test_all_dead(pair: Duo, tool: Tool, out: UdpStream, first: int) -> None:
    """With every link dead packets are dropped and counted; the first link that
    returns carries, though no controller has approved it."""
    made(pair, tool, spec())

    def dropped() -> int:
        return tool.status(pair.host).counters["tx_drop_no_active"]

    with out:
        deliver(out)
        pair.cut(1)
        deliver(out)
        pair.cut(2)
        eventually(lambda: dropped() > 99, what="drops")
        assert tool.status(pair.host).health is Health.DOWN
        pair.mend(first)
        deliver(out)
    assert tool.status(pair.host).active == f"eth{first}"
    assert dropped() > 99


def test_moved_away(pair: Duo, tool: Tool, out: UdpStream) -> None:
    """A slave that is moved to another namespace and set up there gets nothing more,
    though its device is where it was, up and with carrier; nor does the traffic
    stop."""
    made(pair, tool, spec())
    other = pair.lab.namespace("other")
    with out:
        deliver(out)
        pair.host.ip(f"link set eth1 netns {other.name}")
        other.ip("link set eth1 up")
        pair.settle()
        moved = sent_by(other, "eth1")
        deliver(out, more=999)
        ((lost, duplicated),) = damage(out)
        assert lost < _IN_FLIGHT
        assert duplicated == 0
    assert sent_by(other, "eth1") < moved + 99  # it may talk for itself
    assert tool.status(pair.host).active == "eth2"


def test_another_with_its_ifindex(pair: Duo, tool: Tool, out: UdpStream) -> None:
    """An interface that has the ifindex of a deleted slave gets nothing of what is
    sent."""
    made(pair, tool, spec())
    index = pair.host.ifindex("eth1")
    with out:
        deliver(out)
        pair.unplug(1)
        pair.lab.veth(pair.host, "wrong", pair.far, "p9", mac_a=MAC, index_a=index)
        assert pair.host.ifindex("wrong") == index
        deliver(out, more=999)
        ((lost, duplicated),) = damage(out)
        assert lost < _IN_FLIGHT
        assert duplicated == 0
    assert sent_by(pair.host, "wrong") < 99
    assert tool.status(pair.host).counters["tx_drop_no_active"] == 0


def test_down_delay_without_a_controller(pair: Duo, tool: Tool, out: UdpStream) -> None:
    """A link that is back within the down-delay is not left; one that is not, is."""
    made(pair, tool, spec(down_delay_ms=1_000))
    with out, closing(Switches(pair.far)) as far:
        deliver(out)
        far.set("p1", False)
        far.set("p1", True)
        deliver(out)
        assert tool.status(pair.host).active == "eth1"
        far.set("p1", False)
        deliver(out)
        assert tool.status(pair.host).active == "eth2"


def test_plain_programs_stay(pair: Duo, tool: Tool) -> None:
    """Without the carrier test the programs leave no link that is only cut; what runs
    is said."""
    tool.create(pair.host, spec(), carrier_test=False)
    pair.address()
    pair.cut(1)
    pair.host.run("ping", "-c1", "-W1", FAR_V4, check=False)
    status = tool.status(pair.host)
    assert (status.active, status.carrier_test) == ("eth1", False)
    assert status.health is Health.DOWN
    assert "carrier test off" in tool.command(pair.host, "status", code=2).stdout
