# SPDX-License-Identifier: GPL-2.0-or-later
"""A carrier that is lost may come back within the down-delay; until then the frames
are dropped, and no other slave is taken."""

import time

import pytest

from pyfailover.model import Word
from tests.support import frames
from tests.support.progrun import (
    CARRIER_TEST_ALONE,
    GROUP,
    OURS,
    Bench,
    Link,
    Verdict,
)

TX, RX = ("fo_stack_tx", "fo_wire_tx"), ("fo_stack_rx", "fo_wire_rx")
OUT = frames.udp4(frames.PEER, src=OURS)
IN = frames.udp4(OURS)
BEFORE = Word(generation=97, active=0, approved=0b111)
AFTER = Word(generation=98, active=1, left=0b1, approved=0b111, by_kernel=True)
MINUTE = 60_000  # in ms: longer than this test


def arrange(bench: Bench, delay_ms: int, word: Word = BEFORE) -> None:
    """A group of three slaves with a down-delay."""
    bench.arrange(word, plugged=(0, 1, 2))
    bench.programs.set_down_delay(GROUP, delay_ms)


def send(bench: Bench, program: str = "fo_stack_tx") -> Verdict:
    """What becomes of a frame out of the master, or one that came to slave 1."""
    if program in TX:
        return Verdict(bench.run(program, OUT, bench.master).retval)
    return Verdict(bench.run(program, IN, bench.slave(1)).retval)


def lose(bench: Bench) -> int:
    """Have the programs see that slave 0 lost its carrier: when they did."""
    bench.set_link(bench.slave(0), Link.NO_CARRIER)
    send(bench)
    lost_ns: int = bench.state().lost_ns
    assert lost_ns
    return lost_ns


@CARRIER_TEST_ALONE
@pytest.mark.parametrize("program", TX + RX)
def test_within_the_delay(bench: Bench, program: str) -> None:
    """Frames are dropped and counted, the word stays, and the moment when the loss
    was seen first is kept."""
    arrange(bench, MINUTE)
    bench.set_link(bench.slave(0), Link.NO_CARRIER)
    begun = time.monotonic_ns()
    assert send(bench, program) is Verdict.SHOT
    ended = time.monotonic_ns()
    lost_ns = bench.state().lost_ns
    assert begun <= lost_ns <= ended
    assert send(bench, program) is Verdict.SHOT
    assert bench.state().lost_ns == lost_ns
    assert bench.programs.word(GROUP) == BEFORE
    assert bench.tally() == (
        {(GROUP, None): {"tx_drop_no_active": 2}}
        if program in TX
        else {(GROUP, 1): {"rx_drop_inactive": 2}}
    )


@CARRIER_TEST_ALONE
@pytest.mark.parametrize("program", TX + RX)
@pytest.mark.parametrize("delay_ms", [1, 50])
def test_after_the_delay(bench: Bench, program: str, delay_ms: int) -> None:
    """The slave is left as soon as the delay is over, and not before."""
    arrange(bench, delay_ms)
    lost_ns = lose(bench)
    deadline = time.monotonic() + 10
    while (verdict := send(bench, program)) is Verdict.SHOT:
        assert time.monotonic() < deadline, "it never stepped"
    assert verdict is Verdict.REDIRECT
    assert bench.programs.word(GROUP) == AFTER
    assert bench.state().stepped_ns - lost_ns >= delay_ms * 1_000_000
    assert bench.state().lost_ns == 0


@CARRIER_TEST_ALONE
@pytest.mark.parametrize("program", TX + RX)
def test_back_in_time(bench: Bench, program: str) -> None:
    """A frame that finds the carrier back ends the matter, also where nothing is ever
    sent: the next loss has all of the delay before it."""
    arrange(bench, MINUTE)
    lose(bench)
    bench.set_link(bench.slave(0), Link.READY)
    send(bench, program)
    assert bench.state().lost_ns == 0
    assert bench.programs.word(GROUP) == BEFORE


@CARRIER_TEST_ALONE
@pytest.mark.parametrize("program", RX)
def test_back_in_time_and_heard(bench: Bench, program: str) -> None:
    """So does a frame that arrives on the active slave itself."""
    arrange(bench, MINUTE)
    lose(bench)
    heard = Verdict(bench.run(program, IN, bench.slave(0)).retval)
    assert heard is Verdict.REDIRECT  # it was on its way when the carrier went
    assert bench.state().lost_ns
    bench.set_link(bench.slave(0), Link.READY)
    bench.run(program, IN, bench.slave(0))
    assert bench.state().lost_ns == 0
    assert bench.programs.word(GROUP) == BEFORE


