# SPDX-License-Identifier: GPL-2.0-or-later
"""What is decided for a group; what a switch and a joining slave make of its word,
and how it is packed."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfailover import core
from pyfailover.core import Decision, Sight, Verdict
from pyfailover.datapath import abi
from pyfailover.datapath.abi import pack_word, unpack_word
from pyfailover.model import MAX_SLAVES, NOBODY, GroupSpec, Policy, Reason, Word

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


ABSENT = Sight()
DOWN = Sight(present=True)
NO_CARRIER = Sight(present=True, up=True)
UP = Sight(present=True, up=True, carrier=True)
SIGHTS = {"absent": ABSENT, "down": DOWN, "no carrier": NO_CARRIER, "ready": UP}
DEATHS = {
    ABSENT: Reason.REMOVED,
    DOWN: Reason.ADMIN_DOWN,
    NO_CARRIER: Reason.CARRIER_LOST,
}
START = 1000.0


def spec(slaves: int = 2, **changes: Any) -> GroupSpec:
    """A primary and standbys; nothing delayed or damped unless asked for."""
    return GroupSpec(
        **{
            "name": "fo0",
            "primary": "slave0",
            "standbys": tuple(f"slave{n}" for n in range(1, slaves)),
            "flap_changes": 0,
            **changes,
        }
    )


def mask(slots: Iterable[int]) -> int:
    """The bits of slots."""
    return sum(1 << slot for slot in slots)


class Play:
    """A group with a clock: it is shown things, and what it decides is done."""

    def __init__(
        self,
        slaves: int = 2,
        *,
        before: Word = NOBODY,
        sights: tuple[Sight, ...] = (),
        **changes: Any,
    ) -> None:
        self.now = START
        shown = sights or (UP,) * slaves
        self.group = core.start(spec(slaves, **changes), before, shown, self.now)
        self.last = self.decide()

    @property
    def active(self) -> int | None:
        """Who carries."""
        return self.group.word.active

    @property
    def left(self) -> int:
        """Who was left, as the word says."""
        return self.group.word.left

    def verdict(self, slot: int) -> Verdict:
        """What a slave is good for now."""
        return core.verdict(self.group, slot, self.now)

    def decide(self) -> Decision:
        """Decide now, and do it."""
        self.last = core.decide(self.group, self.now)
        self.group = core.applied(self.group, self.last.word)
        return self.last

    def see(self, slot: int, sight: Sight, *, after: float = 0) -> Decision:
        """Some seconds on, a slave is seen."""
        self.now += after
        self.group = core.observe(self.group, slot, sight, self.now)
        return self.decide()

    def flap(self, slot: int, times: int = 1, *, every: float = 0) -> Decision:
        """A slave loses its carrier and has it again: two changes each time."""
        for _ in range(times):
            self.see(slot, NO_CARRIER, after=every)
            self.see(slot, UP, after=every)
        return self.last

    def wait(self, seconds: float) -> Decision:
        """Some seconds on, decide."""
        self.now += seconds
        return self.decide()

    def wake(self) -> Decision:
        """Sleep until the decision wants to be asked again."""
        assert self.last.wake_at is not None
        self.now = self.last.wake_at
        return self.decide()

    def pin(self, slot: int | None) -> Decision:
        """The operator switches: to a slave, or to auto."""
        self.group = core.pin(self.group, slot)
        return self.decide()

    def step(self, to: int) -> Decision:
        """A program leaves the active slave for another (fo_step)."""
        old = self.group.word
        assert old.active is not None
        assert (old.approved & ~old.left) >> to & 1
        stepped = replace(
            old,
            generation=old.generation + 1,
            active=to,
            left=old.left | 1 << old.active,
            by_kernel=True,
        )
        return self.adopt(stepped)

    def adopt(self, found: Word) -> Decision:
        """Somebody else wrote the word."""
        self.group = core.adopt(self.group, found, self.now)
        return self.decide()

    def tune(self, **changes: Any) -> None:
        """Settings change while it runs."""
        spec = replace(self.group.spec, **changes)
        self.group = replace(self.group, spec=spec)

    def restart(self) -> Decision:
        """Another controller comes, which sees what is there."""
        sights = [slot.sight for slot in self.group.slots]
        self.group = core.start(self.group.spec, self.group.word, sights, self.now)
        return self.decide()


@pytest.mark.parametrize("present", [False, True])
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("carrier", [False, True])
def test_sight(present: bool, up: bool, carrier: bool) -> None:
    """Ready is present, up and with carrier; what lacks is named in this order."""
    seen = Sight(present=present, up=up, carrier=carrier)
    lacks = [
        reason
        for has, reason in (
            (present, Reason.REMOVED),
            (up, Reason.ADMIN_DOWN),
            (carrier, Reason.CARRIER_LOST),
        )
        if not has
    ]
    assert seen.ready is (lacks == [])
    assert seen.lack == (lacks[0] if lacks else None)


# Where both slaves are ready: who carries, by policy and by who carried before.
# The slaves are equally fast.
BOTH_READY = {
    (Policy.ALWAYS, None): 0,
    (Policy.ALWAYS, 0): 0,
    (Policy.ALWAYS, 1): 0,
    (Policy.BETTER, None): 0,
    (Policy.BETTER, 0): 0,
    (Policy.BETTER, 1): 1,
    (Policy.FAILURE, None): 0,
    (Policy.FAILURE, 0): 0,
    (Policy.FAILURE, 1): 1,
    (Policy.MANUAL, None): 0,
    (Policy.MANUAL, 0): 0,
    (Policy.MANUAL, 1): 1,
}


@pytest.mark.parametrize("before", [None, 0, 1])
@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("standby", SIGHTS.values(), ids=SIGHTS)
@pytest.mark.parametrize("primary", SIGHTS.values(), ids=SIGHTS)
def test_truth_table(
    primary: Sight, standby: Sight, policy: Policy, before: int | None
) -> None:
    """The ready slave carries; of two the policy chooses; of none, none."""
    sights = (primary, standby)
    ready = [slot for slot in (0, 1) if sights[slot] is UP]
    if ready == [0, 1]:
        active: int | None = BOTH_READY[policy, before]
    else:
        active = ready[0] if ready else None

    reason = None
    if active != before:
        reason = Reason.PREFERRED if before is not None else Reason.RECOVERED
        if before is not None and before not in ready:
            reason = DEATHS[sights[before]]
    # Only `manual` remembers the one that died.
    died = [before] if before is not None and before not in ready else []
    left = mask(died) if policy is Policy.MANUAL else 0

    found = word(7, before, 0, 0b11)
    decision = Play(before=found, sights=sights, policy=policy).last
    assert (decision.word.active, decision.word.approved) == (active, mask(ready))
    assert decision.word.left == left
    same = (active, left, ready) == (before, 0, [0, 1])
    assert decision.word.generation == (7 if same else 8)
    assert decision.reason is reason
    assert decision.usable == len(ready)
    assert decision.carrier is bool(ready)
    assert decision.wake_at is None


@pytest.mark.parametrize("count", [3, MAX_SLAVES])
def test_ranks(count: int) -> None:
    """Whichever slaves are ready: the best by rank carries under `always`, and
    under `failure` the one that did, while it can."""
    for ready in range(1 << count):
        up = [slot for slot in range(count) if ready >> slot & 1]
        sights = tuple(UP if slot in up else NO_CARRIER for slot in range(count))
        for before in range(count):
            found = word(7, before, 0, ready)
            eager = Play(count, before=found, sights=sights)
            assert eager.active == (up[0] if up else None)
            loyal = Play(count, before=found, sights=sights, policy=Policy.FAILURE)
            assert loyal.active == (before if before in up else eager.active)
            assert eager.last.usable == loyal.last.usable == len(up)


def test_ranks_one_by_one() -> None:
    """Slaves that die one by one hand the traffic down, and it climbs back up."""
    play = Play(MAX_SLAVES)
    carried = [play.see(slot, NO_CARRIER).word.active for slot in range(MAX_SLAVES)]
    assert carried == [1, 2, 3, 4, 5, 6, 7, None]
    climbed = [play.see(slot, UP).word.active for slot in (6, 7, 3, 5, 1, 2, 0)]
    assert climbed == [6, 6, 3, 3, 1, 1, 0]


@pytest.mark.parametrize(
    ("primary", "standby", "active"),
    [
        # bond_find_best_slave() with BOND_PRI_RESELECT_BETTER
        ((1000, True), (1000, True), 1),
        ((1000, False), (1000, False), 1),
        ((10_000, True), (1000, True), 0),
        ((1000, True), (10_000, True), 1),
        ((1000, True), (1000, False), 0),
        ((1000, False), (1000, True), 1),
        ((10_000, False), (1000, True), 0),
        ((1000, True), (10_000, False), 1),
        ((1000, True), (0, False), 0),
        ((0, False), (1000, True), 1),
        ((0, False), (0, False), 1),
    ],
)
def test_better(
    primary: tuple[int, bool], standby: tuple[int, bool], active: int
) -> None:
    """Under `better` a faster primary takes the traffic back: by speed, then duplex."""
    sights = tuple(
        replace(UP, speed=speed, full_duplex=full) for speed, full in (primary, standby)
    )
    play = Play(before=word(7, 1, 0, 0b11), sights=sights, policy=Policy.BETTER)
    assert play.active == active


@pytest.mark.parametrize(
    ("speeds", "before", "active"),
    [
        ((100, 1000, 100), 2, 1),  # one of better rank that is faster, not the best
        ((1000, 10_000, 100), 2, 0),  # of two that are faster the better by rank
        ((100, 1000, 10_000), 1, 1),  # rank before speed: nothing draws it down
        ((100, 10, 10), 2, 0),
    ],
)
def test_better_of_three(speeds: tuple[int, ...], before: int, active: int) -> None:
    """Under `better` it goes to the best by rank among those that are faster."""
    sights = tuple(replace(UP, speed=speed) for speed in speeds)
    found = word(7, before, 0, 0b111)
    play = Play(3, before=found, sights=sights, policy=Policy.BETTER)
    assert play.active == active


def test_better_once_it_is_faster() -> None:
    """A speed that changes is enough for `better`, and is no change of readiness."""
    play = Play(before=word(7, 1, 0, 0b11), policy=Policy.BETTER, flap_changes=1)
    assert play.active == 1
    assert play.see(0, replace(UP, speed=10_000)).reason is Reason.PREFERRED
    assert play.active == 0
    assert play.group.slots[0].changes == ()


def test_first() -> None:
    """The first active slave of all is the first, a later one recovers."""
    assert Play().last.reason is Reason.FIRST
    assert Play(before=word(1, None, 0, 0)).last.reason is Reason.RECOVERED


def test_active_slot_that_no_slave_has() -> None:
    """A word that names a slot beyond the group's slaves is mended, once."""
    for policy in Policy:
        play = Play(before=word(7, 5, 0, 0b10_0011), policy=policy)
        assert play.last.word == word(8, 0, 0, 0b11)
        assert play.last.reason is Reason.REMOVED
        assert play.decide().word.generation == 8


