# SPDX-License-Identifier: GPL-2.0-or-later
"""Delays and flap damping in real time (S4): what must not happen too early, and
that what is waited for happens."""

import re
import time

from pyfailover.history import Kind
from pyfailover.model import TcMode
from tests.support.daemon import Run, under_traffic
from tests.support.tool import Tool, spec
from tests.support.topology import Duo

LONG_MS = 60_000


def last_switch(run: Run) -> float:
    """When the traffic last moved, in seconds since 1970."""
    return run.daemon.events(Kind.SWITCH)[-1].time


def remark(run: Run) -> str:
    """What `status` says of eth1 below its table."""
    said = run.tool.command(run.pair.host, "status", code=None).stdout
    found = [line for line in said.splitlines() if line.startswith(" eth1: ")]
    return "\n".join(found)


def test_up_delay(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """A primary that is back is used no earlier than the delay after its link came,
    and then by itself."""
    with under_traffic(pair, tool, spec(tc=tc, up_delay_ms=600)) as run:
        pair.cut(1)
        run.carries("eth2")
        start = time.time()
        pair.mend(1)
        run.carries("eth1")
        assert last_switch(run) >= start + 0.6
        assert len(run.daemon.switches()) == 2


def test_up_delay_is_shown_and_begins_again_with_each_loss(
    pair: Duo, tool: Tool
) -> None:
    """`status` counts down; a link that goes meanwhile is no candidate any more."""
    with under_traffic(pair, tool, spec(up_delay_ms=LONG_MS)) as run:
        pair.cut(1)
        run.carries("eth2")
        for _ in range(2):
            pair.mend(1)
            run.verdict(0, "up delay")
            assert re.fullmatch(r" eth1: up delay, \d+\.\d s left", remark(run))
            pair.cut(1)
            run.verdict(0, "not ready")
            assert remark(run) == ""
        assert len(run.daemon.switches()) == 1


def test_up_delay_is_over_at_once_when_nobody_else_is_left(
    pair: Duo, tool: Tool
) -> None:
    """A slave that waits is taken when the active one dies."""
    with under_traffic(pair, tool, spec(up_delay_ms=LONG_MS)) as run:
        pair.cut(1)
        run.carries("eth2")
        pair.mend(1)
        run.verdict(0, "up delay")
        pair.cut(2)
        run.carries("eth1")


def test_down_delay(pair: Duo, tool: Tool) -> None:
    """A slave without carrier is left no earlier than the delay after that."""
    with under_traffic(pair, tool, spec(down_delay_ms=600)) as run:
        start = time.time()
        pair.cut(1)
        run.carries("eth2")
        assert last_switch(run) >= start + 0.6


def test_short_loss_within_the_down_delay(pair: Duo, tool: Tool) -> None:
    """Nothing moves, and the delay begins anew; but a slave that was set down, or that
    is gone, is left at once."""
    with under_traffic(pair, tool, spec(down_delay_ms=LONG_MS)) as run:
        for _ in range(2):
            pair.cut(1)
            run.verdict(0, "down delay")
            assert re.fullmatch(r" eth1: down delay, \d+\.\d s left", remark(run))
            pair.mend(1)
            run.verdict(0, "usable")
        assert run.daemon.switches() == []
        pair.host.ip("link set eth1 down")
        run.carries("eth2")
        pair.unplug(2)
        run.carries(None)
        assert run.daemon.switches() == [
            ("eth1", "eth2", "admin_down"),
            ("eth2", None, "removed"),
        ]


def test_flapping_slave_stays_out(pair: Duo, tool: Tool) -> None:
    """A primary that changes too often is left alone, shown and counted, and is back
    by itself after the hold; the next hold is twice as long."""
    wanted = spec(flap_changes=4, flap_window_s=3600, flap_hold_s=2)
    with under_traffic(pair, tool, wanted) as run:
        flap(run)
        assert "damped 1 time for changing too often" in remark(run)
        assert " eth1: damped, " in remark(run)
        run.carries("eth1")
        assert run.daemon.events(Kind.SWITCH)[-1].reason == "preferred"
        (first,) = run.daemon.events(Kind.DAMPED)
        assert last_switch(run) > first.time + 1.9  # told a moment after it began
        flap(run)
        assert "damped 2 times for changing too often" in remark(run)
        told = [(e.after, e.detail) for e in run.daemon.events(Kind.DAMPED)]
        assert told == [("eth1", "out for 2 s"), ("eth1", "out for 4 s")]
        assert run.daemon.group()["slaves"][0]["damped"] == 2


def flap(run: Run) -> None:
    """Change the primary four times, so that it is damped."""
    for _ in range(2):
        run.pair.cut(1)
        run.carries("eth2")
        run.pair.mend(1)
        run.wait(lambda: verdict(run) in ("usable", "damped"), "a verdict")
    run.verdict(0, "damped")


def verdict(run: Run) -> str:
    """The controller's opinion of the primary."""
    return str(run.daemon.group()["slaves"][0]["verdict"])


def test_flapping_slave_carries_where_there_is_no_other(pair: Duo, tool: Tool) -> None:
    """Better a slave that flaps than none."""
    wanted = spec(flap_changes=2, flap_hold_s=3600, flap_hold_max_s=3600)
    with under_traffic(pair, tool, wanted) as run:
        pair.cut(1)
        run.carries("eth2")
        pair.mend(1)
        run.verdict(0, "damped")
        pair.cut(2)
        run.carries("eth1")
        pair.mend(2)
        run.flow()
