# SPDX-License-Identifier: GPL-2.0-or-later
"""From the read of a link event to the word in the map, in ms, by a real controller.

`react`: with 1, 100 and 300 groups in a namespace the primary of one group after
the other, drawn at random, loses its carrier and has it back, with pauses of up
to 60 ms in between. The time is `took_s` of the switches in the history: it
begins where the controller reads the netlink datagram, or where the poll ends
that saw it first. No traffic flows, so no program steps by itself. The baseline
is the same percentile with one group.

`storm`: the NIC of which the primaries of all 300 groups are functions loses its
carrier, and they with it at once. From the first event read to the last word in
the map, by the same history; the baseline is the time that a process which does
nothing else needs to read and decode the messages of the same cut. Medians.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Collection

from benchmarks.controlled import Batch, Site, controller, settle, site
from benchmarks.rows import Row, options, report
from pyfailover.datapath.programs import ProgramSet
from pyfailover.history import Event, History, Kind
from pyfailover.lab import Lab, eventually, scratch_roots
from pyfailover.model import Decider
from pyfailover.netlink.events import Events, LinkSeen
from pyfailover.traffic.process import READY, RESULT, Child, Report

_SIZES = (1, 100, 300)
_PAUSE_S = 0.06
_CALM_S = 1.5  # until the kernel and the controller think it is quiet
_WITHIN_S = 30.0


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    switches, storms = (30, 2) if chosen.quick else (600, 9)
    rows: list[Row] = []
    for groups in _SIZES:
        with Lab() as lab, scratch_roots() as roots:
            made = site(lab, roots, groups)
            rows += _react(made, switches, rows[:2])
    with Lab() as lab, scratch_roots() as roots:
        rows.append(_storms(site(lab, roots, _SIZES[-1], one_nic=True), storms))
    report("react", rows, chosen)


def _react(made: Site, switches: int, first: list[Row]) -> list[Row]:
    """The percentiles of one size; the first size is everybody's baseline."""
    with controller(made.host, made.roots) as running:
        settle(running)
        took_ms = flip(made, switches)
    found = {
        "p50": statistics.median(took_ms),
        "p99": statistics.quantiles(took_ms, n=100)[98],
    }
    baseline = [row.value for row in first] or [*found.values()]
    return [
        Row(
            case=f"react_{name}_{made.groups}",
            value=value,
            unit="ms",
            baseline=of_one,
            better="lower",
        )
        for (name, value), of_one in zip(found.items(), baseline, strict=True)
    ]


def flip(made: Site, switches: int) -> list[float]:
    """Cut and mend primaries one at a time; milliseconds of each switch."""
    start = time.time()
    with Batch(made.far) as far, ProgramSet(made.pins) as programs:
        for _ in range(switches // 2):
            n = random.randrange(made.groups)
            for state, active in (("down", 1), ("up", 0)):
                time.sleep(random.uniform(0, _PAUSE_S))
                far.do(f"link set pa{n} {state}")
                _wait_for(programs, [n], active)
    events = _switches(made, start, switches)
    return [event.took_s * 1e3 for event in events if event.took_s is not None]


def _storms(made: Site, trials: int) -> Row:
    indexes = {made.host.ifindex(f"a{n}") for n in range(made.groups)}
    with ProgramSet(made.pins) as programs:
        decodes = [_decode(made, indexes) for _ in range(trials)]
        with controller(made.host, made.roots) as running:
            settle(running)
            found = [_storm(made, programs) for _ in range(trials)]
    return Row(
        case=f"storm_{made.groups}",
        value=statistics.median(found),
        unit="ms",
        baseline=statistics.median(decodes),
        better="lower",
    )


def _storm(made: Site, programs: ProgramSet) -> float:
    """Milliseconds from the first event to the last word."""
    time.sleep(_CALM_S)
    start = time.time()
    made.far.ip("link set port down")
    _wait_for(programs, range(made.groups), 1)
    events = _switches(made, start, made.groups)
    made.far.ip("link set port up")
    _wait_for(programs, range(made.groups), 0)
    first = min(event.time - (event.took_s or 0.0) for event in events)
    return (max(event.time for event in events) - first) * 1e3


def _decode(made: Site, indexes: set[int]) -> float:
    """Milliseconds to read and decode a cut of all primaries, and no more."""
    listener = Child("listener", _listener(indexes), made.host, None)
    try:
        listener.expect(READY, _WITHIN_S)
        time.sleep(_CALM_S)
        made.far.ip("link set port down")
        took_s = listener.expect(RESULT, _WITHIN_S)
    finally:
        listener.kill()
    made.far.ip("link set port up")
    assert isinstance(took_s, float)
    return took_s * 1e3


def _listener(indexes: set[int]) -> Callable[[Report], float]:
    """Follow events until all of these have lost their carrier."""

    async def follow(tell: Report) -> float:
        waiting, first = set(indexes), 0.0
        async with Events() as events:
            tell(READY)
            async for event, read_at in events.stream():
                first = first or read_at
                if isinstance(event, LinkSeen) and not event.link.carrier:
                    waiting.discard(event.link.ifindex)
                if not waiting:
                    break
        return time.monotonic() - first

    return lambda tell: asyncio.run(follow(tell))


def _wait_for(programs: ProgramSet, groups: Collection[int], active: int) -> None:
    """Wait until a slot carries the traffic of groups."""
    eventually(
        lambda: all(programs.word(n).active == active for n in groups),
        timeout=_WITHIN_S,
        what=f"slot {active} to be active",
    )


def _switches(made: Site, since: float, count: int) -> list[Event]:
    """What the history has of switches; they are written down after all is done."""
    history = History(made.run)

    def found() -> list[Event]:
        return [
            event
            for event in history.read()
            if event.kind is Kind.SWITCH
            and event.by == Decider.CONTROLLER
            and event.time >= since
        ]

    eventually(lambda: len(found()) >= count, timeout=_WITHIN_S, what="the history")
    return found()


if __name__ == "__main__":
    main()