def test_generation_begins_again() -> None:
    """After the last generation comes the first."""
    play = Play(before=word(LAST, 0, 0, 0b11))
    assert play.last.word.generation == LAST
    assert play.see(0, NO_CARRIER).word == word(0, 1, 0, 0b10)


def test_same_sight_again() -> None:
    """A replayed dump leaves the group as it was, to the last field."""
    play = Play(flap_changes=2, up_delay_ms=500)
    play.flap(1)
    before = play.group
    for slot in (0, 1):
        again = core.observe(before, slot, before.slots[slot].sight, play.now + 1)
        assert again is before


# Delays.


@pytest.mark.parametrize("ms", [1, 250, 3_600_000])
def test_up_delay(ms: int) -> None:
    """A slave is used once it was ready for its up-delay, not a moment earlier."""
    play = Play(up_delay_ms=ms)
    play.wake()
    play.see(0, NO_CARRIER, after=1)
    decision = play.see(0, UP, after=1)
    assert play.verdict(0) is Verdict.UP_DELAY
    assert (decision.word.active, decision.word.approved) == (1, 0b10)
    assert (decision.usable, decision.wake_at) == (1, play.now + ms / 1000)
    generation = decision.word.generation

    play.now += (ms - 1) / 1000
    assert play.decide().word.generation == generation

    decision = play.wake()
    assert (decision.word.active, decision.word.approved) == (0, 0b11)
    assert (decision.reason, decision.wake_at) == (Reason.PREFERRED, None)


