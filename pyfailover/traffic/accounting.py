# SPDX-License-Identifier: GPL-2.0-or-later
"""What became of numbered packets: lost, duplicated, reordered, and the gaps.

Pure: no sockets, no clock, no files. All times are nanoseconds of
CLOCK_MONOTONIC, which is the same in all network namespaces of a host.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from operator import sub

# A window with no edges of its own.
FIRST_NS = 0
LAST_NS = 2**63 - 1

# What is known of a number between the lowest and the highest of the window.
_WAITING, _ARRIVED, _NOT_SENT = range(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a sender sent, in the order of sending, a batch per place.

    Batch i has `count[i]` packets with numbers from `first_seq[i]` up, sent at
    `t_ns[i]`. `refused` of all numbers were refused by the sender's own stack
    (no route, no buffer); they count as sent, for a user has lost them.
    `moved_ns` is when the sender took to another link; numbers sent since then
    went there, all others did not.
    """

    first_seq: Sequence[int]
    count: Sequence[int]
    t_ns: Sequence[int]
    refused: int = 0
    moved_ns: int | None = None

    @property
    def total(self) -> int:
        """How many numbers were sent in all."""
        return sum(self.count)

    @property
    def rate(self) -> float:
        """Numbers a second; 0 for less than two batches."""
        if len(self.t_ns) < 2:
            return 0.0
        # The time that the last batch took is not known.
        return (self.total - self.count[-1]) * 1e9 / (self.t_ns[-1] - self.t_ns[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What a receiver got, in the order of arrival, a packet per place.

    `overflowed` more arrived, but the receiver was too slow for them.
    """

    seq: Sequence[int]
    t_ns: Sequence[int]
    overflowed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The account of the numbers sent in a window; `sent = received + lost`."""

    sent: int
    received: int
    lost: int
    duplicated: int
    reordered: int
    gap_s: float


def account(
    sent: Sent,
    received: Received,
    start_ns: int = FIRST_NS,
    end_ns: int = LAST_NS,
) -> Outcome:
    """Account for the numbers sent at start_ns <= t < end_ns.

    A number is lost if it never arrived, however late; a further copy of it is
    a duplicate; its first copy is reordered if a higher number (of the window
    or not) had arrived before. `gap_s` is that of `longest_gap_s`, and time in
    which nobody was sending is no gap.
    """
    first = bisect_left(sent.t_ns, start_ns)
    last = bisect_left(sent.t_ns, end_ns)
    starts = sent.first_seq[first:last]
    counts = sent.count[first:last]
    arrived, duplicated, reordered = _arrivals(received.seq, starts, counts)
    total = sum(counts)
    gap_s = 0.0
    if sent.t_ns:
        gap_s = longest_gap_s(
            received.t_ns, max(start_ns, sent.t_ns[0]), min(end_ns, sent.t_ns[-1])
        )
    return Outcome(
        sent=total,
        received=arrived,
        lost=total - arrived,
        duplicated=duplicated,
        reordered=reordered,
        gap_s=gap_s,
    )


def longest_gap_s(t_ns: Sequence[int], start_ns: int, end_ns: int) -> float:
    """The longest time between consecutive arrivals that touches the window.

    Where no arrival lies before (or after) the window, its edge stands in for
    one: an outage that never ended must not vanish from the account.
    """
    if end_ns <= start_ns:
        return 0.0
    before = bisect_right(t_ns, start_ns) - 1
    after = bisect_left(t_ns, end_ns)
    marks = list(t_ns[max(before, 0) : after + 1])
    if before < 0:
        marks.insert(0, start_ns)
    if after == len(t_ns):
        marks.append(end_ns)
    longest: int = max(map(sub, marks[1:], marks))
    return longest / 1e9


def _arrivals(
    arrivals: Sequence[int], starts: Sequence[int], counts: Sequence[int]
) -> tuple[int, int, int]:
    """How many of the numbers arrived, came again, came late."""
    low = min(starts, default=0)
    high = max(map(int.__add__, starts, counts), default=0)
    state = bytearray([_NOT_SENT]) * (high - low)
    for start, count in zip(starts, counts, strict=True):
        state[start - low : start - low + count] = bytes([_WAITING]) * count
    duplicated = reordered = 0
    highest = -1
    for number in arrivals:
        if low <= number < high:
            place = number - low
            if state[place] == _WAITING:
                state[place] = _ARRIVED
                if number < highest:
                    reordered += 1
            elif state[place] == _ARRIVED:
                duplicated += 1
        if number > highest:
            highest = number
    return state.count(_ARRIVED), duplicated, reordered
