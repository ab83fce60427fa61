# SPDX-License-Identifier: GPL-2.0-or-later
"""What netlink tells late, or not at all: the poll and the dump find it (C12, C15).

A veth whose two ends have the same ifindex is to the kernel like an ordinary NIC:
its loss of carrier is told at most once a second (linkwatch_urgent_event).
"""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from pyfailover.history import Kind
from pyfailover.lab import Lab, Namespace, eventually
from pyfailover.model import Link, TcMode
from pyfailover.netlink.events import Events, LinkSeen
from tests.support.daemon import under_traffic
from tests.support.streams import damage
from tests.support.tool import Tool, spec
from tests.support.topology import Duo, duo

LATE_S = 0.1
RATE = 2_000  # of one stream
FLOOD = 8  # thousands of link events


@dataclass
class Witness:
    """What netlink alone tells of the links of a namespace, and when."""

    seen: list[tuple[float, Link]] = field(default_factory=list)  # time.time()

    def loss(self, name: str, since: float) -> float | None:
        """When an interface was said to have lost its carrier."""
        for moment, link in self.seen:
            if moment >= since and link.name == name and not link.carrier:
                return moment
        return None

    def wait_for_loss(self, name: str, since: float) -> float:
        """The same, if it takes a while."""
        what = f"a message on the carrier of {name}"
        eventually(lambda: self.loss(name, since), what=what)
        found = self.loss(name, since)
        assert found is not None
        return found


@contextmanager
def witness(ns: Namespace) -> Iterator[Witness]:
    """Listen in a thread of its own."""
    made = Witness()
    ready = threading.Event()
    ends: list[Callable[[], object]] = []

    async def listen() -> None:
        with ns.enter():
            events = Events()
            await events.__aenter__()
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        ends.append(lambda: loop.call_soon_threadsafe(task.cancel))
        ready.set()
        try:
            async for event, _ in events.stream():
                if isinstance(event, LinkSeen):
                    made.seen.append((time.time(), event.link))
        except asyncio.CancelledError:
            await events.__aexit__()

    thread = threading.Thread(target=lambda: asyncio.run(listen()))
    thread.start()
    try:
        assert ready.wait(5), "nobody listens"
        yield made
    finally:
        ends[0]()
        thread.join()


@pytest.fixture
def late(lab: Lab) -> Duo:
    """Slaves eth1 and eth2, and eth3 for link events, with equal ifindexes at both
    ends of each."""
    pair = duo(lab, slaves=0)
    for number in (1, 2, 3):
        pair.plug(number, index=100 + number, far_index=100 + number)
        pair.host.ip(f"link set eth{number} up")
    return pair


def cut_after_another(pair: Duo, told: Witness) -> float:
    """Cut eth1 right after the kernel told of the loss of eth3; when that was."""
    pair.settle()
    start = time.time()
    pair.cut(3)
    told.wait_for_loss("eth3", start)
    start = time.time()
    pair.cut(1)
    return start


@pytest.mark.parametrize(
    ("tc", "elsewhere"),
    [(TcMode.TCX, False), (TcMode.CLSACT, True)],
    ids=["after an event here", "after one elsewhere"],
)
def test_poll_is_faster_than_netlink(
    late: Duo, tool: Tool, tc: TcMode, *, elsewhere: bool
) -> None:
    """A loss that follows another one, in whatever namespace, is told of by netlink
    after a tenth of a second at least; the controller, which asks the links
    themselves, has moved the traffic in less than half of that time, and less than
    half of the packets that are sent until then are lost."""
    other = late.lab.namespace("other") if elsewhere else late.host
    if elsewhere:
        late.host.ip(f"link set eth3 netns {other.name}")
        other.ip("link set eth3 up")
    with witness(late.host) as told, witness(other) as told_there:
        start = cut_after_another(late, told_there)
        lateness = told.wait_for_loss("eth1", start) - start
        assert lateness > LATE_S, "netlink is in time here: this shows nothing"
        for number in (1, 3):
            late.mend(number)
        with under_traffic(late, tool, spec(tc=tc), rate=RATE) as run:
            run.carries("eth1")
            start = cut_after_another(late, told_there)
            run.carries("eth2")
            (event,) = run.daemon.events(Kind.SWITCH)
            assert (event.before, event.reason) == ("eth1", "carrier_lost")
            assert event.time - start < lateness / 2
            for lost, duplicated in damage(*run.streams):
                assert lost < RATE * lateness / 2
                assert duplicated == 0


def test_events_that_were_lost(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """A controller that slept through more link events than its socket holds is told
    so by the kernel, reads everything anew, and has the right slave carry; a slave
    that was made again meanwhile joins."""
    pair.host.batch(*(f"link add name br{n} type bridge" for n in range(4)))
    with under_traffic(pair, tool, spec(tc=tc)) as run:
        run.daemon.signal(signal.SIGSTOP)
        for _ in range(FLOOD):
            pair.host.batch(
                *(f"link set br{n % 4} mtu {1000 + n}" for n in range(1000))
            )
        pair.unplug(1)
        pair.plug(1)
        pair.cut(2)
        run.daemon.signal(signal.SIGCONT)
        run.carries("eth1")
        counts = run.daemon.status()["counts"]
        assert counts["overruns"] > 0
        pair.cut(1)
        pair.mend(2)
        run.carries("eth2")