def test_up_delay_begins_anew() -> None:
    """A link that is lost in its up-delay waits for the whole of it again."""
    play = Play(up_delay_ms=1000)
    play.wake()
    play.see(0, NO_CARRIER)
    play.see(0, UP)
    play.flap(0, every=0.5)
    assert play.last.wake_at == play.now + 1
    assert play.wait(0.999).word.active == 1
    assert play.wake().word.active == 0


def test_up_delay_is_skipped() -> None:
    """Where nothing else is usable nobody waits, and the delay is behind that slave."""
    play = Play(sights=(ABSENT, ABSENT), up_delay_ms=10_000, policy=Policy.FAILURE)
    assert not play.last.carrier
    decision = play.see(1, UP)
    assert (decision.word.active, decision.word.approved) == (1, 0b10)
    assert (decision.usable, decision.wake_at) == (1, None)
    decision = play.see(0, UP, after=1)
    assert (decision.word.active, decision.word.approved) == (1, 0b10)
    assert decision.wake_at == play.now + 10
    assert play.wake().word.active == 1
    assert play.last.usable == 2


def test_up_delay_is_skipped_by_rank() -> None:
    """Of slaves that wait, the best by rank is taken."""
    play = Play(3, sights=(ABSENT, UP, UP), up_delay_ms=1000)
    assert play.active == 1
    assert [play.verdict(slot) for slot in (1, 2)] == [
        Verdict.USABLE,
        Verdict.UP_DELAY,
    ]


def test_up_delay_is_skipped_when_the_active_dies() -> None:
    """A standby in its up-delay takes over from a primary that dies."""
    play = Play(sights=(UP, ABSENT), up_delay_ms=1000)
    play.see(1, UP)
    decision = play.see(0, NO_CARRIER, after=0.1)
    assert (decision.word.active, decision.word.approved) == (1, 0b10)
    assert (decision.reason, decision.wake_at) == (Reason.CARRIER_LOST, None)


