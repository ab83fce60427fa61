# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets lost, and the longest gap, when the active slave's far end is set down.

Numbered UDP at 10,000 packets a second out of the master (`tx`), into it (`rx`),
or both. The far end is a bridge with both ports; the slaves' links have equal
ifindexes at both ends, so that the kernel tells of their carrier as it does for
a NIC: `isolated` is a cut after 2.6 s without a link event, `after` one shortly
after an unrelated link lost its carrier, when netlink is up to a second late.
Link events of others on this host count, too.

The baseline is netlink alone: a process that moves the traffic when it is told
of the loss, with programs that may not step by themselves, and no controller.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks.controlled import Batch, controller
from benchmarks.rows import Better, Options, Row, options, report
from pyfailover import lifecycle
from pyfailover.datapath.programs import ProgramSet
from pyfailover.lab import Lab, Namespace, eventually, scratch_roots
from pyfailover.model import GroupSpec, Word
from pyfailover.netlink.events import Events, LinkSeen
from pyfailover.place import Roots
from pyfailover.traffic import UdpStream, account
from pyfailover.traffic.process import READY, Child, Report
from pyfailover.transaction import locked_namespace, paths

HOST, FAR = "192.0.2.1", "192.0.2.2"
MAC = "02:00:5e:10:00:01"
_RATE = 10_000
_BEFORE, _AFTER = 2_000, 5_000  # packets each way
_CALM_S = 2.6  # a link that comes back is told of in two parts, a second apart
_SHORTLY_S = 0.03
_WITHIN_S = 15.0
_DIRECTIONS = ("tx", "rx", "both")
_MOMENTS = ("isolated", "after")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """fo0 over eth1 and eth2, whose far ends p1 and p2 are ports of br0."""

    host: Namespace
    far: Namespace
    roots: Roots
    programs: ProgramSet


@dataclass(frozen=True, slots=True)
class Trial:
    """What one cut has cost, all streams together."""

    lost: int
    gap_ms: float


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    trials = 3 if chosen.quick else 20
    with Lab() as lab, scratch_roots() as roots, _setup(lab, roots) as setup:
        with _netlink_alone(setup):
            _wait_for(setup, 0)
            baseline = _measure(setup, trials)
        with controller(setup.host, roots):
            _wait_for(setup, 0)
            found = _measure(setup, trials)
    _report(found, baseline, trials, chosen)


def _report(
    found: dict[str, list[Trial]],
    baseline: dict[str, list[Trial]],
    trials: int,
    chosen: Options,
) -> None:
    rows = []
    for case in found:
        of_us, of_netlink = (
            (
                ("lost_median", "packets", statistics.median(t.lost for t in each)),
                ("lost_max", "packets", max(t.lost for t in each)),
                ("none_lost", f"of {trials}", sum(t.lost == 0 for t in each)),
                ("gap_median", "ms", statistics.median(t.gap_ms for t in each)),
                ("gap_max", "ms", max(t.gap_ms for t in each)),
            )
            for each in (found[case], baseline[case])
        )
        for (what, unit, value), (_, _, alone) in zip(of_us, of_netlink, strict=True):
            better: Better = "higher" if what == "none_lost" else "lower"
            rows.append(
                Row(
                    case=f"{case}_{what}",
                    value=value,
                    unit=unit,
                    baseline=alone,
                    better=better,
                )
            )
    report("outage", rows, chosen)


@contextmanager
def _setup(lab: Lab, roots: Roots) -> Iterator[Setup]:
    host, far = lab.namespace("host"), lab.namespace("far")
    lab.bridge(far, "br0")
    for number in (1, 2):
        index = 100 + number
        lab.veth(
            host, f"eth{number}", far, f"p{number}",
            mac_a=MAC, index_a=index, index_b=index, up=False,
        )  # fmt: skip
        far.ip(f"link set p{number} master br0 up")
    lab.veth(host, "other", far, "other")
    lab.address(far, "br0", f"{FAR}/24")
    spec = GroupSpec(name="fo0", primary="eth1", standbys=("eth2",), flap_changes=0)
    with host.enter():
        with locked_namespace(roots) as namespace:
            lifecycle.create(namespace, spec)
        pins = paths(roots)[0]
    lab.address(host, "fo0", f"{HOST}/24")
    with ProgramSet(pins) as programs:
        yield Setup(host=host, far=far, roots=roots, programs=programs)


