# SPDX-License-Identifier: GPL-2.0-or-later
"""The account of numbered packets, as a table: what was sent, what arrived."""

import time
from array import array
from dataclasses import dataclass

import pytest

from pyfailover.traffic.accounting import Outcome, Received, Sent, account

MS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Case:
    """Batches (first number, count, ms), arrivals (number, ms), a window in ms."""

    description: str
    sent: tuple[tuple[int, int, int], ...]
    arrived: tuple[tuple[int, int], ...]
    window: tuple[int, int] = (0, 1000)
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    counted: int
    gap_ms: int


def one_by_one(*numbers: int) -> tuple[tuple[int, int, int], ...]:
    """A number every millisecond, number n at n ms."""
    return tuple((number, 1, number) for number in numbers)


def at_once(*numbers: int) -> tuple[tuple[int, int], ...]:
    """Each number arrives one millisecond after the one before."""
    return tuple((number, 1 + place) for place, number in enumerate(numbers))


CASES = [
    Case(description="nothing at all", sent=(), arrived=(), counted=0, gap_ms=0),
    Case(
        description="all arrive in order",
        sent=one_by_one(1, 2, 3, 4, 5),
        arrived=at_once(1, 2, 3, 4, 5),
        counted=5,
        gap_ms=1,
    ),
    Case(
        description="a number that never arrives is lost",
        sent=one_by_one(1, 2, 3, 4, 5),
        arrived=((1, 1), (2, 2), (4, 4), (5, 5)),
        counted=5,
        lost=1,
        gap_ms=2,
    ),
    Case(
        description="a whole batch is lost and another partly",
        sent=((1, 10, 1), (11, 10, 2), (21, 10, 3)),
        arrived=(*((n, 1) for n in range(1, 11)), (21, 3), (25, 3)),
        counted=30,
        lost=18,
        gap_ms=2,
    ),
    Case(
        description="nothing arrives: the gap is all the time of sending",
        sent=one_by_one(10, 11, 12, 17),
        arrived=(),
        counted=4,
        lost=4,
        gap_ms=7,
    ),
    Case(
        description="an outage that never ends is a gap up to the last sending",
        sent=one_by_one(*range(1, 31)),
        arrived=at_once(*range(1, 11)),
        counted=30,
        lost=20,
        gap_ms=20,
    ),
    Case(
        description="what is late in coming at first is a gap from the first sending",
        sent=one_by_one(*range(1, 31)),
        arrived=tuple((n, n) for n in range(21, 31)),
        counted=30,
        lost=20,
        gap_ms=20,
    ),
    Case(
        description="every further copy is a duplicate",
        sent=one_by_one(1, 2, 3),
        arrived=((1, 1), (2, 2), (2, 2), (2, 3), (3, 3)),
        counted=3,
        duplicated=2,
        gap_ms=1,
    ),
    Case(
        description="a copy that comes after the window is a duplicate too",
        sent=one_by_one(*range(1, 10)),
        arrived=(*at_once(*range(1, 10)), (2, 50)),
        window=(1, 4),
        counted=3,
        duplicated=1,
        gap_ms=1,
    ),
    Case(
        description="one that is overtaken is reordered",
        sent=one_by_one(1, 2, 3),
        arrived=at_once(1, 3, 2),
        counted=3,
        reordered=1,
        gap_ms=1,
    ),
    Case(
        description="two that are overtaken by one are two",
        sent=one_by_one(1, 2, 3),
        arrived=at_once(3, 1, 2),
        counted=3,
        reordered=2,
        gap_ms=1,
    ),
    Case(
        description="a late second copy is duplicated, not reordered",
        sent=one_by_one(1, 2),
        arrived=at_once(1, 2, 1),
        counted=2,
        duplicated=1,
        gap_ms=1,
    ),
    Case(
        description="of a late number only the first copy is reordered",
        sent=one_by_one(1, 2),
        arrived=at_once(2, 1, 1),
        counted=2,
        duplicated=1,
        reordered=1,
        gap_ms=1,
    ),
    Case(
        description="overtaken by a number from outside the window counts",
        sent=one_by_one(1, 2, 3, 4),
        arrived=at_once(1, 4, 2, 3),
        window=(2, 4),
        counted=2,
        reordered=2,
        gap_ms=1,
    ),
    Case(
        description="a reordering outside the window does not count",
        sent=one_by_one(1, 2, 3, 4),
        arrived=at_once(2, 1, 3, 4),
        window=(3, 5),
        counted=2,
        gap_ms=1,
    ),
    Case(
        description="the window has its first instant and not its last",
        sent=one_by_one(*range(1, 10)),
        arrived=((1, 1), (9, 9)),
        window=(3, 6),
        counted=3,
        lost=3,
        gap_ms=8,
    ),
    Case(
        description="an arrival after the window is no loss",
        sent=one_by_one(1, 2, 3),
        arrived=((1, 1), (2, 2), (3, 500)),
        window=(0, 4),
        counted=3,
        gap_ms=498,
    ),
    Case(
        description="a gap that only touches the window counts in full",
        sent=one_by_one(*range(1, 101)),
        arrived=tuple((n, n) for n in (*range(1, 41), *range(60, 101))),
        window=(59, 100),
        counted=41,
        lost=1,
        gap_ms=20,
    ),
    Case(
        description="a gap outside the window does not",
        sent=one_by_one(*range(1, 101)),
        arrived=tuple((n, n) for n in (*range(1, 41), *range(60, 101))),
        window=(60, 100),
        counted=40,
        gap_ms=1,
    ),
    Case(
        description="a window after the last sending is empty",
        sent=one_by_one(1, 2, 3),
        arrived=at_once(1, 2),
        window=(500, 600),
        counted=0,
        gap_ms=0,
    ),
    Case(
        description="numbers that were never sent are no arrivals of any",
        sent=((10, 2, 1), (20, 2, 2)),
        arrived=((0, 1), (10, 1), (11, 1), (15, 1), (20, 2), (21, 2)),
        counted=4,
        gap_ms=1,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.description)
def test_account(case: Case) -> None:
    """Each number of the window is accounted for once, in the right place."""
    sent = Sent(
        first_seq=[first for first, _, _ in case.sent],
        count=[count for _, count, _ in case.sent],
        t_ns=[t * MS for _, _, t in case.sent],
    )
    received = Received(
        seq=[number for number, _ in case.arrived],
        t_ns=[t * MS for _, t in case.arrived],
    )
    start, end = case.window
    assert account(sent, received, start * MS, end * MS) == Outcome(
        sent=case.counted,
        received=case.counted - case.lost,
        lost=case.lost,
        duplicated=case.duplicated,
        reordered=case.reordered,
        gap_s=case.gap_ms / 1e3,
    )


def test_without_a_window_everything_counts() -> None:
    """The whole stream is accounted for when no window is given."""
    sent = Sent(first_seq=[1, 3], count=[2, 2], t_ns=[5, 2**62])
    received = Received(seq=[1, 2, 4], t_ns=[6, 6, 2**62 + 1])
    outcome = account(sent, received)
    assert (outcome.sent, outcome.lost) == (4, 1)
    assert sent.total == 4


def test_a_million_packets_are_accounted_for_in_time() -> None:
    """A million packets, as arrays from a real stream, take a second or so."""
    million = 1_000_000
    sent = Sent(
        first_seq=array("Q", range(0, million, 10)),
        count=array("Q", [10]) * (million // 10),
        t_ns=array("Q", range(0, million, 10)),
    )
    seq = array("Q", range(million))
    del seq[97]
    begun = time.monotonic()
    outcome = account(sent, Received(seq=seq, t_ns=seq))
    assert time.monotonic() - begun < 3
    assert (outcome.sent, outcome.lost, outcome.gap_s) == (million, 1, 2e-9)