def test_no_up_delay_for_who_carries() -> None:
    """A link that comes back before it was given up is used on; once it is left, it
    waits for the rest of its up-delay."""
    play = Play(up_delay_ms=1000, down_delay_ms=500)
    play.wake()
    play.see(0, NO_CARRIER)
    decision = play.see(0, UP, after=0.1)
    assert (decision.word.active, decision.wake_at) == (0, None)
    assert (decision.word.approved, decision.usable) == (0b11, 2)

    decision = play.pin(1)
    assert (decision.word.active, decision.word.approved) == (1, 0b10)
    assert (decision.usable, decision.wake_at) == (1, play.now + 1)


@pytest.mark.parametrize("ms", [1, 250, 3_600_000])
def test_down_delay(ms: int) -> None:
    """A slave is left once it was without carrier for its down-delay."""
    play = Play(down_delay_ms=ms)
    decision = play.see(0, NO_CARRIER, after=1)
    assert play.verdict(0) is Verdict.DOWN_DELAY
    assert (decision.word.active, decision.word.approved) == (0, 0b10)
    assert (decision.usable, decision.wake_at) == (1, play.now + ms / 1000)
    assert decision.carrier

    assert play.wait((ms - 1) / 1000).word.active == 0
    decision = play.wake()
    assert play.verdict(0) is Verdict.NOT_READY
    assert (decision.word.active, decision.reason) == (1, Reason.CARRIER_LOST)
    assert decision.wake_at is None


def test_down_delay_of_the_last() -> None:
    """The last slave has its down-delay too; then nobody carries."""
    play = Play(sights=(UP, ABSENT), down_delay_ms=100)
    assert play.see(0, NO_CARRIER).carrier
    assert play.last.usable == 0
    assert not play.wake().carrier


def test_down_delay_is_of_who_carries() -> None:
    """A standby without carrier is no choice from that moment."""
    play = Play(3, down_delay_ms=1000)
    decision = play.see(1, NO_CARRIER)
    assert play.verdict(1) is Verdict.NOT_READY
    assert (decision.word.approved, decision.wake_at) == (0b101, None)


@pytest.mark.parametrize("sight", [ABSENT, DOWN], ids=["removed", "down"])
@pytest.mark.parametrize("lost", [False, True])
def test_down_delay_is_for_lost_carriers(sight: Sight, lost: bool) -> None:
    """Who is set down or taken away is left at once, in the down-delay too."""
    play = Play(down_delay_ms=1000)
    if lost:
        play.see(0, NO_CARRIER)
    decision = play.see(0, sight, after=0.1)
    assert (decision.word.active, decision.reason) == (1, DEATHS[sight])
    assert decision.wake_at is None


def test_both_delays() -> None:
    """It is asked again at the first of several moments."""
    play = Play(3, sights=(UP, UP, ABSENT), up_delay_ms=900, down_delay_ms=500)
    play.wake()
    play.see(2, UP)
    up = play.now + 0.9
    play.see(0, NO_CARRIER, after=0.2)
    down = play.now + 0.5
    assert play.last.wake_at == down
    assert play.wake().word.active == 1
    assert play.last.wake_at == up
    assert play.wake().wake_at is None


# Flap damping.


FLAPPY: dict[str, Any] = {
    "flap_changes": 4,
    "flap_window_s": 60,
    "flap_hold_s": 10,
    "flap_hold_max_s": 35,
}


def test_damped() -> None:
    """The change that is one too many keeps a slave out; it is told and counted."""
    play = Play(**FLAPPY)
    play.flap(0, every=1)
    play.see(0, NO_CARRIER, after=1)
    assert play.group.slots[0].damped == 0
    decision = play.see(0, UP, after=1)
    assert play.verdict(0) is Verdict.DAMPED
    assert play.group.slots[0].damped == 1
    assert (decision.word.active, decision.word.approved) == (1, 0b10)
    assert (decision.usable, decision.wake_at) == (1, play.now + 10)
    assert play.wait(9.999).word.active == 1
    decision = play.wake()
    assert (decision.word.active, decision.reason) == (0, Reason.PREFERRED)
    assert decision.wake_at is None


def test_damped_while_it_carries() -> None:
    """A slave that flaps within its down-delay is left for it."""
    play = Play(**FLAPPY, down_delay_ms=5000)
    play.flap(0, every=1)
    assert play.active == 0
    decision = play.flap(0, every=1)
    assert (decision.word.active, decision.reason) == (1, Reason.DAMPED)


def test_not_damped() -> None:
    """Changes that are a window old are none, nor is anything where N is 0."""
    play = Play(**FLAPPY)
    play.flap(1, every=20)  # at 20 and 40 s
    play.see(1, NO_CARRIER, after=20)
    play.see(1, UP, after=20)  # at 80 s: the first is a window ago
    assert play.verdict(1) is Verdict.USABLE
    play.see(1, NO_CARRIER, after=19.999)
    assert play.group.slots[1].damped == 1

    never = Play(flap_changes=0)
    never.flap(1, 1000)
    assert never.verdict(1) is Verdict.USABLE


