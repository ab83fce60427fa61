# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets lost, and the longest gap, when the active slave's far end is set down.

Numbered UDP out of the master (`tx`), into it (`rx`), or both, at 50,000 and
200,000 packets a second each way; with programs that test the carrier and with
plain ones; while the controller is running and after it was killed. The cut comes
shortly after an unrelated link event, when netlink is up to a second late; events
of others on this machine count, too. A trial ends when the traffic has been back
for a while, or two seconds after the cut: plain programs without a controller never
step, so that is what they lose (three trials).

Lost is, of `tx`, every number that did not arrive, for the link loses nothing (see
`cutting`); of `rx`, every number since the far end's own move that did not arrive.
The far end sends by p1 until its own stack refuses that, and the very number that
was refused goes by p2, with all that follow; what went into the dead link before
is its loss. `none_lost` are the trials in which every number arrived, just once.

`uncut` is A/A: the same without a cut, in a run with a controller and in that of
the baseline. `rate` is what the slowest sender achieved, beside what it was asked
for, and `overflowed` are packets of all trials for which a receiving socket or a
CPU's backlog had no room, and which count as lost: both say whether the machine was
up to it. Sender and receiver are pinned to a CPU each.

`10k_…_isolated` are plain programs at 10,000 packets a second, cut after 2.6 s
without a link event: netlink in time.

The baseline is netlink alone: a process that moves the traffic when it is told of
the loss, with plain programs that may not step by themselves, and no controller.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks.controlled import controller
from benchmarks.cutting import (
    FAR,
    FAR_LINKS,
    HOST,
    Site,
    carried_by,
    roomy_backlog,
    site,
)
from benchmarks.rows import Better, Options, Row, options, report
from pyfailover.datapath.programs import ProgramSet
from pyfailover.netlink.events import Events, LinkSeen
from pyfailover.traffic import UdpStream, account, backlog_dropped
from pyfailover.traffic.process import READY, Child, Report
from pyfailover.transaction import paths

_BEFORE_S, _AFTER_S = 0.1, 0.15  # of traffic
_WITHIN_S = 2.0
_CALM_S = 2.6  # a link that comes back is told of in two parts, a second apart
_SHORTLY_S = 0.03
_LISTENING_WITHIN_S = 15.0
_DIRECTIONS = ("tx", "rx", "both")


@dataclass(frozen=True, slots=True)
class Case:
    """What flows when eth1 is cut, and when that is: after, isolated, uncut."""

    rate: int
    direction: str
    moment: str = "after"

    def __str__(self) -> str:
        moment = "" if self.moment == "after" else f"_{self.moment}"
        return f"{self.rate // 1000}k_{self.direction}{moment}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one cut has cost, all streams together."""

    lost: int
    twice: int
    gap_ms: float
    rate: float  # of the slowest sender
    overflowed: int


Found = dict[Case, list[Trial]]

_CUT = [Case(rate, way) for rate in (50_000, 200_000) for way in _DIRECTIONS]
_UNCUT = [Case(case.rate, case.direction, "uncut") for case in _CUT]
_ISOLATED = [Case(10_000, way, "isolated") for way in _DIRECTIONS]


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    many, some, few = (1, 1, 1) if chosen.quick else (20, 6, 3)
    isolated = [] if chosen.quick else _ISOLATED
    found: dict[str, Found] = {}
    with roomy_backlog():
        with site(carrier_test=True) as made:
            with controller(made.host, made.roots) as running:
                ready = partial(made.wait_for, approved=0b11)
                found["carrier_running"] = {
                    **_measure(made, _CUT, many, ready),
                    **_measure(made, _UNCUT, some, ready),
                }
                running.kill()
            found["carrier_killed"] = _measure(made, _CUT, many, made.give_back)
        with site(carrier_test=False) as made:
            with controller(made.host, made.roots) as running:
                ready = partial(made.wait_for, approved=0b11)
                found["plain_running"] = {
                    **_measure(made, _CUT, many, ready),
                    **_measure(made, isolated, some, ready),
                }
                running.kill()
            found["plain_killed"] = _measure(made, _CUT, few, made.give_back)
            with _netlink_alone(made):
                ready = partial(made.wait_for, approved=0b01)
                alone = {
                    **_measure(made, _CUT, many, ready),
                    **_measure(made, [*_UNCUT, *isolated], some, ready),
                }
    _report(found, alone, chosen)


def _report(found: dict[str, Found], alone: Found, chosen: Options) -> None:
    rows = [
        row
        for how, cases in found.items()
        for case, trials in cases.items()
        for row in _rows(f"{case}_{how}", trials, alone[case])
    ]
    for case in _CUT:
        trials = [t for cases in (*found.values(), alone) for t in cases[case]]
        rows.append(
            Row(
                case=f"{case}_rate",
                value=statistics.median(trial.rate for trial in trials),
                unit="packets/s",
                baseline=case.rate,
                better="higher",
            )
        )
    report("outage", rows, chosen)


