# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs' own hand on the word: away from a slave that is not ready, to the
next one."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import pytest

from pyfailover.datapath.abi import RxRule
from pyfailover.model import MAX_SLAVES, NOBODY, Word
from tests.support import frames
from tests.support.progrun import GROUP, OURS, Bench, Kind, KindCase, Link, Verdict

TX = ("fo_stack_tx", "fo_wire_tx")
RX = ("fo_stack_rx", "fo_wire_rx")
OUT = frames.udp4(frames.PEER, src=OURS)
IN = frames.arp_request()  # flooded: never taken by a grace
SENT = {"tx_packets": 1, "tx_bytes": len(OUT)}
TAKEN = {"rx_packets": 1, "rx_bytes": len(IN)}
DROPPED = {"rx_drop_inactive": 1}
LEFT = {"left": 1}


def word(active: int | None, *, left: int = 0, approved: int, gen: int = 97) -> Word:
    """A word of the controller."""
    return Word(generation=gen, active=active, left=left, approved=approved)


def stepped(active: int, *, left: int, approved: int, gen: int = 98) -> Word:
    """A word that a program made."""
    return Word(
        generation=gen, active=active, left=left, approved=approved, by_kernel=True
    )


@dataclass(frozen=True, kw_only=True)
class Case(KindCase):
    """A word with its slots, and what the first frame makes of it."""

    before: Word
    plugged: Sequence[int]
    after: Word | None = None  # None: as before
    slaves: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    lost: bool = False  # TX: the frame is dropped
    slot: int = 0  # RX: where the frame arrives
    rule: RxRule = RxRule.ACTIVE
    grace: tuple[int, int] | None = None


# Where nobody approved can follow, and links cannot be seen.
STAYS: Mapping[str, object] = {"after": None, "slaves": {}, "lost": True}

SENDING = [
    Case(
        description="from an empty active slot to the next",
        before=word(0, approved=0b11),
        plugged=(1,),
        after=stepped(1, left=0b1, approved=0b11),
        slaves={0: LEFT, 1: SENT},
    ),
    Case(
        description="from a standby up to the primary",
        before=word(1, approved=0b11),
        plugged=(0,),
        after=stepped(0, left=0b10, approved=0b11),
        slaves={1: LEFT, 0: SENT},
    ),
    Case(
        description="to the best by rank of several",
        before=word(3, approved=0xFF),
        plugged=(2, 4, 5, 7),
        after=stepped(2, left=0b1000, approved=0xFF),
        slaves={3: LEFT, 2: SENT},
    ),
    Case(
        description="not to one that is not approved",
        before=word(0, approved=0b1000_0001),
        plugged=(1, 2, 7),
        after=stepped(7, left=0b1, approved=0b1000_0001),
        slaves={0: LEFT, 7: SENT},
    ),
    Case(
        description="not to one that was left before",
        before=word(1, left=0b1, approved=0b111),
        plugged=(0, 2),
        after=stepped(2, left=0b11, approved=0b111),
        slaves={1: LEFT, 2: SENT},
    ),
    Case(
        description="not to an empty slot",
        before=word(0, approved=0b1111),
        plugged=(3,),
        after=stepped(3, left=0b1, approved=0b1111),
        slaves={0: LEFT, 3: SENT},
    ),
    Case(
        description="from nobody to one who is approved: nobody is left",
        before=word(None, approved=0b10),
        plugged=(0, 1),
        after=stepped(1, left=0, approved=0b10),
        slaves={1: SENT},
    ),
    Case(
        description="the generation begins again after 2^32 - 1",
        before=word(0, approved=0b101, gen=2**32 - 1),
        plugged=(2,),
        after=stepped(2, left=0b1, approved=0b101, gen=0),
        slaves={0: LEFT, 2: SENT},
    ),
    Case(
        description="one step after another keeps what was left",
        before=stepped(1, left=0b1, approved=0b111, gen=97),
        plugged=(2,),
        after=stepped(2, left=0b11, approved=0b111),
        slaves={1: LEFT, 2: SENT},
    ),
    Case(
        description="no step while the active one is there",
        before=word(1, approved=0b11),
        plugged=(0, 1),
        slaves={1: SENT},
    ),
]