def test_damped_for_longer() -> None:
    """The hold doubles up to its maximum, and begins anew after a calm window."""

    def hold() -> float:
        play.flap(1, 2)
        assert play.last.wake_at is not None
        return play.last.wake_at - play.now

    play = Play(**FLAPPY)
    holds = []
    for _ in range(4):
        holds.append(hold())
        play.wake()
    assert holds == [10, 20, 35, 35]
    play.wait(60)
    assert hold() == 35
    play.wake()
    play.wait(60.001)
    assert hold() == 10
    play.wake()
    assert hold() == 20
    assert play.group.slots[1].damped == 7


def test_up_delay_of_who_was_damped() -> None:
    """The up-delay runs from the last change, in the hold too."""
    play = Play(**FLAPPY, up_delay_ms=15_000)
    play.wake()
    play.flap(1, 2, every=1)
    ready = play.now
    assert play.wake().wake_at == ready + 15
    assert play.verdict(1) is Verdict.UP_DELAY


def test_damped_in_its_hold() -> None:
    """Who flaps on while it is kept out is kept out for longer."""
    play = Play(**FLAPPY)
    play.flap(1, 2)
    play.flap(1, 2, every=1)
    assert play.last.wake_at == play.now + 20


def test_hold_reaches_its_maximum() -> None:
    """The longest hold that can be asked for is reached from the shortest."""
    day = 86_400
    play = Play(flap_changes=2, flap_window_s=day, flap_hold_s=1, flap_hold_max_s=day)
    play.flap(1, 40)
    assert play.last.wake_at == play.now + day


def test_damped_of_necessity() -> None:
    """A damped slave is used where there is no other, until there is one."""
    play = Play(**FLAPPY)
    play.flap(0, 2)
    decision = play.see(1, NO_CARRIER)
    assert (decision.word.active, decision.word.approved) == (0, 0)
    assert (decision.usable, decision.carrier) == (0, True)
    decision = play.see(1, UP)
    assert (decision.word.active, decision.reason) == (1, Reason.DAMPED)


def test_waiting_rather_than_damped() -> None:
    """A slave in its up-delay is taken rather than one that flaps."""
    play = Play(3, sights=(UP, ABSENT, UP), **FLAPPY, up_delay_ms=1000)
    play.wake()
    play.flap(0, 2)
    assert play.verdict(0) is Verdict.DAMPED
    play.see(1, UP)
    assert play.see(2, ABSENT).word.active == 1


def test_damped_stays() -> None:
    """Of damped slaves the one that carries goes on, else the best by rank."""
    play = Play(**FLAPPY)
    play.flap(0, 2)
    play.flap(1, 2)
    assert [play.verdict(0), play.verdict(1), play.active] == ["damped", "damped", 0]
    play.see(0, NO_CARRIER)
    assert play.active == 1
    play.see(0, UP)
    assert [play.verdict(0), play.active] == ["damped", 1]


# The operator.


def test_pin() -> None:
    """The traffic goes where the operator wants it, and stays."""
    play = Play(3)
    decision = play.pin(2)
    assert (decision.word, decision.reason) == (
        word(2, 2, 0, 0b111),
        Reason.OPERATOR,
    )
    play.flap(0)
    assert play.active == 2


@pytest.mark.parametrize("policy", [Policy.ALWAYS, Policy.BETTER, Policy.FAILURE])
def test_pinned_dies(policy: Policy) -> None:
    """From a pinned slave that dies it goes to the best other; once the pinned one is
    usable again it goes back there."""
    play = Play(3, policy=policy, up_delay_ms=1000)
    play.wake()
    play.pin(2)
    assert play.see(2, NO_CARRIER).word.active == 0
    play.see(2, UP, after=5)
    assert play.wait(0.999).word.active == 0
    decision = play.wake()
    assert (decision.word.active, decision.reason) == (2, Reason.OPERATOR)


def test_pinned_dies_under_manual() -> None:
    """Under `manual` too a pinned slave that died is taken back: the operator has
    said so."""
    play = Play(policy=Policy.MANUAL)
    play.pin(1)
    play.flap(1)
    assert (play.active, play.verdict(1)) == (1, Verdict.USABLE)


@pytest.mark.parametrize("sight", [ABSENT, DOWN, NO_CARRIER])
@pytest.mark.parametrize("carries", [False, True])
def test_pin_of_who_is_not_ready(sight: Sight, carries: bool) -> None:
    """To pin a slave that is not ready moves nothing until it is."""
    play = Play(down_delay_ms=1000)
    slot = 0 if carries else 1
    play.see(slot, sight)
    before = play.last
    decision = play.pin(slot)
    assert (decision.word, decision.reason) == (before.word, None)
    assert decision.wake_at == before.wake_at
    assert play.see(slot, UP).word.active == slot


