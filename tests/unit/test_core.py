# SPDX-License-Identifier: GPL-2.0-or-later
"""The word: what a switch and a joining slave make of it, and how it is packed."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfailover import core
from pyfailover.datapath import abi
from pyfailover.datapath.abi import pack_word, unpack_word
from pyfailover.model import MAX_SLAVES, NOBODY, Word

LAST = 2**32 - 1

WORDS = st.builds(
    Word,
    generation=st.integers(0, LAST),
    active=st.none() | st.integers(0, MAX_SLAVES - 1),
    left=st.integers(0, 0xFF),
    approved=st.integers(0, 0xFF),
    by_kernel=st.booleans(),
)
SLOTS = st.integers(0, MAX_SLAVES - 1)


def word(
    generation: int, active: int | None, left: int, approved: int, by: str = "user"
) -> Word:
    """A word in one line."""
    return Word(
        generation=generation,
        active=active,
        left=left,
        approved=approved,
        by_kernel=by == "kernel",
    )


@dataclass(frozen=True, kw_only=True)
class Case:
    """A word, and what becomes of it when something happens to a slot."""

    description: str
    before: Word
    slot: int
    after: Word


SWITCHED = [
    Case(
        description="from one slave to another",
        before=word(7, 0, 0, 0b11),
        slot=1,
        after=word(8, 1, 0, 0b11),
    ),
    Case(
        description="a slave that was left is given back",
        before=word(7, 1, 0b101, 0b111, "kernel"),
        slot=0,
        after=word(8, 0, 0b100, 0b111),
    ),
    Case(
        description="the operator approves by it",
        before=word(7, 0, 0, 0b1),
        slot=7,
        after=word(8, 7, 0, 0b1000_0001),
    ),
    Case(
        description="from nobody",
        before=NOBODY,
        slot=3,
        after=word(1, 3, 0, 0b1000),
    ),
    Case(
        description="the generation begins again",
        before=word(LAST, 0, 0, 0b11),
        slot=1,
        after=word(0, 1, 0, 0b11),
    ),
]

READY = [
    Case(
        description="beside an active one: approved, no more",
        before=word(7, 0, 0, 0b1),
        slot=1,
        after=word(8, 0, 0, 0b11),
    ),
    Case(
        description="the primary does not take the traffic back",
        before=word(7, 1, 0b1, 0b10, "kernel"),
        slot=0,
        after=word(8, 1, 0, 0b11, "kernel"),
    ),
    Case(
        description="with nobody active it is",
        before=word(7, None, 0b110, 0b100, "kernel"),
        slot=1,
        after=word(8, 1, 0b100, 0b110),
    ),
    Case(
        description="the active one again",
        before=word(7, 1, 0b1, 0b11, "kernel"),
        slot=1,
        after=word(8, 1, 0b1, 0b11),
    ),
    Case(
        description="the generation begins again",
        before=word(LAST, 0, 0, 0b1),
        slot=1,
        after=word(0, 0, 0, 0b11),
    ),
]

NOT_READY = [
    Case(
        description="beside an active one: not approved",
        before=word(7, 0, 0b10, 0b11),
        slot=1,
        after=word(8, 0, 0, 0b1),
    ),
    Case(
        description="with nobody active there still is nobody",
        before=NOBODY,
        slot=0,
        after=word(1, None, 0, 0),
    ),
    Case(
        description="the active one stays so: nothing better is known",
        before=word(7, 1, 0, 0b11),
        slot=1,
        after=word(8, 1, 0, 0b1),
    ),
]


@pytest.mark.parametrize("case", SWITCHED, ids=lambda case: case.description)
def test_switched(case: Case) -> None:
    """A switch makes the slot active, approved and not left, by the user."""
    assert core.switched(case.before, case.slot) == case.after


@pytest.mark.parametrize("case", READY, ids=lambda case: case.description)
def test_joined_ready(case: Case) -> None:
    """A ready slave that joins may be stepped to, and is active if nobody was."""
    assert core.joined(case.before, case.slot, ready=True) == case.after


@pytest.mark.parametrize("case", NOT_READY, ids=lambda case: case.description)
def test_joined_not_ready(case: Case) -> None:
    """A slave that joins without a link may not be stepped to."""
    assert core.joined(case.before, case.slot, ready=False) == case.after


@given(WORDS, SLOTS, st.sampled_from(["switch", "ready", "not ready"]))
def test_other_slots_are_let_be(before: Word, slot: int, what: str) -> None:
    """Whatever happens to a slot, the bits of the others stay, and every change is
    one generation."""
    after = (
        core.switched(before, slot)
        if what == "switch"
        else core.joined(before, slot, ready=what == "ready")
    )
    others = 0xFF & ~(1 << slot)
    assert after.left & others == before.left & others
    assert after.approved & others == before.approved & others
    assert not after.left >> slot & 1
    assert after.generation == (before.generation + 1) % 2**32
    assert after.active in (before.active, slot)


@given(WORDS)
def test_packed_and_unpacked(before: Word) -> None:
    """A word is the same after a way through its u64."""
    raw = pack_word(before)
    assert 0 <= raw < 2**64
    assert unpack_word(raw) == before


@given(
    st.integers(0, LAST),
    st.sampled_from([*range(MAX_SLAVES), abi.NO_SLOT]),
    st.integers(0, 2**16 - 1),
    st.integers(0, 1),
)
def test_unpacked_and_packed(generation: int, active: int, masks: int, by: int) -> None:
    """A u64 that a program can make is the same after a way through its word."""
    raw = generation | active << 32 | masks << 40 | by << 56
    assert pack_word(unpack_word(raw)) == raw


@pytest.mark.parametrize(
    ("raw", "unpacked"),
    [
        (0x00_00_00_FF_00000000, NOBODY),
        (0x00_00_00_00_00000001, word(1, 0, 0, 0)),
        (0x01_83_04_07_DEADBEEF, word(0xDEADBEEF, 7, 0x04, 0x83, "kernel")),
        (0x00_FF_FF_FF_FFFFFFFF, word(LAST, None, 0xFF, 0xFF)),
    ],
)
def test_packed_by_hand(raw: int, unpacked: Word) -> None:
    """The fields are where failover.h has them."""
    assert pack_word(unpacked) == raw
    assert unpack_word(raw) == unpacked
