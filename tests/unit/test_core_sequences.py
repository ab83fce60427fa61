# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever happens to a group, in whatever order: what always holds.

What is expected is told by the machine's own memory of what it did, as far as it
can be: who was lost when, who fell while it carried.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pyfailover import core
from pyfailover.core import Decision, Group, Sight, Verdict
from pyfailover.model import NOBODY, GroupSpec, Policy, Reason, Word

GENERATIONS = 2**32
LONG = 1e6  # seconds: more than any delay here

SIGHTS = st.builds(
    Sight,
    present=st.sampled_from([True, True, True, False]),
    up=st.sampled_from([True, True, True, False]),
    carrier=st.booleans(),
    speed=st.sampled_from([0, 1000, 10_000]),
    full_duplex=st.booleans(),
)
DELAYS = st.sampled_from([0, 0, 1, 250, 1000, 7777])
SPECS = st.builds(
    GroupSpec,
    name=st.just("fo0"),
    primary=st.none() | st.just("slave"),
    standbys=st.sampled_from([("a",), ("a", "b"), ("a", "b", "c")]),
    policy=st.sampled_from(Policy),
    up_delay_ms=DELAYS,
    down_delay_ms=DELAYS,
    flap_changes=st.sampled_from([0, 0, 1, 3, 6]),
    flap_window_s=st.sampled_from([1, 5]),
    flap_hold_s=st.sampled_from([1, 2]),
    flap_hold_max_s=st.sampled_from([1, 7]),
)
# Also words that no controller of ours would leave behind.
WORDS = st.just(NOBODY) | st.builds(
    Word,
    generation=st.sampled_from([1, GENERATIONS - 2]),
    active=st.none() | st.integers(0, 7),
    left=st.integers(0, 15),
    approved=st.integers(0, 255),
    by_kernel=st.booleans(),
)
SLOTS = st.integers(0, 7)
PAUSES = st.sampled_from([0.001, 0.249, 0.25, 0.251, 0.9, 1.0, 1.1, 5.0, 60.0])


def mask(slots: Iterable[int]) -> int:
    """The bits of slots."""
    return sum(1 << slot for slot in slots)


