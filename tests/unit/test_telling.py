# SPDX-License-Identifier: GPL-2.0-or-later
"""What a controller tells of its groups: when, to whom, and how loudly."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pyfailover.history import Event, History, Kind, to_data
from pyfailover.model import Decider, Reason
from pyfailover.telling import Teller

MOMENT = 1795590091.25
WATCHED_MAX = 1000  # events that a watcher may be behind
SWITCH = Event(
    time=MOMENT,
    group="fo0",
    kind=Kind.SWITCH,
    before="eth1",
    after="eth2",
    reason=Reason.CARRIER_LOST,
    by=Decider.KERNEL,
    took_s=0.0002504,
    generation=7,
)
DEGRADED = Event(
    time=MOMENT,
    group="fo0",
    kind=Kind.DEGRADED,
    before=None,
    after=None,
    reason=Kind.DEGRADED,
    by=Decider.CONTROLLER,
    took_s=None,
    generation=None,
    detail="1 of 2 usable",
)
WHOLE = replace(DEGRADED, kind=Kind.WHOLE, reason=Kind.WHOLE, detail="2 of 2 usable")


class Told:
    """A teller, and the end of the moment when the test says so."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.later: list[Callable[[], None]] = []
        self.teller = Teller(run, self.later.append)

    def end(self) -> None:
        """Nothing is left to do this moment."""
        due, self.later[:] = list(self.later), []
        for call in due:
            call()

    @property
    def written(self) -> list[Event]:
        """What is in the history."""
        return History(self.run).read()


@pytest.fixture
def told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Told:
    """A teller at a moment that does not pass."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("time.time", lambda: MOMENT)
    return Told(tmp_path)


def emptied(queue: asyncio.Queue[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What is in a queue."""
    while not queue.empty():
        yield queue.get_nowait()


# --- when, and to whom ----------------------------------------------------