LAST_RESORT = [
    Case(
        description="no other is approved",
        before=word(0, approved=0b1),
        plugged=(1, 2, 3),
        after=stepped(1, left=0b1, approved=0b1),
        slaves={0: LEFT, 1: SENT},
        plain=STAYS,
    ),
    Case(
        description="all others were left: the one taken is not left any more",
        before=word(0, left=0b110, approved=0b111),
        plugged=(1, 2),
        after=stepped(1, left=0b101, approved=0b111),
        slaves={0: LEFT, 1: SENT},
        plain=STAYS,
    ),
    Case(
        description="rank counts, and not who was left",
        before=word(4, left=0b10, approved=0b1_0010),
        plugged=(1, 7),
        after=stepped(1, left=0b1_0000, approved=0b1_0010),
        slaves={4: LEFT, 1: SENT},
        plain=STAYS,
    ),
    Case(
        description="rank counts, and not who was approved",
        before=word(4, left=0b1000_0000, approved=0b1001_0000),
        plugged=(2, 7),
        after=stepped(2, left=0b1001_0000, approved=0b1001_0000),
        slaves={4: LEFT, 2: SENT},
        plain=STAYS,
    ),
    Case(
        description="nobody is active, and nobody approved",
        before=NOBODY,
        plugged=(0, 1),
        after=stepped(0, left=0, approved=0, gen=1),
        slaves={0: SENT},
        plain=STAYS,
    ),
    Case(
        description="nobody is active, and the approved one was left",
        before=word(None, left=0b1, approved=0b1),
        plugged=(0,),
        after=stepped(0, left=0, approved=0b1),
        slaves={0: SENT},
        plain=STAYS,
    ),
]

NOWHERE = [
    Case(description=description, before=before, plugged=())
    for description, before in (
        ("the only slave", word(0, approved=0b1)),
        ("all others are empty", word(0, approved=0xFF)),
        ("all others were left", word(0, left=0b110, approved=0b111)),
        ("nobody", NOBODY),
    )
]

RECEIVING = [
    Case(
        description="the frame's own slave becomes active: it is taken",
        before=word(0, approved=0b11),
        plugged=(1,),
        slot=1,
        after=stepped(1, left=0b1, approved=0b11),
        slaves={0: LEFT, 1: TAKEN},
    ),
    Case(
        description="another slave becomes active: the frame is dropped",
        before=word(0, approved=0b111),
        plugged=(1, 2),
        slot=2,
        after=stepped(1, left=0b1, approved=0b111),
        slaves={0: LEFT, 2: DROPPED},
    ),
    Case(
        description="the frame's own slave is the last resort",
        before=word(0, approved=0b1),
        plugged=(1,),
        slot=1,
        after=stepped(1, left=0b1, approved=0b1),
        slaves={0: LEFT, 1: TAKEN},
        plain={"after": None, "slaves": {1: DROPPED}},
    ),
    Case(
        description="nobody can follow: the frame is dropped",
        before=word(0, approved=0b11),
        plugged=(),
        slot=1,
        slaves={1: DROPPED},
    ),
    Case(
        description="from nobody to the frame's slave",
        before=word(None, approved=0b10),
        plugged=(1,),
        slot=1,
        after=stepped(1, left=0, approved=0b10),
        slaves={1: TAKEN},
    ),
    Case(
        description="a frame on the active slave needs no step",
        before=word(0, approved=0b11),
        plugged=(1,),
        slot=0,
        slaves={0: TAKEN},
    ),
    Case(
        description="rule ALWAYS steps all the same",
        before=word(0, approved=0b111),
        plugged=(1, 2),
        slot=2,
        rule=RxRule.ALWAYS,
        after=stepped(1, left=0b1, approved=0b111),
        slaves={0: LEFT, 2: TAKEN},
    ),
    Case(
        description="no primary is plugged: the standby steps and is heard",
        before=word(0, approved=0b11),
        plugged=(1,),
        slot=1,
        rule=RxRule.NO_PRIMARY,
        after=stepped(1, left=0b1, approved=0b11),
        slaves={0: LEFT, 1: TAKEN},
    ),
]


@pytest.mark.parametrize("program", TX)
@pytest.mark.parametrize(
    "case", SENDING + LAST_RESORT, ids=lambda case: case.description
)
def test_step_of_a_sender(bench: Bench, program: str, case: Case) -> None:
    """The first frame to an empty slot moves the word, and is itself carried: where
    links can be seen by anyone who is ready, else by those approved alone."""
    case = case.of(bench.kind)
    bench.arrange(case.before, plugged=case.plugged)
    result = bench.run(program, OUT, bench.master)
    verdict = Verdict.SHOT if case.lost else Verdict.REDIRECT
    assert (Verdict(result.retval), result.data) == (verdict, OUT)
    assert bench.programs.word(GROUP) == (case.after or case.before)
    expected: dict[tuple[int, int | None], Mapping[str, int]] = {}
    expected.update({(GROUP, slot): seen for slot, seen in case.slaves.items()})
    if case.lost:
        expected[GROUP, None] = {"tx_drop_no_active": 1}
    assert bench.tally() == expected