def test_pin_ends_a_down_delay() -> None:
    """Another slave is taken at once, though the active one is not given up yet; that
    is the operator's doing."""
    play = Play(down_delay_ms=1000)
    play.see(0, NO_CARRIER)
    decision = play.pin(1)
    assert (decision.word.active, decision.reason) == (1, Reason.OPERATOR)
    assert decision.wake_at is None


def test_pinned_by_chance() -> None:
    """A pinned slave that takes over before its time does so for the other's death."""
    play = Play(up_delay_ms=1000)
    play.wake()
    play.pin(1)
    play.flap(1)
    decision = play.see(0, ABSENT)
    assert (decision.word.active, decision.reason) == (1, Reason.REMOVED)


def test_pin_forgets_the_up_delay() -> None:
    """The operator does not wait."""
    play = Play(up_delay_ms=1000)
    assert play.verdict(1) is Verdict.UP_DELAY
    assert play.pin(1).word.active == 1


def test_pin_forgets_damping() -> None:
    """The operator's slave is not kept out, and its changes are counted anew."""
    play = Play(**FLAPPY)
    play.flap(1, 2)
    decision = play.pin(1)
    assert (decision.word.active, decision.usable) == (1, 2)
    play.flap(1)
    play.see(1, NO_CARRIER)
    play.pin(1)
    play.see(1, UP)
    assert (play.active, play.group.slots[1].damped) == (1, 1)
    play.flap(1, 2)
    assert play.last.wake_at == play.now + 10


def test_pin_leaves_the_others() -> None:
    """What keeps the other slaves out still does."""
    play = Play(3, **FLAPPY, policy=Policy.MANUAL)
    play.flap(1, 2)
    play.flap(0)
    play.pin(2)
    assert [play.verdict(slot) for slot in range(3)] == ["held", "damped", "usable"]


@pytest.mark.parametrize(
    ("policy", "active"),
    [
        (Policy.ALWAYS, 0),
        (Policy.BETTER, 1),
        (Policy.FAILURE, 1),
        (Policy.MANUAL, 1),
    ],
)
def test_unpin(policy: Policy, active: int) -> None:
    """Once it is unpinned the policy decides."""
    play = Play(policy=policy)
    play.pin(1)
    decision = play.pin(None)
    assert decision.word.active == active
    assert decision.reason is (Reason.PREFERRED if active == 0 else None)


def test_unpin_forgets_who_is_held() -> None:
    """`auto` gives back what `manual` held, for good."""
    play = Play(3, policy=Policy.MANUAL)
    play.flap(0)
    play.see(1, NO_CARRIER)
    assert (play.left, play.active) == (0b11, 2)
    play.pin(None)
    assert (play.left, play.active) == (0, 2)
    play.restart()
    play.see(1, UP)
    assert [play.verdict(slot) for slot in range(3)] == ["usable"] * 3


# Policy manual.


def test_manual() -> None:
    """A slave that died while it carried is passed over, but for want of another; then
    it is a slave like any."""
    play = Play(3, policy=Policy.MANUAL)
    assert play.see(0, NO_CARRIER).word == word(2, 1, 0b1, 0b110)
    assert play.see(0, UP).word.approved == 0b110
    assert (play.verdict(0), play.last.usable) == (Verdict.HELD, 2)
    assert play.see(1, NO_CARRIER).word.active == 2
    decision = play.see(2, NO_CARRIER)
    assert (decision.word.active, decision.reason) == (0, Reason.CARRIER_LOST)
    assert (decision.word.left, decision.word.approved) == (0b110, 0b1)
    assert play.see(1, UP).word.active == 0
    assert [play.verdict(slot) for slot in range(3)] == ["usable", "held", "not ready"]
    assert play.pin(1).word == word(5, 1, 0b100, 0b11)


def test_manual_of_who_was_well() -> None:
    """A slave that the operator moved the traffic away from did not die, even if it has
    its up-delay before it."""
    play = Play(policy=Policy.MANUAL, up_delay_ms=1000, down_delay_ms=1000)
    play.wake()
    play.flap(0)
    assert play.pin(1).word.left == 0
    assert play.verdict(0) is Verdict.UP_DELAY


def test_manual_holds_who_carried() -> None:
    """A standby that dies and comes back while it does not carry is not held."""
    play = Play(3, policy=Policy.MANUAL)
    play.flap(1)
    assert (play.left, play.verdict(1)) == (0, Verdict.USABLE)


def test_manual_with_all_dead() -> None:
    """With all dead, who comes back first carries, held or not; of two at once the one
    that is not held."""
    play = Play(policy=Policy.MANUAL)
    play.see(1, NO_CARRIER)
    play.see(0, NO_CARRIER)
    assert (play.active, play.left) == (None, 0b1)
    play.group = core.observe(play.group, 0, UP, play.now)
    both = core.observe(play.group, 1, UP, play.now)
    assert core.decide(both, play.now).word.active == 1
    assert core.decide(play.group, play.now).word.active == 0