def test_told_when_the_moment_ends(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """However much happens in a moment, it is told in one go at its end, in order."""
    with told.teller.watching() as queue:
        told.teller.tell(SWITCH)
        told.teller.tell(replace(SWITCH, group="fo1"))
        assert (told.written, caplog.records, queue.qsize()) == ([], [], 0)
        assert len(told.later) == 1
        told.end()
        assert [event.group for event in told.written] == ["fo0", "fo1"]
        assert [data["group"] for data in emptied(queue)] == ["fo0", "fo1"]
    masters = [vars(record)["fields"]["master"] for record in caplog.records]
    assert masters == ["fo0", "fo1"]


def test_the_next_moment(told: Told) -> None:
    """What happens later is told once, and what was told is not told again."""
    told.teller.tell(SWITCH)
    told.end()
    told.end()
    told.teller.tell(WHOLE)
    told.end()
    assert told.written == [SWITCH, WHOLE]


def test_watchers_get_what_is_written(told: Told) -> None:
    """Each watcher has all of it, as it is in the history."""
    with told.teller.watching() as one, told.teller.watching() as other:
        told.teller.tell(SWITCH)
        told.end()
        assert list(emptied(one)) == list(emptied(other)) == [to_data(SWITCH)]
    (line,) = (told.run / "events.jsonl").read_text().splitlines()
    assert json.loads(line) == to_data(SWITCH)


def test_watcher_that_left(told: Told) -> None:
    """Who left is told no more, who stays is."""
    with told.teller.watching() as stays:
        with told.teller.watching() as leaves:
            pass
        told.teller.tell(SWITCH)
        told.end()
        assert (stays.qsize(), leaves.qsize()) == (1, 0)


def test_watcher_that_fails(told: Told) -> None:
    """However a watcher ends, it is told no more."""
    with pytest.raises(ZeroDivisionError), told.teller.watching() as queue:
        raise ZeroDivisionError
    told.teller.tell(SWITCH)
    told.end()
    assert queue.empty()


def test_watcher_that_does_not_read(told: Told) -> None:
    """One that is behind loses the latest; others and the history do not."""
    with told.teller.watching() as slow, told.teller.watching() as quick:
        read = 0
        for number in range(WATCHED_MAX + 3):
            told.teller.tell(replace(SWITCH, generation=number))
            told.end()
            read += len(list(emptied(quick)))
        assert read == len(told.written) == WATCHED_MAX + 3
        kept = [data["generation"] for data in emptied(slow)]
        assert kept == list(range(WATCHED_MAX))
        told.teller.tell(SWITCH)
        told.end()
        assert list(emptied(slow)) == [to_data(SWITCH)]


def test_history_that_cannot_be_written(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it cannot be written, it is told to the watchers all the same."""
    (told.run / "events.jsonl").mkdir()
    with told.teller.watching() as queue:
        told.teller.tell(SWITCH)
        told.end()
        assert queue.qsize() == 1


# --- the log --------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "level", "said"),
    [
        (
            SWITCH,
            logging.INFO,
            {
                "from": "eth1",
                "to": "eth2",
                "reason": "carrier_lost",
                "by": "kernel",
                "generation": 7,
                "took_ms": 0.25,
            },
        ),
        (
            replace(SWITCH, before=None, took_s=None, reason=Reason.FIRST),
            logging.INFO,
            {
                "from": "-",
                "to": "eth2",
                "reason": "first",
                "by": "kernel",
                "generation": 7,
            },
        ),
        (
            replace(SWITCH, after=None, took_s=0.0),
            logging.WARNING,
            {
                "from": "eth1",
                "to": "-",
                "reason": "carrier_lost",
                "by": "kernel",
                "generation": 7,
                "took_ms": 0.0,
            },
        ),
        (DEGRADED, logging.WARNING, {"detail": "1 of 2 usable"}),
        (WHOLE, logging.INFO, {"detail": "2 of 2 usable"}),
        (
            replace(DEGRADED, kind=Kind.JOIN, after="eth1", detail="interface 7"),
            logging.INFO,
            {"slave": "eth1", "detail": "interface 7"},
        ),
        (
            replace(DEGRADED, kind=Kind.LEAVE, detail="interface 7"),
            logging.WARNING,
            {"detail": "interface 7"},
        ),
        (
            replace(DEGRADED, kind=Kind.REPAIR, detail="slot 0 in the maps"),
            logging.WARNING,
            {"detail": "slot 0 in the maps"},
        ),
        (
            replace(DEGRADED, kind=Kind.PIN, after="eth1", detail=""),
            logging.INFO,
            {"slave": "eth1"},
        ),
        (replace(DEGRADED, kind=Kind.PIN, detail=""), logging.INFO, {}),
    ],
)
def test_log(
    told: Told,
    caplog: pytest.LogCaptureFixture,
    event: Event,
    level: int,
    said: dict[str, object],
) -> None:
    """An event is one line, of its kind, with all that it is worth knowing; a warning
    where something is lost."""
    told.teller.tell(event)
    told.end()
    (record,) = caplog.records
    assert (record.getMessage(), record.levelno) == (event.kind, level)
    assert vars(record)["fields"] == {"master": "fo0", **said}


def test_note(told: Told) -> None:
    """What is no change of the active slave is of this moment, and the controller's
    unless somebody else is named."""
    told.teller.note("fo0", Kind.DEGRADED, detail="1 of 2 usable")
    told.teller.note("fo0", Kind.PIN, after="eth1", by=Decider.USER)
    told.end()
    pinned = replace(DEGRADED, kind=Kind.PIN, reason=Kind.PIN, detail="")
    assert told.written == [DEGRADED, replace(pinned, after="eth1", by=Decider.USER)]


# --- redundancy -----------------------------------------------------------


@pytest.mark.parametrize(
    ("usable", "events"),
    [
        ([2, 2], []),
        ([1], [DEGRADED]),
        ([1, 1, 1], [DEGRADED]),
        ([1, 2], [DEGRADED, WHOLE]),
        ([1, 0, 1, 2, 2], [DEGRADED, WHOLE]),
        ([1, 2, 1], [DEGRADED, WHOLE, DEGRADED]),
    ],
)
def test_redundancy(told: Told, usable: Sequence[int], events: Sequence[Event]) -> None:
    """That a group lost its redundancy is told once, and once that it has it again."""
    for number in usable:
        told.teller.redundancy("fo0", number, 2)
    told.end()
    assert told.written == events
    since = None if not events or events[-1] is WHOLE else MOMENT
    assert told.teller.degraded_since("fo0") == since


def test_since_the_first_loss(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is degraded since it was whole the last time, however it went on."""
    told.teller.redundancy("fo0", 2, 3)
    monkeypatch.setattr("time.time", lambda: MOMENT + 97)
    told.teller.redundancy("fo0", 1, 3)
    assert told.teller.degraded_since("fo0") == MOMENT


def test_groups_have_their_own(told: Told) -> None:
    """What one group lost is not another's loss."""
    told.teller.redundancy("fo0", 1, 2)
    assert told.teller.degraded_since("fo1") is None


def test_next_controller_takes_up(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a restart a group is degraded since it was, and that is not told again;
    that it became whole is."""
    told.teller.redundancy("fo0", 1, 2)
    told.end()
    monkeypatch.setattr("time.time", lambda: MOMENT + 97)
    again = Told(told.run)
    assert again.teller.degraded_since("fo0") is None  # it may be there no more
    again.teller.take_up("fo0")
    again.teller.redundancy("fo0", 1, 2)
    assert again.teller.degraded_since("fo0") == MOMENT
    again.teller.redundancy("fo0", 2, 2)
    again.end()
    assert again.written == [DEGRADED, replace(WHOLE, time=MOMENT + 97)]


def test_next_controller_of_a_whole_group(told: Told) -> None:
    """A group that became whole again is not degraded for the next controller."""
    told.teller.redundancy("fo0", 1, 2)
    told.teller.redundancy("fo0", 2, 2)
    told.end()
    again = Told(told.run)
    again.teller.take_up("fo0")
    assert again.teller.degraded_since("fo0") is None


def test_group_that_was_detached(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that is attached again begins anew: what it once lacked is forgotten, be
    it from this controller's time or from the one before."""
    told.teller.redundancy("fo0", 1, 2)
    told.end()
    again = Told(told.run)
    again.teller.take_up("fo0")
    monkeypatch.setattr("time.time", lambda: MOMENT + 97)
    for each in (told, again):
        each.teller.forget("fo0")
        assert each.teller.degraded_since("fo0") is None
        each.teller.take_up("fo0")
        assert each.teller.degraded_since("fo0") is None
        each.teller.redundancy("fo0", 1, 2)
        assert each.teller.degraded_since("fo0") == MOMENT + 97


def test_all_is_counted(told: Told) -> None:
    """At once, before anybody is told; a group that is forgotten takes its own."""
    told.teller.tell(SWITCH)
    told.teller.note("fo0", Kind.REPAIR)
    tally = told.teller.tally
    assert (tally.switches.total(), tally.repairs["fo0"]) == (1, 1)
    assert tally.last_switch == {"fo0": MOMENT}
    told.teller.forget("fo0")
    assert (tally.switches.total(), tally.last_switch) == (0, {})