@pytest.mark.parametrize("program", TX)
@pytest.mark.parametrize("case", NOWHERE, ids=lambda case: case.description)
def test_nowhere_to_step(bench: Bench, program: str, case: Case) -> None:
    """With nobody to step to every frame is dropped, the word as it was."""
    bench.arrange(case.before, plugged=case.plugged)
    result = bench.run(program, OUT, bench.master, repeat=3)
    assert (Verdict(result.retval), result.data) == (Verdict.SHOT, OUT)
    assert bench.programs.word(GROUP) == case.before
    assert bench.tally() == {(GROUP, None): {"tx_drop_no_active": 3}}


@pytest.mark.parametrize("program", RX)
@pytest.mark.parametrize("case", RECEIVING, ids=lambda case: case.description)
def test_step_of_a_receiver(bench: Bench, program: str, case: Case) -> None:
    """A frame on another slave moves the word away from an empty slot."""
    case = case.of(bench.kind)
    bench.arrange(case.before, plugged=case.plugged, rule=case.rule)
    result = bench.run(program, IN, bench.slave(case.slot))
    taken = "rx_packets" in case.slaves[case.slot]
    verdict = Verdict.REDIRECT if taken else Verdict.SHOT
    assert (Verdict(result.retval), result.data) == (verdict, IN)
    assert bench.programs.word(GROUP) == (case.after or case.before)
    assert bench.tally() == {(GROUP, slot): seen for slot, seen in case.slaves.items()}


@pytest.mark.parametrize("program", TX)
def test_a_burst_makes_one_step(bench: Bench, program: str) -> None:
    """97 frames in a row leave the empty slot once."""
    bench.arrange(word(0, approved=0b11), plugged=(1,))
    bench.run(program, OUT, bench.master, repeat=97)
    assert bench.programs.word(GROUP) == stepped(1, left=0b1, approved=0b11)
    assert bench.tally() == {
        (GROUP, 0): LEFT,
        (GROUP, 1): {"tx_packets": 97, "tx_bytes": 97 * len(OUT)},
    }


@pytest.mark.parametrize("program", RX)
def test_a_step_ends_the_grace(bench: Bench, program: str) -> None:
    """Unicast from the slave in grace is dropped once a program has stepped."""
    bench.arrange(word(1, approved=0b111), plugged=(0, 2), grace=(0, 60_000))
    unicast = frames.udp4(OURS)
    bench.plug((0, 1, 2))
    assert bench.run(program, unicast, bench.slave(0)).retval == Verdict.REDIRECT
    bench.plug((2,))
    assert bench.run(program, unicast, bench.slave(0)).retval == Verdict.SHOT
    assert bench.programs.word(GROUP) == stepped(2, left=0b10, approved=0b111)


def mask(slots: frozenset[int]) -> int:
    """A set of slots, as a word has it."""
    return sum(1 << slot for slot in slots)


def ruled(before: Word, ready: frozenset[int], kind: Kind) -> Word:
    """What a frame makes of a word: the rule, in other words than the programs'."""
    gone = {slot for slot in range(MAX_SLAVES) if before.left & 1 << slot}
    good = {slot for slot in range(MAX_SLAVES) if before.approved & 1 << slot}
    if before.active in ready:
        return before
    if before.active is not None:
        gone.add(before.active)
    choice = ready & good - gone
    if not choice and kind is Kind.CARRIER_TEST:
        choice = ready
    if not choice:
        return before
    taken = min(choice)
    return Word(
        generation=before.generation + 1,
        active=taken,
        left=mask(frozenset(gone - {taken})),
        approved=before.approved,
        by_kernel=True,
    )


def test_every_step_follows_the_rule(bench: Bench) -> None:
    """Of words, slots and links in many combinations, the best approved slave is
    taken that is ready and was not left, as a last resort the best that is ready,
    and nothing else ever changes the word."""
    some = [frozenset(map(int, s)) for s in ("", "0", "1", "7", "07", "123", "0246")]
    some.append(frozenset(range(MAX_SLAVES)))
    chance = random.Random(97)
    looks: list[list[Link | None]] = [[look] * MAX_SLAVES for look in (None, *Link)]
    looks += [chance.choices([None, *Link], k=MAX_SLAVES) for _ in range(20)]
    bench.arrange(NOBODY)
    now = NOBODY
    for links in looks:
        bench.plug([slot for slot, link in enumerate(links) if link])
        for slot, link in enumerate(links):
            bench.set_link(bench.slave(slot), link or Link.READY)
        seen = {Link.READY} if bench.kind is Kind.CARRIER_TEST else set(Link)
        ready = frozenset(slot for slot, link in enumerate(links) if link in seen)
        for active, left, approved in product((None, 0, 3, 7), some, some):
            before = Word(
                generation=97, active=active, left=mask(left), approved=mask(approved)
            )
            assert bench.programs.swap(GROUP, now, before)
            bench.run("fo_stack_tx", OUT, bench.master)
            now = bench.programs.word(GROUP)
            assert now == ruled(before, ready, bench.kind), (before, links)
