# SPDX-License-Identifier: GPL-2.0-or-later
"""fo_cas and what ProgramSet makes of it: the controller's hand on the word."""

import time
from itertools import product

import pytest

from pyfailover.datapath import abi, libbpf
from pyfailover.datapath.abi import CasVerdict
from pyfailover.model import MAX_SLAVES, NOBODY, Word
from tests.support.progrun import GROUP, MAX_GROUPS, Bench

BEFORE = Word(generation=96, active=0, left=0b1000, approved=0b11)
AFTER = Word(generation=97, active=1, left=0b100, approved=0b11)
ELSE = Word(generation=97, active=0, left=0b10, approved=0b11, by_kernel=True)


def ask(bench: Bench, request: bytes) -> CasVerdict:
    """Hand a request to the program as it is."""
    fd = bench.programs.program("fo_cas")
    return CasVerdict(libbpf.run(fd, request).retval)


def request(
    *,
    group: int = GROUP,
    expected: Word = BEFORE,
    desired: Word = AFTER,
    grace_slot: int = abi.NO_SLOT,
    grace_ns: int = 0,
) -> bytes:
    """A struct fo_cas_request."""
    return bytes(
        abi.CasRequest(
            group=group,
            grace_slot=grace_slot,
            expected=abi.pack_word(expected),
            desired=abi.pack_word(desired),
            grace_ns=grace_ns,
        )
    )


def test_swapped(bench: Bench) -> None:
    """The expected word is replaced by the desired one, the grace stays."""
    bench.arrange(BEFORE, grace=(7, 1))
    grace = bench.state().grace
    assert ask(bench, request()) is CasVerdict.SWAPPED
    assert bench.programs.word(GROUP) == AFTER
    assert bench.state().grace == grace != 0


def test_refused(bench: Bench) -> None:
    """Another word than the expected one stays."""
    bench.arrange(ELSE)
    assert ask(bench, request()) is CasVerdict.REFUSED
    assert bench.programs.word(GROUP) == ELSE


@pytest.mark.parametrize("bit", range(64))
def test_every_bit_counts(bench: Bench, bit: int) -> None:
    """A word that differs in a single bit is not the expected one."""
    bench.arrange(BEFORE)
    other = abi.CasRequest.from_buffer_copy(request())
    other.expected ^= 1 << bit
    assert ask(bench, bytes(other)) is CasVerdict.REFUSED
    assert bench.programs.word(GROUP) == BEFORE


@pytest.mark.parametrize("group", [MAX_GROUPS, 2**31, 2**32 - 1])
def test_no_such_group(bench: Bench, group: int) -> None:
    """A group that the maps have no room for changes nothing anywhere."""
    bench.arrange(BEFORE)
    assert ask(bench, request(group=group)) is CasVerdict.NO_GROUP
    words = [bench.programs.word(index) for index in range(MAX_GROUPS)]
    assert words[GROUP] == BEFORE
    assert words.count(NOBODY) == MAX_GROUPS - 1


@pytest.mark.parametrize("length", [14, 16, 24, 31])
def test_short_request(bench: Bench, length: int) -> None:
    """A request that is cut short is refused as bad, the word as it was."""
    bench.arrange(BEFORE)
    assert ask(bench, request()[:length]) is CasVerdict.BAD_REQUEST
    assert bench.programs.word(GROUP) == BEFORE


def test_request_is_not_taken_for_a_packet(bench: Bench) -> None:
    """No word that can be expected looks to the kernel like too short a packet."""
    bench.arrange(NOBODY)
    now = NOBODY
    for active, left in product((None, *range(MAX_SLAVES)), range(256)):
        word = Word(generation=97, active=active, left=left)
        assert bench.programs.swap(GROUP, now, word)
        now = word
    assert bench.programs.word(GROUP) == now


@pytest.mark.parametrize("slot", range(8))
def test_grace_is_written(bench: Bench, slot: int) -> None:
    """The grace holds the slot that was left, and an end so far from now."""
    bench.arrange(BEFORE)
    begun = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    ns = 100_000_000
    assert ask(bench, request(grace_slot=slot, grace_ns=ns)) is CasVerdict.SWAPPED
    ended = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    grace = bench.state().grace
    assert grace >> 56 == slot
    assert (begun + ns) >> 10 <= grace & (1 << 56) - 1 <= (ended + ns) >> 10


@pytest.mark.parametrize("slot", [8, abi.NO_SLOT, 2**32 - 1])
def test_no_slot_leaves_the_grace(bench: Bench, slot: int) -> None:
    """Without a slot that was left the running grace is not touched."""
    bench.arrange(BEFORE, grace=(5, 60_000))
    grace = bench.state().grace
    assert ask(bench, request(grace_slot=slot, grace_ns=1)) is CasVerdict.SWAPPED
    assert bench.state().grace == grace
    assert grace >> 56 == 5


def test_swap_says_what_became_of_it(bench: Bench) -> None:
    """swap() is true when the word was replaced, and false when it was not."""
    bench.arrange(BEFORE)
    assert bench.programs.swap(GROUP, BEFORE, AFTER)
    assert not bench.programs.swap(GROUP, BEFORE, ELSE)
    assert bench.programs.word(GROUP) == AFTER


def test_change_decides_again(bench: Bench) -> None:
    """A step in the midst of a change is kept: the change is decided anew."""
    bench.arrange(BEFORE)
    seen = []

    def decide(word: Word) -> Word:
        seen.append(word)
        if len(seen) == 1:
            assert bench.programs.swap(GROUP, BEFORE, ELSE)
        return Word(generation=word.generation + 1, active=1, left=word.left)

    before, after = bench.programs.change(GROUP, decide)
    assert seen == [BEFORE, ELSE]
    assert before == ELSE
    assert after == Word(generation=98, active=1, left=0b10)
    assert bench.programs.word(GROUP) == after


def test_change_gives_grace_to_the_slave_it_leaves(bench: Bench) -> None:
    """A change of the active slave starts the grace of the one before, for as many
    milliseconds as were asked for."""
    bench.arrange(BEFORE)
    begun = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    bench.programs.change(GROUP, lambda _: AFTER, grace_ms=100)
    ended = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    grace = bench.state().grace
    assert grace >> 56 == BEFORE.active
    until = grace & (1 << 56) - 1
    assert (begun + 100_000_000) >> 10 <= until <= (ended + 100_000_000) >> 10


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (BEFORE, Word(generation=97, active=0, approved=0b1)),
        (Word(generation=96, active=None, approved=0b11), AFTER),
    ],
    ids=["the active slave stays", "nobody was active"],
)
def test_change_gives_no_grace(bench: Bench, before: Word, after: Word) -> None:
    """A change that leaves no slave starts no grace."""
    bench.arrange(before, grace=(6, 0))
    grace = bench.state().grace
    bench.programs.change(GROUP, lambda _: after, grace_ms=60_000)
    assert bench.programs.word(GROUP) == after
    assert bench.state().grace == grace