def test_manual_waits_rather_than_takes_back() -> None:
    """A slave in its up-delay is taken rather than one that is held, and that rather
    than one that flaps."""
    play = Play(3, sights=(UP, UP, ABSENT), policy=Policy.MANUAL, **FLAPPY)
    play.tune(up_delay_ms=1000)
    play.flap(0)
    play.see(2, UP, after=2)
    play.see(1, NO_CARRIER)
    assert (play.active, play.verdict(0)) == (2, Verdict.HELD)
    play.tune(down_delay_ms=5000)
    play.flap(2, 2, every=2)
    assert (play.active, play.verdict(2)) == (0, Verdict.DAMPED)


def test_manual_of_who_was_damped() -> None:
    """A slave that was left because it flapped is held after its hold."""
    play = Play(policy=Policy.MANUAL, down_delay_ms=5000, **FLAPPY)
    play.flap(0, 2)
    assert (play.active, play.left) == (1, 0b1)
    play.wake()
    assert (play.active, play.verdict(0)) == (1, Verdict.HELD)


@pytest.mark.parametrize("ready", [False, True])
def test_manual_over_a_rejoin(ready: bool) -> None:
    """A slave that took its slot again is still held."""
    play = Play(policy=Policy.MANUAL)
    play.see(0, ABSENT)
    if ready:
        play.see(0, UP)
    play.adopt(core.joined(play.group.word, 0, ready=ready))
    play.see(0, UP)
    assert (play.active, play.left) == (1, 0b1)
    assert play.verdict(0) is Verdict.HELD


def test_manual_over_a_command() -> None:
    """A slave that a command switched to is held no longer."""
    play = Play(policy=Policy.MANUAL)
    play.flap(0)
    play.adopt(core.switched(play.group.word, 0))
    assert (play.active, play.left) == (0, 0)
    assert play.see(1, NO_CARRIER).reason is None
    assert play.see(1, UP).word.approved == 0b11


def test_manual_over_a_restart() -> None:
    """The word remembers who is held."""
    play = Play(3, policy=Policy.MANUAL)
    play.see(0, NO_CARRIER)
    play.restart()
    play.see(0, UP)
    play.restart()
    assert (play.active, play.left) == (1, 0b1)
    assert play.verdict(0) is Verdict.HELD


def test_policy_that_was_manual() -> None:
    """Under another policy nobody is held any longer."""
    play = Play(policy=Policy.MANUAL)
    play.flap(0)
    assert play.active == 1
    play.tune(policy=Policy.ALWAYS)
    assert play.decide().word == word(3, 0, 0, 0b11)


@pytest.mark.parametrize("left", [0, 0b1])
def test_policy_that_becomes_manual(left: int) -> None:
    """Who was left under another policy, and came back, is not held."""
    play = Play(before=word(7, 1 if left else 0, left, 0b11), policy=Policy.FAILURE)
    if not left:
        play.step(1)
    assert play.active == 1
    play.tune(policy=Policy.MANUAL)
    assert (play.decide().word.left, play.verdict(0)) == (0, Verdict.USABLE)


def test_unpin_while_a_program_steps() -> None:
    """A word that does not know of the operator's wish yet does not undo it."""
    play = Play(3, policy=Policy.MANUAL)
    play.flap(0)
    play.group = core.pin(play.group, None)
    play.step(2)
    assert [play.verdict(slot) for slot in range(3)] == ["usable", "held", "usable"]


# Steps of the programs.


def test_step_is_adopted() -> None:
    """A slave that a program left begins its up-delay anew, and that was a change."""
    play = Play(3, up_delay_ms=1000)
    play.wake()
    play.now += 5
    decision = play.step(1)
    assert decision.word == word(4, 1, 0b1, 0b110, "kernel")
    assert decision.wake_at == play.now + 1
    assert play.group.slots[0].changes == (play.now,)
    assert play.group.slots[2].changes == ()
    decision = play.wake()
    assert decision.word == word(5, 0, 0, 0b111)
    assert decision.reason is Reason.PREFERRED


def test_step_from_who_is_known_to_be_dead() -> None:
    """A loss that was seen is not counted a second time for the program's step."""
    play = Play()
    play.now += 5
    stepped = replace(play.group.word, generation=2, active=1, left=0b1, by_kernel=True)
    play.group = core.observe(play.group, 0, NO_CARRIER, play.now)
    decision = play.adopt(stepped)
    assert decision.word == word(3, 1, 0b1, 0b10, "kernel")
    assert play.group.slots[0].changes == (play.now,)


def test_two_steps_at_once() -> None:
    """Every slave that programs left meanwhile is taken for lost, once."""
    play = Play(3, up_delay_ms=1000)
    play.wake()
    play.now += 5
    found = replace(play.group.word, generation=9, active=2, left=0b11, by_kernel=True)
    play.adopt(found)
    assert [play.verdict(slot) for slot in range(3)] == [
        Verdict.UP_DELAY,
        Verdict.UP_DELAY,
        Verdict.USABLE,
    ]
    play.now += 0.5
    play.adopt(play.group.word)
    assert [len(slot.changes) for slot in play.group.slots] == [1, 1, 0]