def _measure(setup: Setup, trials: int) -> dict[str, list[Trial]]:
    """Trials of every case, the cases in turn."""
    found: dict[str, list[Trial]] = {
        f"{direction}_{moment}": [] for moment in _MOMENTS for direction in _DIRECTIONS
    }
    with Batch(setup.far) as far:
        for _ in range(trials):
            for case, outcomes in found.items():
                outcomes.append(_trial(setup, far, *case.split("_")))
    return found


def _trial(setup: Setup, far: Batch, direction: str, moment: str) -> Trial:
    """Cut eth1 under traffic, and give it back."""
    eventually(partial(_forwarding, setup.far), timeout=_WITHIN_S, what="the bridge")
    time.sleep(_CALM_S)
    streams = [
        UdpStream(*ends, port=port, rate=_RATE)
        for port, ends in enumerate(_ends(setup, direction), 9001)
    ]
    try:
        for stream in streams:
            stream.start()
        _more(streams, _BEFORE)
        if moment == "after":
            far.do("link set other down")
            time.sleep(_SHORTLY_S)
        cut_ns = time.monotonic_ns()
        far.do("link set p1 down")
        _wait_for(setup, 1)
        _more(streams, _AFTER)
        outcomes = [account(*stream.stop(), start_ns=cut_ns) for stream in streams]
    finally:
        for stream in streams:
            stream.kill()
    far.do("link set other up", "link set p1 up")
    _wait_for(setup, 0)
    far.do("link set br0 type bridge fdb_flush")  # netlink alone announces nothing
    return Trial(
        sum(outcome.lost for outcome in outcomes),
        max(outcome.gap_s for outcome in outcomes) * 1e3,
    )


def _ends(
    setup: Setup, direction: str
) -> Iterator[tuple[Namespace, Namespace, str, str]]:
    """Sender, receiver and their addresses of each stream."""
    if direction in ("tx", "both"):
        yield setup.host, setup.far, HOST, FAR
    if direction in ("rx", "both"):
        yield setup.far, setup.host, FAR, HOST


def _more(streams: list[UdpStream], count: int) -> None:
    """Wait until so many more packets have arrived on each."""
    goals = [(stream, stream.received + count) for stream in streams]
    eventually(
        lambda: all(stream.received >= goal for stream, goal in goals),
        timeout=_WITHIN_S,
        what="traffic",
    )


def _wait_for(setup: Setup, slot: int) -> None:
    eventually(
        lambda: setup.programs.word(0).active == slot,
        timeout=_WITHIN_S,
        what=f"slot {slot} to be active",
    )


def _forwarding(far: Namespace) -> bool:
    """Whether the bridge forwards to both ports; the kernel tells it late, too."""
    ports = json.loads(far.ip("-d -j link show master br0"))
    states = [port["linkinfo"]["info_slave_data"]["state"] for port in ports]
    return states == ["forwarding"] * 2


@contextmanager
def _netlink_alone(setup: Setup) -> Iterator[None]:
    """The traffic is moved when netlink tells of a carrier, and not otherwise."""
    eth1 = setup.host.ifindex("eth1")

    async def follow(programs: ProgramSet, tell: Report) -> None:
        async with Events() as events:
            tell(READY)
            async for event, _ in events.stream():
                if isinstance(event, LinkSeen) and event.link.ifindex == eth1:
                    slot = 0 if event.link.carrier else 1
                    programs.change(0, partial(_only, slot))

    def body(tell: Report) -> None:
        with ProgramSet(paths(setup.roots)[0]) as programs:
            programs.change(0, partial(_only, 0))
            asyncio.run(follow(programs, tell))

    listener = Child("listener", body, setup.host, None)
    try:
        listener.expect(READY, _WITHIN_S)
        yield
    finally:
        listener.kill()


def _only(slot: int, word: Word) -> Word:
    """A slot carries the traffic, and the programs may step to no other."""
    return Word(
        generation=word.generation + 1 & 0xFFFFFFFF, active=slot, approved=1 << slot
    )


if __name__ == "__main__":
    main()
