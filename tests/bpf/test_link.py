# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs look at the links themselves: a slave that dies is left with the next
frame, by itself and for good."""

import pytest

from pyfailover.model import Word
from tests.support import frames
from tests.support.progrun import (
    CARRIER_TEST_ALONE,
    GROUP,
    OURS,
    Bench,
    Kind,
    Link,
    Tally,
    Verdict,
)

TX = pytest.mark.parametrize("program", ["fo_stack_tx", "fo_wire_tx"])
RX = pytest.mark.parametrize("program", ["fo_stack_rx", "fo_wire_rx"])
LOSS = pytest.mark.parametrize("loss", [Link.NO_CARRIER, Link.DOWN])
OUT = frames.udp4(frames.PEER, src=OURS)
IN = frames.udp4(OURS)

BEFORE = Word(generation=97, active=0, approved=0b111)
AFTER = Word(generation=98, active=1, left=0b1, approved=0b111, by_kernel=True)


def sent(bench: Bench, program: str, *, frames: int = 1) -> Verdict:
    """What becomes of frames out of the master, of the last one."""
    return Verdict(bench.run(program, OUT, bench.master, repeat=frames).retval)


def received(bench: Bench, program: str, slot: int) -> Verdict:
    """What becomes of a frame that arrives on a slave."""
    return Verdict(bench.run(program, IN, bench.slave(slot)).retval)


def out(number: int) -> dict[str, int]:
    """Counters of a slave that carried so many frames."""
    return {"tx_packets": number, "tx_bytes": number * len(OUT)}


@CARRIER_TEST_ALONE
@TX
@LOSS
def test_the_next_frame_leaves_by_the_standby(
    bench: Bench, program: str, loss: Link
) -> None:
    """Of the frames after a loss not one is dropped; the slave is left once."""
    bench.arrange(BEFORE, plugged=(0, 1, 2))
    assert sent(bench, program, frames=23) is Verdict.REDIRECT
    assert bench.programs.word(GROUP) == BEFORE
    bench.set_link(bench.slave(0), loss)
    assert sent(bench, program, frames=97) is Verdict.REDIRECT
    assert bench.programs.word(GROUP) == AFTER
    assert bench.tally() == {(GROUP, 0): out(23) | {"left": 1}, (GROUP, 1): out(97)}


@CARRIER_TEST_ALONE
@RX
@LOSS
def test_a_host_that_only_receives(bench: Bench, program: str, loss: Link) -> None:
    """A frame on the standby that follows moves the word and is taken; one on a
    slave that does not follow moves it too, and is dropped."""
    taken = {"rx_packets": 1, "rx_bytes": len(IN)}
    for slot, verdict, counted in (
        (1, Verdict.REDIRECT, taken),
        (2, Verdict.SHOT, {"rx_drop_inactive": 1}),
    ):
        bench.clear()
        bench.arrange(BEFORE, plugged=(0, 1, 2))
        bench.set_link(bench.slave(0), loss)
        assert received(bench, program, slot) is verdict
        assert bench.programs.word(GROUP) == AFTER
        assert bench.tally() == {(GROUP, 0): {"left": 1}, (GROUP, slot): counted}


@CARRIER_TEST_ALONE
@RX
def test_nobody_looks_while_the_active_slave_lives(bench: Bench, program: str) -> None:
    """A frame on another slave moves nothing, whatever that slave's own rank."""
    word = Word(generation=97, active=1, approved=0b11)
    bench.arrange(word, plugged=(0, 1))
    assert received(bench, program, 0) is Verdict.SHOT
    assert bench.programs.word(GROUP) == word


@CARRIER_TEST_ALONE
@TX
@LOSS
def test_a_slave_that_returns_at_once_stays_left(
    bench: Bench, program: str, loss: Link
) -> None:
    """Its carrier back right after the step, its frames are not taken and ours go
    the new way: back is the controller's to say. So is it once the new one dies."""
    bench.arrange(BEFORE, plugged=(0, 1, 2))
    bench.set_link(bench.slave(0), loss)
    sent(bench, program)
    bench.set_link(bench.slave(0), Link.READY)
    assert sent(bench, program, frames=23) is Verdict.REDIRECT
    assert received(bench, program.replace("tx", "rx"), 0) is Verdict.SHOT
    assert bench.programs.word(GROUP) == AFTER
    bench.set_link(bench.slave(1), loss)
    assert sent(bench, program) is Verdict.REDIRECT
    assert bench.programs.word(GROUP) == Word(
        generation=99, active=2, left=0b11, approved=0b111, by_kernel=True
    )