def test_left_by_no_program() -> None:
    """What another hand left is no loss of carrier."""
    play = Play(up_delay_ms=1000)
    play.wake()
    play.adopt(word(9, 0, 0b10, 0b01))
    assert play.verdict(1) is Verdict.USABLE
    assert play.group.slots[1].changes == ()


@pytest.mark.parametrize(
    ("policy", "active"),
    [
        (Policy.ALWAYS, 0),
        (Policy.BETTER, 1),
        (Policy.FAILURE, 1),
        (Policy.MANUAL, 1),
    ],
)
def test_step_and_policy(policy: Policy, active: int) -> None:
    """What a program left is taken back by the policy alone."""
    play = Play(policy=policy)
    play.step(1)
    assert play.active == active
    held = policy is Policy.MANUAL
    assert play.verdict(0) is (Verdict.HELD if held else Verdict.USABLE)


def test_steps_that_flap() -> None:
    """Steps to and fro under `failure` are followed, never answered; who flaps is
    damped."""
    play = Play(**FLAPPY, policy=Policy.FAILURE)
    for number in range(6):
        to = 1 - (number % 2)
        decision = play.step(to)
        assert (decision.word.active, decision.reason) == (to, None)
        play.now += 1
    assert [len(slot.changes) for slot in play.group.slots] == [3, 3]
    play.step(1)
    assert (play.active, play.verdict(0)) == (1, Verdict.DAMPED)
    assert play.last.word.approved == 0b10


def test_step_from_the_pinned() -> None:
    """A program's step from the pinned slave lasts until that one is usable."""
    play = Play(up_delay_ms=1000)
    play.wake()
    play.pin(1)
    play.step(0)
    assert play.active == 0
    decision = play.wake()
    assert (decision.word.active, decision.reason) == (1, Reason.OPERATOR)


def test_who_made_the_last_change() -> None:
    """That a program moved the traffic is said until somebody else moves it."""
    play = Play(3, policy=Policy.FAILURE)
    assert play.step(1).word.by_kernel
    decision = play.see(2, NO_CARRIER)
    assert decision.word == word(4, 1, 0, 0b011, "kernel")
    assert play.pin(0).word == word(5, 0, 0, 0b011)


# A controller that starts.


@pytest.mark.parametrize("policy", Policy)
def test_restart_changes_nothing(policy: Policy) -> None:
    """A restart leaves the word as it is, and waits for nothing."""
    play = Play(3, policy=policy, up_delay_ms=1000, down_delay_ms=1000)
    play.wake()
    play.see(0, NO_CARRIER, after=5)
    play.wake()
    before = play.group.word
    assert before.active == 1
    decision = play.restart()
    assert (decision.word, decision.reason, decision.wake_at) == (before, None, None)


def test_restart_in_an_up_delay() -> None:
    """Who was not approved yet begins its up-delay anew."""
    play = Play(up_delay_ms=1000)
    play.wake()
    play.flap(0)
    play.now += 0.5
    decision = play.restart()
    assert (decision.word.active, decision.wake_at) == (1, play.now + 1)


def test_restart_after_a_step() -> None:
    """A slave that a program left meanwhile has its up-delay before it, though it was
    approved once."""
    found = word(7, 1, 0b1, 0b111, "kernel")
    play = Play(3, before=found, up_delay_ms=1000)
    assert play.last.word == word(8, 1, 0b1, 0b110, "kernel")
    assert play.last.wake_at == play.now + 1
    assert play.wake().word == word(9, 0, 0, 0b111)


def test_restart_with_the_active_dead() -> None:
    """A slave that is found dead is left: nobody knows for how long it is so."""
    found = word(7, 0, 0, 0b11)
    play = Play(before=found, sights=(NO_CARRIER, UP), down_delay_ms=1000)
    assert (play.active, play.last.reason) == (1, Reason.CARRIER_LOST)


def test_restart_with_an_unapproved_active() -> None:
    """Who carries is not put to the test, approved or not."""
    found = word(7, 1, 0, 0)
    play = Play(before=found, up_delay_ms=1000, policy=Policy.FAILURE)
    assert play.last.word == word(8, 1, 0, 0b10)
    assert play.pin(0).word == word(9, 0, 0, 0b11)


@pytest.mark.parametrize("policy", Policy)
def test_start_with_left_slaves(policy: Policy) -> None:
    """Only `manual` holds what the word says was left."""
    play = Play(3, before=word(7, 1, 0b101, 0b010), policy=policy)
    held = [slot for slot in range(3) if play.verdict(slot) is Verdict.HELD]
    assert held == ([0, 2] if policy is Policy.MANUAL else [])
    assert play.left == mask(held)