@CARRIER_TEST_ALONE
@pytest.mark.parametrize("program", TX + RX)
@pytest.mark.parametrize("seen", [False, True], ids=["at first", "carrier lost first"])
def test_set_down(bench: Bench, program: str, seen: bool) -> None:
    """A slave that is set down is left at once: nobody lost anything."""
    arrange(bench, MINUTE)
    if seen:
        lose(bench)
    bench.set_link(bench.slave(0), Link.DOWN)
    assert send(bench, program) is Verdict.REDIRECT
    assert bench.programs.word(GROUP) == AFTER
    assert bench.state().lost_ns == 0


@pytest.mark.parametrize("program", TX + RX)
def test_taken_away(bench: Bench, program: str) -> None:
    """So is one that is no longer there, by both kinds."""
    arrange(bench, MINUTE)
    bench.programs.unseat(GROUP, 0)
    assert send(bench, program) is Verdict.REDIRECT
    assert bench.programs.word(GROUP) == AFTER


@CARRIER_TEST_ALONE
@pytest.mark.parametrize("program", TX)
def test_nobody_else(bench: Bench, program: str) -> None:
    """After the delay there may be nobody: the loss stays as old as it is, and whoever
    returns carries at once."""
    arrange(bench, 1)
    lost_ns = lose(bench)
    for slot in (1, 2):
        bench.set_link(bench.slave(slot), Link.NO_CARRIER)
    while time.monotonic_ns() < lost_ns + 2_000_000:
        assert send(bench, program) is Verdict.SHOT
    assert send(bench, program) is Verdict.SHOT
    assert bench.state().lost_ns == lost_ns
    bench.set_link(bench.slave(2), Link.READY)
    assert send(bench, program) is Verdict.REDIRECT
    assert bench.programs.word(GROUP).active == 2


@CARRIER_TEST_ALONE
@pytest.mark.parametrize("active", [None, 8], ids=["nobody", "beyond the slots"])
def test_without_an_active_slave(bench: Bench, active: int | None) -> None:
    """Where nobody is active there is nothing to wait for."""
    arrange(bench, MINUTE, Word(generation=97, active=active, approved=0b10))
    assert send(bench) is Verdict.REDIRECT
    assert bench.programs.word(GROUP).active == 1


@CARRIER_TEST_ALONE
@pytest.mark.parametrize(
    ("desired", "kept"),
    [
        (Word(generation=98, active=0, left=0b10, approved=0b1), True),
        (Word(generation=98, active=1, approved=0b111), False),
        (Word(generation=98, active=None, approved=0b111), False),
    ],
    ids=["the same slave", "another slave", "nobody"],
)
def test_the_controllers_change(bench: Bench, desired: Word, kept: bool) -> None:
    """A change of the active slave forgets the loss of the one before; another change
    does not, and one that is refused changes nothing."""
    arrange(bench, MINUTE)
    lost_ns = lose(bench)
    assert not bench.programs.swap(GROUP, AFTER, desired)
    assert bench.state().lost_ns == lost_ns
    assert bench.programs.swap(GROUP, BEFORE, desired)
    assert bench.state().lost_ns == (lost_ns if kept else 0)


def test_the_delay_is_the_groups(bench: Bench) -> None:
    """A delay is written in ns beside the slaves, which stay; an opened group has
    none, and one whose slaves change keeps it."""
    arrange(bench, 0)
    seats = bytes(bench.seats())
    bench.programs.set_down_delay(GROUP, 97)
    assert bench.seats().down_delay_ns == 97_000_000
    assert bytes(bench.seats())[:-8] == seats[:-8]
    bench.programs.unseat(GROUP, 1)
    bench.programs.seat(GROUP, 3, bench.slave(3).ifindex)
    assert bench.seats().down_delay_ns == 97_000_000
    assert bench.seats(GROUP - 1).down_delay_ns == 0
    bench.programs.open_group(GROUP)
    assert bench.seats().down_delay_ns == 0