def _rows(name: str, trials: list[Trial], alone: list[Trial]) -> Iterator[Row]:
    """The figures of a case beside those of netlink alone."""
    for what, value in _figures(trials).items():
        better: Better = "higher" if what == "none_lost" else "lower"
        unit = "ms" if what.startswith("gap") else "packets"
        if what == "none_lost":
            unit = f"of {len(trials)}"
        yield Row(
            case=f"{name}_{what}",
            value=value,
            unit=unit,
            baseline=_figures(alone)[what],
            better=better,
        )


def _figures(trials: list[Trial]) -> dict[str, float]:
    return {
        "lost_median": statistics.median(t.lost for t in trials),
        "lost_max": max(t.lost for t in trials),
        "none_lost": sum(t.lost == t.twice == 0 for t in trials),
        "gap_median": statistics.median(t.gap_ms for t in trials),
        "gap_max": max(t.gap_ms for t in trials),
        "overflowed": sum(t.overflowed for t in trials),
    }


def _measure(
    made: Site, cases: Iterable[Case], trials: int, ready: Callable[[], None]
) -> Found:
    """Trials of the cases in turn; `ready` gets eth1 the traffic back."""
    found: Found = {case: [] for case in cases}
    ready()
    for _ in range(trials):
        for case, outcomes in found.items():
            outcomes.append(_trial(made, case))
            made.mend()
            ready()
    return found


def _trial(made: Site, case: Case) -> Trial:
    """Cut eth1 under traffic."""
    if case.moment == "isolated":
        time.sleep(_CALM_S)
    streams = list(_streams(made, case))
    dropped = backlog_dropped()
    try:
        for stream in streams:
            stream.start()
        _flow(streams, round(_BEFORE_S * case.rate))
        if case.moment == "after":
            made.disturb()
            time.sleep(_SHORTLY_S)
        if case.moment != "uncut":
            made.cut()
        _flow(streams, round(_AFTER_S * case.rate))
        ends = [stream.stop() for stream in streams]
    finally:
        for stream in streams:
            stream.kill()
    outcomes = [account(*end, start_ns=end[0].moved_ns or 0) for end in ends]
    return Trial(
        lost=sum(outcome.lost for outcome in outcomes),
        twice=sum(outcome.duplicated for outcome in outcomes),
        gap_ms=max(outcome.gap_s for outcome in outcomes) * 1e3,
        rate=min(sent.rate for sent, _ in ends),
        overflowed=sum(received.overflowed for _, received in ends)
        + backlog_dropped()
        - dropped,
    )


def _streams(made: Site, case: Case) -> Iterator[UdpStream]:
    if case.direction in ("tx", "both"):
        yield UdpStream(
            made.host, made.far, HOST, FAR,
            port=9001, rate=case.rate, sender_cpu=0, receiver_cpu=1,
        )  # fmt: skip
    if case.direction in ("rx", "both"):
        yield UdpStream(
            made.far, made.host, FAR, HOST, links=FAR_LINKS,
            port=9002, rate=case.rate, sender_cpu=1, receiver_cpu=0,
        )  # fmt: skip


def _flow(streams: list[UdpStream], count: int) -> None:
    """Wait until so many more packets have arrived on each, but not for ever."""
    goals = [(stream, stream.received + count) for stream in streams]
    deadline = time.monotonic() + _WITHIN_S
    while any(stream.received < goal for stream, goal in goals):
        if time.monotonic() >= deadline:
            return
        time.sleep(0.005)


@contextmanager
def _netlink_alone(made: Site) -> Iterator[None]:
    """The traffic is moved when netlink tells of a carrier, and not otherwise."""
    eth1 = made.host.ifindex("eth1")

    def give(programs: ProgramSet, slot: int) -> None:
        programs.change(0, partial(carried_by, slot, approved=1 << slot))

    async def follow(programs: ProgramSet, tell: Report) -> None:
        async with Events() as events:
            tell(READY)
            async for event, _ in events.stream():
                if isinstance(event, LinkSeen) and event.link.ifindex == eth1:
                    give(programs, 0 if event.link.carrier else 1)

    def body(tell: Report) -> None:
        with ProgramSet(paths(made.roots)[0]) as programs:
            give(programs, 0)
            asyncio.run(follow(programs, tell))

    listener = Child("listener", body, made.host, None)
    try:
        listener.expect(READY, _LISTENING_WITHIN_S)
        yield
    finally:
        listener.kill()


if __name__ == "__main__":
    main()
