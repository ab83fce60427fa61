# SPDX-License-Identifier: GPL-2.0-or-later
"""What a controller counts: which events, by which words, and what is forgotten."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfailover.history import Event, Kind
from pyfailover.model import Decider, Reason
from pyfailover.tally import BUCKETS, Durations, Tally

LOST = Event(
    time=1795590091.25,
    group="fo0",
    kind=Kind.SWITCH,
    before="eth1",
    after="eth2",
    reason=Reason.CARRIER_LOST,
    by=Decider.CONTROLLER,
    took_s=0.002,
    generation=7,
)
BACK = replace(
    LOST, before="eth2", after="eth1", reason=Reason.PREFERRED, time=1795590092.5
)


def data(tally: Tally) -> dict[str, Any]:
    """As it comes out of the socket."""
    found: dict[str, Any] = json.loads(json.dumps(tally.as_data(), allow_nan=False))
    return found


def test_nothing_yet() -> None:
    """All that is always there is there, at zero."""
    zero = {"counts": [0] * (len(BUCKETS) + 1), "sum_s": 0.0}
    assert data(Tally()) == {
        "switches": [],
        "losses": {"kernel": zero, "controller": zero},
        "last_switch": {},
        "announcements": {},
        "announcement_errors": 0,
        "repairs": {},
        "reloads": {"success": 0, "failure": 0},
        "reload_ok": True,
        "reloaded_at": 0.0,
    }


def test_switches() -> None:
    """Changes are counted by pair, reason and decider; the last one's time is kept."""
    tally = Tally()
    for event in (LOST, BACK, LOST, replace(LOST, after=None, time=1795590097.0)):
        tally.happened(event)
    found = data(tally)
    assert sorted(found["switches"], key=str) == [
        ["fo0", "eth1", "eth2", "carrier_lost", "controller", 2],
        ["fo0", "eth1", None, "carrier_lost", "controller", 1],
        ["fo0", "eth2", "eth1", "preferred", "controller", 1],
    ]
    assert found["last_switch"] == {"fo0": 1795590097.0}


@pytest.mark.parametrize(
    ("reason", "by", "counted"),
    [
        (Reason.CARRIER_LOST, Decider.CONTROLLER, "controller"),
        (Reason.ADMIN_DOWN, Decider.CONTROLLER, "controller"),
        (Reason.REMOVED, Decider.KERNEL, "kernel"),
        (Reason.PREFERRED, Decider.CONTROLLER, None),
        (Reason.FIRST, Decider.USER, None),
        (Reason.OPERATOR, Decider.USER, None),
        (Reason.DAMPED, Decider.CONTROLLER, None),
        (Reason.RECOVERED, Decider.KERNEL, None),
    ],
)
def test_losses(reason: Reason, by: Decider, counted: str | None) -> None:
    """Only what was lost has a time to switch."""
    tally = Tally()
    tally.happened(replace(LOST, reason=reason, by=by))
    found = {name: sum(d["counts"]) for name, d in data(tally)["losses"].items()}
    expected = {"kernel": 0, "controller": 0}
    assert found == expected | ({counted: 1} if counted else {})


@given(st.lists(st.floats(0, 20)))
def test_buckets(seconds: list[float]) -> None:
    """Each duration is in the first bucket whose end it does not pass."""
    durations = Durations()
    for each in seconds:
        durations.add(each)
    for place, end in enumerate(BUCKETS):
        assert sum(durations.counts[: place + 1]) == sum(s <= end for s in seconds)
    assert sum(durations.counts) == len(seconds)
    assert durations.sum_s == pytest.approx(sum(seconds))


def test_what_is_no_switch() -> None:
    """Repairs are counted by group, all other kinds are not."""
    tally = Tally()
    for kind in set(Kind) - {Kind.SWITCH}:
        tally.happened(replace(LOST, kind=kind))
    found = data(tally)
    assert (found["repairs"], found["switches"]) == ({"fo0": 1}, [])
    assert found["last_switch"] == {}


def test_announcements() -> None:
    """Frames are summed up; what an interface refused is an error."""
    tally = Tally()
    for frames in (3, None, 4):
        tally.announced("fo0", frames)
    found = data(tally)
    assert (found["announcements"], found["announcement_errors"]) == ({"fo0": 7}, 1)


def test_reloads() -> None:
    """The last one counts for whether all is well, the last good one for when."""
    tally = Tally()
    tally.loaded(97.0, ok=True)
    assert data(tally)["reloads"] == {"success": 0, "failure": 0}
    tally.reloaded(101.0, ok=True)
    tally.reloaded(103.0, ok=False)
    found = data(tally)
    assert found["reloads"] == {"success": 1, "failure": 1}
    assert (found["reload_ok"], found["reloaded_at"]) == (False, 101.0)


def test_forget() -> None:
    """A group that is gone takes what is its own with it; others keep theirs."""
    tally = Tally()
    for group in ("fo0", "fo1"):
        tally.happened(replace(LOST, group=group))
        tally.happened(replace(LOST, group=group, kind=Kind.REPAIR))
        tally.announced(group, 2)
    tally.forget("fo0")
    found = data(tally)
    assert [key[0] for key in found["switches"]] == ["fo1"]
    assert found["last_switch"].keys() == found["announcements"].keys() == {"fo1"}
    assert found["repairs"] == {"fo0": 1, "fo1": 1}
    assert sum(found["losses"]["controller"]["counts"]) == 2