class Life(RuleBasedStateMachine):
    """A group under a controller that decides after everything that happens."""

    @initialize(spec=SPECS, word=WORDS, data=st.data())
    def begin(self, spec: GroupSpec, word: Word, data: st.DataObject) -> None:
        """A controller finds a group."""
        self.now = 1000.0
        self.slots = set(range(len(spec.slaves)))
        sights = [data.draw(SIGHTS) for _ in self.slots]
        self.lost = dict.fromkeys(self.slots, -math.inf)  # when it ceased to be ready
        self.fallen = {n for n in self.slots if word.left >> n & 1} - {word.active}
        self.group = core.start(spec, word, sights, self.now)
        self.settle()

    def settle(self) -> None:
        """Decide and do it; what may change, and how, is looked at here."""
        before, old = self.group, self.group.word
        stood = old.active in self.usable(before)
        self.decision = core.decide(before, self.now)
        word = self.decision.word

        if word != old:
            assert word.generation == (old.generation + 1) % GENERATIONS
        moved = word.active != old.active
        assert moved is (self.decision.reason is not None)
        if moved and not stood:
            self.fallen |= self.slots & {old.active}
        self.fallen -= {word.active}
        loyal = before.spec.policy in (Policy.FAILURE, Policy.MANUAL)
        if moved and stood and (loyal or self.decision.reason is not Reason.PREFERRED):
            assert self.decision.reason is Reason.OPERATOR
            assert word.active == before.pinned

        self.group = core.applied(before, word)

    def usable(self, group: Group) -> list[int]:
        """Who could carry now."""
        return [
            slot
            for slot in sorted(self.slots)
            if core.verdict(group, slot, self.now) is Verdict.USABLE
        ]

    def sight(self, slot: int) -> Sight:
        """What was seen of a slave last."""
        return self.group.slots[slot].sight

    def look(self, slot: int, sight: Sight) -> None:
        """See a slave, and remember when it was lost."""
        if self.sight(slot).ready and not sight.ready:
            self.lost[slot] = self.now
        self.group = core.observe(self.group, slot, sight, self.now)

    @rule(slot=SLOTS, sight=SIGHTS)
    def one_event(self, slot: int, sight: Sight) -> None:
        """A slave is seen."""
        self.look(slot % len(self.slots), sight)
        self.settle()

    @rule(seen=st.lists(st.tuples(SLOTS, SIGHTS), min_size=2, max_size=6))
    def many_events(self, seen: list[tuple[int, Sight]]) -> None:
        """Several are seen, some more than once, before it is decided."""
        for slot, sight in seen:
            self.look(slot % len(self.slots), sight)
        self.settle()

    @rule(pause=PAUSES)
    def time_passes(self, pause: float) -> None:
        """It is decided some time later, too early or too late."""
        self.now += pause
        self.settle()

    @rule()
    def alarm(self) -> None:
        """It is decided when that was asked for."""
        self.now = self.decision.wake_at or self.now
        self.settle()

    @rule()
    def program_steps(self) -> None:
        """A program leaves the active slave, if there is where to go (fo_step)."""
        word = self.group.word
        left = word.left | (0 if word.active is None else 1 << word.active)
        there = {n for n in self.slots if (word.approved & ~left) >> n & 1}
        if not there:
            return
        stepped = replace(
            word,
            generation=(word.generation + 1) % GENERATIONS,
            active=min(there),
            left=left,
            by_kernel=True,
        )
        self.fallen |= self.slots & {word.active}
        self.adopt(stepped)

    @rule(slot=SLOTS)
    def joins_again(self, slot: int) -> None:
        """A slave is put into its slot once more."""
        slot %= len(self.slots)
        ready = self.sight(slot).ready
        self.adopt(core.joined(self.group.word, slot, ready=ready))

    @rule(slot=SLOTS)
    def command(self, slot: int) -> None:
        """Somebody switches past the controller, to a slave that is ready."""
        slot %= len(self.slots)
        if self.sight(slot).ready:
            self.adopt(core.switched(self.group.word, slot))

    def adopt(self, word: Word) -> None:
        """The word is another one."""
        self.fallen -= {word.active}
        self.group = core.adopt(self.group, word, self.now)
        self.settle()

    @rule(slot=SLOTS)
    def pin(self, slot: int) -> None:
        """The operator wants a slave: it carries now, or nothing moves."""
        slot %= len(self.slots)
        before = self.group
        self.fallen.discard(slot)
        self.group = core.pin(before, slot)
        self.settle()
        if self.sight(slot).ready:
            assert self.group.word.active == slot
        elif before.pinned is None:
            assert self.group.word.active == before.word.active

    @rule()
    def unpin(self) -> None:
        """The operator leaves it to the policy."""
        self.fallen.clear()
        self.group = core.pin(self.group, None)
        self.settle()

    @rule(pinned=st.booleans())
    def restart(self, pinned: bool) -> None:
        """Another controller comes, and does what the operator wanted, or not."""
        old = self.group
        sights = [slot.sight for slot in old.slots]
        self.lost = dict.fromkeys(self.slots, -math.inf)
        self.group = core.start(old.spec, old.word, sights, self.now)
        if pinned:
            self.group = replace(self.group, pinned=old.pinned)
        self.settle()

    @invariant()
    def who_carries_is_ready(self) -> None:
        """A slave that is not ready carries in its down-delay alone, and nobody is
        idle while there is one that is ready."""
        active = self.group.word.active
        if active is None:
            assert not any(self.sight(slot).ready for slot in self.slots)
        elif not self.sight(active).ready:
            assert self.sight(active).lack is Reason.CARRIER_LOST
            delay = self.group.spec.down_delay_ms / 1000
            assert self.now < self.lost[active] + delay
        assert self.decision.carrier is (active is not None)

    @invariant()
    def better_ones_carry(self) -> None:
        """Who is not usable carries for want of one that is, or in its down-delay."""
        active, usable = self.group.word.active, self.usable(self.group)
        if usable and active not in usable:
            assert active is not None
            assert not self.sight(active).ready
        always = self.group.spec.policy is Policy.ALWAYS
        if always and active in usable and self.group.pinned not in usable:
            assert active == usable[0]

    @invariant()
    def pinned_one_carries(self) -> None:
        """The operator's slave carries whenever it is usable."""
        if self.group.pinned in self.usable(self.group):
            assert self.group.word.active == self.group.pinned

    @invariant()
    def approved_are_usable(self) -> None:
        """The programs may step to the usable ones, and to no other."""
        usable = self.usable(self.group)
        assert self.group.word.approved == mask(usable)
        assert self.decision.usable == len(usable)

    @invariant()
    def held_are_left(self) -> None:
        """Under `manual` the word remembers exactly who fell while it carried; under no
        policy does it call an active or approved slave left."""
        word = self.group.word
        if self.group.spec.policy is Policy.MANUAL:
            assert word.left == mask(self.fallen)
        assert not word.left & word.approved
        assert word.active is None or not word.left >> word.active & 1

    @invariant()
    def replay_changes_nothing(self) -> None:
        """The same once more, and there is nothing to do."""
        group = self.group
        for slot in self.slots:
            group = core.observe(group, slot, self.sight(slot), self.now)
        assert group is self.group
        assert core.adopt(group, group.word, self.now) == group
        again = core.decide(group, self.now)
        assert again == replace(self.decision, reason=None)
        assert again.word is group.word

    @invariant()
    def asks_in_time(self) -> None:
        """Time changes nothing before wake_at, and nothing once there is none."""
        group, decision = self.group, self.decision
        now = self.now
        for _ in range(3 * len(self.slots) + 1):
            wake_at = decision.wake_at
            if wake_at is None:
                break
            assert wake_at > now
            self.unchanged(group, decision, (now + wake_at) / 2)
            self.unchanged(group, decision, math.nextafter(wake_at, now))
            now = wake_at
            decision = core.decide(group, now)
            group = core.applied(group, decision.word)
        assert decision.wake_at is None
        self.unchanged(group, decision, now + LONG)

    @staticmethod
    def unchanged(group: Group, decision: Decision, now: float) -> None:
        """It is decided as before."""
        assert core.decide(group, now) == replace(decision, reason=None)


TestLife = Life.TestCase
TestLife.settings = settings(
    settings.get_profile("unit"), max_examples=100, stateful_step_count=40
)