@CARRIER_TEST_ALONE
@TX
def test_a_loss_that_no_frame_saw(bench: Bench, program: str) -> None:
    """A carrier that was away between two frames leaves no trace."""
    bench.arrange(BEFORE, plugged=(0, 1))
    sent(bench, program)
    for loss in (Link.NO_CARRIER, Link.DOWN):
        bench.set_link(bench.slave(0), loss)
        bench.set_link(bench.slave(0), Link.READY)
    sent(bench, program)
    assert bench.programs.word(GROUP) == BEFORE
    assert bench.tally() == {(GROUP, 0): out(2)}


RETURNS = {
    "the active slave: no step": (0, Word(generation=97, active=0, left=0b100)),
    "one that was approved": (
        1,
        Word(generation=98, active=1, left=0b101, by_kernel=True),
    ),
    "one that had been left": (
        2,
        Word(generation=98, active=2, left=0b1, by_kernel=True),
    ),
    "one that was never approved": (
        3,
        Word(generation=98, active=3, left=0b101, by_kernel=True),
    ),
}


@pytest.fixture
def all_dead(bench: Bench) -> Word:
    """A group of four slaves, each of which died in some way."""
    before = Word(generation=97, active=0, left=0b100, approved=0b111)
    bench.arrange(before, plugged=(0, 1, 2, 3))
    for slot, loss in enumerate([Link.NO_CARRIER, Link.DOWN] * 2):
        bench.set_link(bench.slave(slot), loss)
    return before


@CARRIER_TEST_ALONE
@TX
@pytest.mark.parametrize(("slot", "after"), RETURNS.values(), ids=RETURNS)
def test_all_dead(
    bench: Bench, all_dead: Word, program: str, slot: int, after: Word
) -> None:
    """Without a slave that lives frames are dropped and counted, the word as it was;
    the first one that returns carries, whatever the controller thinks of it."""
    assert sent(bench, program, frames=97) is Verdict.SHOT
    assert bench.programs.word(GROUP) == all_dead
    dropped: Tally = {(GROUP, None): {"tx_drop_no_active": 97}}
    assert bench.tally() == dropped
    bench.set_link(bench.slave(slot), Link.READY)
    assert sent(bench, program) is Verdict.REDIRECT
    now = bench.programs.word(GROUP)
    assert (now.active, now.left, now.generation, now.by_kernel, now.approved) == (
        slot,
        after.left,
        after.generation,
        after.by_kernel,
        0b111,
    )
    assert bench.tally()[GROUP, slot]["tx_packets"] == 1


@CARRIER_TEST_ALONE
@RX
@pytest.mark.parametrize(("slot", "after"), RETURNS.values(), ids=RETURNS)
def test_all_dead_and_one_is_heard(
    bench: Bench, all_dead: Word, program: str, slot: int, after: Word
) -> None:
    """The first one that returns is heard, without a frame of ours."""
    bench.set_link(bench.slave(slot), Link.READY)
    assert received(bench, program, slot) is Verdict.REDIRECT
    now = bench.programs.word(GROUP)
    assert (now.active, now.left) == (slot, after.left)


@CARRIER_TEST_ALONE
@TX
def test_a_thousand_flaps_are_one_step(bench: Bench, program: str) -> None:
    """The slave that flaps is left the first time; afterwards nobody looks at it."""
    bench.arrange(BEFORE, plugged=(0, 1))
    for _ in range(1000):
        bench.set_link(bench.slave(0), Link.NO_CARRIER)
        sent(bench, program)
        bench.set_link(bench.slave(0), Link.READY)
        sent(bench, program)
    assert bench.programs.word(GROUP) == AFTER
    assert bench.tally() == {(GROUP, 0): {"left": 1}, (GROUP, 1): out(2000)}


@CARRIER_TEST_ALONE
@TX
def test_two_that_flap_by_turns(bench: Bench, program: str) -> None:
    """With a third one each is left once; without, each loss of the active one is a
    step, since a live slave that should wait is better than none. Nothing is lost."""
    for plugged, steps in (((0, 1, 2), 2), ((0, 1), 97)):
        bench.arrange(BEFORE, plugged=plugged)
        for number in range(97):
            flapping = bench.slave(number % 2)
            bench.set_link(flapping, Link.NO_CARRIER)
            sent(bench, program)
            bench.set_link(flapping, Link.READY)
        assert bench.programs.word(GROUP).generation == 97 + steps
        tally = bench.tally()
        assert sum(seen.get("left", 0) for seen in tally.values()) == steps
        assert sum(seen.get("tx_packets", 0) for seen in tally.values()) == 97


@TX
@LOSS
def test_the_plain_programs_see_no_link(bench: Bench, program: str, loss: Link) -> None:
    """Without the carrier test a loss moves nothing: that waits for the controller."""
    bench.arrange(BEFORE, plugged=(0, 1, 2))
    bench.set_link(bench.slave(0), loss)
    sent(bench, program)
    moved = bench.kind is Kind.CARRIER_TEST
    assert bench.programs.word(GROUP) == (AFTER if moved else BEFORE)
