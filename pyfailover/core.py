# SPDX-License-Identifier: GPL-2.0-or-later
"""Decisions, pure: no clock, no I/O, no library.

A group is a frozen value: what is seen of its slaves, what is remembered of
them, the word in force. observe() and adopt() take in what was seen, decide()
says which word should be in force and when to ask again. All that it says is
absolute: to be told the same twice changes nothing. Time is an argument, in
seconds of a clock that never goes back.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from pyfailover.model import NOBODY, GroupSpec, Link, Policy, Reason, Word

LONG_AGO = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What is seen of a slave; the default is: it is not there."""

    present: bool = False
    up: bool = False
    carrier: bool = False
    speed: int = 0  # Mbit/s, 0: unknown
    full_duplex: bool = False

    @property
    def ready(self) -> bool:
        """Present, IFF_UP and carrier (net_failover_xmit_ready)."""
        return self.present and self.up and self.carrier

    @property
    def lack(self) -> Reason | None:
        """Why it is not ready."""
        if not self.present:
            return Reason.REMOVED
        if not self.up:
            return Reason.ADMIN_DOWN
        return None if self.carrier else Reason.CARRIER_LOST


def sight_of(link: Link | None) -> Sight:
    """What a link dump shows of a slave; None: it is not there."""
    if link is None:
        return Sight()
    return Sight(present=True, up=link.up, carrier=link.carrier)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A slave: what is seen of it, and what is remembered."""

    sight: Sight = Sight()
    since: float = LONG_AGO  # when it last became ready, or ceased to be
    changes: tuple[float, ...] = ()  # of readiness, within the window
    out_until: float = LONG_AGO  # damped until then
    level: int = 0  # times in a row that it was damped: the hold doubles
    damped: int = 0  # times in all
    held: bool = False  # policy manual: it died while it carried the traffic


class Verdict(StrEnum):
    """What the controller makes of a slave."""

    USABLE = "usable"
    NOT_READY = "not ready"
    UP_DELAY = "up delay"
    DOWN_DELAY = "down delay"  # without carrier, but not yet given up
    DAMPED = "damped"
    HELD = "held"  # policy manual: it died, and waits for the operator


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All that a decision depends on."""

    spec: GroupSpec
    slots: tuple[Slot, ...]
    word: Word = NOBODY
    pinned: int | None = None  # slot that the operator wants


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What should be, whatever is."""

    word: Word  # to be in force; the present one if nothing is to change
    reason: Reason | None  # why the active slave is another
    usable: int  # slaves that could carry traffic now: the redundancy
    wake_at: float | None  # when to decide again though nothing happened

    @property
    def carrier(self) -> bool:
        """Whether the master should have carrier (design S10)."""
        return self.word.active is not None


def start(spec: GroupSpec, word: Word, sights: Iterable[Sight], now: float) -> Group:
    """A group as it is found: by a first controller, or after another one.

    A slave that the predecessor approved and no program left since, or that carries,
    has its up-delay behind it; what another one did before is not known.
    """
    good = word.approved & ~word.left
    slots = tuple(
        Slot(
            sight=sight,
            since=LONG_AGO if good >> slot & 1 or word.active == slot else now,
            held=spec.policy is Policy.MANUAL and bool(word.left >> slot & 1),
        )
        for slot, sight in enumerate(sights)
    )
    return Group(spec=spec, slots=slots, word=word)


def observe(group: Group, slot: int, sight: Sight, now: float) -> Group:
    """A slave is seen as it is now; the same sight again changes nothing."""
    old = group.slots[slot]
    new = replace(old, sight=sight)
    if sight.ready != old.sight.ready:
        new = _changed(group.spec, new, now)
    return group if new == old else _with(group, slot, new)


def adopt(group: Group, word: Word, now: float) -> Group:
    """A word that somebody else put in force: a program, a command.

    A slave that a program left has lost its carrier, even if nobody saw it.
    """
    fresh = word.left & ~group.word.left if word.by_kernel else 0
    for number, slot in enumerate(group.slots):
        if fresh >> number & 1 and slot.sight.ready:
            group = _with(group, number, _changed(group.spec, slot, now))
    return applied(group, word)


def applied(group: Group, word: Word) -> Group:
    """A word is in force; under `manual` the slaves that it left are held."""
    if group.spec.policy is Policy.MANUAL:
        fresh = word.left & ~group.word.left
        for number, slot in enumerate(group.slots):
            held = (slot.held or bool(fresh >> number & 1)) and number != word.active
            group = _with(group, number, replace(slot, held=held))
    return replace(group, word=word)


def pin(group: Group, slot: int | None) -> Group:
    """The operator wants a slave, or None: the policy shall decide.

    What kept a slave from being used is forgotten: he knows better.
    """
    if slot is None:
        slots = tuple(replace(state, held=False) for state in group.slots)
        return replace(group, slots=slots, pinned=None)
    old = group.slots[slot]
    since = LONG_AGO if old.sight.ready else old.since  # a down-delay goes on
    new = replace(old, since=since, changes=(), out_until=LONG_AGO, held=False)
    return replace(_with(group, slot, new), pinned=slot)


def verdict(group: Group, slot: int, now: float) -> Verdict:
    """What a slave is good for."""
    state, spec = group.slots[slot], group.spec
    active = group.word.active == slot
    if not state.sight.ready:
        waits = now < state.since + spec.down_delay_ms / 1000
        lost = state.sight.lack is Reason.CARRIER_LOST
        return Verdict.DOWN_DELAY if active and lost and waits else Verdict.NOT_READY
    if now < state.out_until:
        return Verdict.DAMPED
    wanted = active or slot == group.pinned
    if state.held and spec.policy is Policy.MANUAL and not wanted:
        return Verdict.HELD
    # One that carries has nothing to wait for.
    if not active and now < state.since + spec.up_delay_ms / 1000:
        return Verdict.UP_DELAY
    return Verdict.USABLE


def ends_at(group: Group, slot: int, verdict: Verdict) -> float | None:
    """When a verdict on a slave becomes another by itself; None: never."""
    state, spec = group.slots[slot], group.spec
    match verdict:
        case Verdict.UP_DELAY:
            return state.since + spec.up_delay_ms / 1000
        case Verdict.DOWN_DELAY:
            return state.since + spec.down_delay_ms / 1000
        case Verdict.DAMPED:
            return state.out_until
        case _:
            return None


def decide(group: Group, now: float) -> Decision:
    """Which word should be in force.

    Delays look at who carries: what is approved is judged with the choice in force.
    """
    verdicts = _verdicts(group, now)
    active = _choose(group, verdicts)
    moved = replace(group, word=replace(group.word, active=active))
    then = _verdicts(moved, now)
    return Decision(
        word=_word(group, verdicts, active, _usable(then)),
        reason=_reason(group, verdicts, active),
        usable=len(_usable(then)),
        wake_at=_wake_at(group, then),
    )


def switched(word: Word, slot: int) -> Word:
    """The operator or the controller moves the traffic to a slot."""
    bit = 1 << slot
    return Word(
        generation=word.generation + 1 & 0xFFFFFFFF,
        active=slot,
        left=word.left & ~bit,
        approved=word.approved | bit,
    )


def joined(word: Word, slot: int, *, ready: bool) -> Word:
    """A slave took its slot (again): it is usable if it is ready.

    The active slave does not change, unless there is none.
    """
    if ready and word.active in (None, slot):
        return switched(word, slot)
    bit = 1 << slot
    return Word(
        generation=word.generation + 1 & 0xFFFFFFFF,
        active=word.active,
        left=word.left & ~bit,
        approved=word.approved | bit if ready else word.approved & ~bit,
        by_kernel=word.by_kernel,
    )


def _with(group: Group, slot: int, state: Slot) -> Group:
    slots = (*group.slots[:slot], state, *group.slots[slot + 1 :])
    return replace(group, slots=slots)


def _changed(spec: GroupSpec, slot: Slot, now: float) -> Slot:
    """A slave became ready, or ceased to be; too often keeps it out for a while."""
    recent = (*(t for t in slot.changes if t > now - spec.flap_window_s), now)
    if not spec.flap_changes or len(recent) < spec.flap_changes:
        return replace(slot, since=now, changes=recent)
    calm = now > slot.out_until + spec.flap_window_s
    level = 0 if calm else slot.level
    hold = min(spec.flap_hold_s * 2**level, spec.flap_hold_max_s)
    return replace(
        slot,
        since=now,
        changes=(),
        out_until=now + hold,
        level=min(level + 1, 17),  # 2**17 s: beyond any maximum
        damped=slot.damped + 1,
    )


def _verdicts(group: Group, now: float) -> list[Verdict]:
    return [verdict(group, slot, now) for slot in range(len(group.slots))]


def _usable(verdicts: list[Verdict]) -> list[int]:
    return [n for n, each in enumerate(verdicts) if each is Verdict.USABLE]


def _choose(group: Group, verdicts: list[Verdict]) -> int | None:
    """The slot that should carry the traffic."""
    active = group.word.active
    good = _usable(verdicts)
    if group.pinned in good:
        return group.pinned
    if Verdict.DOWN_DELAY in verdicts:  # the active one's alone
        return active
    if good:
        return _prefer(group, active, good)
    # Nothing is usable. Better a slave that should wait than none: the up-delay is
    # skipped, then what the operator left aside is taken, then what flaps.
    for lesser in (Verdict.UP_DELAY, Verdict.HELD, Verdict.DAMPED):
        found = [n for n, each in enumerate(verdicts) if each is lesser]
        if found:
            return active if active in found else found[0]
    return None


def _prefer(group: Group, active: int | None, good: list[int]) -> int:
    """Among usable slaves, in order of rank."""
    best = good[0]
    if active not in good or best == active:
        return best
    match group.spec.policy:
        case Policy.ALWAYS:
            return best
        case Policy.BETTER:
            pace = [(s.sight.speed, s.sight.full_duplex) for s in group.slots]
            faster = (n for n in good if n < active and pace[n] > pace[active])
            return next(faster, active)
        case Policy.FAILURE | Policy.MANUAL:
            return active


def _word(
    group: Group, verdicts: list[Verdict], active: int | None, usable: list[int]
) -> Word:
    """The word of a choice; the present one if it says the same."""
    old = group.word
    approved = sum(1 << slot for slot in usable)
    left = old.left & ~approved
    if group.spec.policy is Policy.MANUAL:
        # Who is held, remembered over a restart too.
        left = sum(
            1 << n
            for n, (slot, each) in enumerate(zip(group.slots, verdicts, strict=True))
            if slot.held or (n == old.active and each is not Verdict.USABLE)
        )
    if active is not None:
        left &= ~(1 << active)
    if (active, left, approved) == (old.active, old.left, old.approved):
        return old
    return Word(
        generation=old.generation + 1 & 0xFFFFFFFF,
        active=active,
        left=left,
        approved=approved,
        by_kernel=old.by_kernel and active == old.active,
    )


def _reason(group: Group, verdicts: list[Verdict], active: int | None) -> Reason | None:
    """Why the active slave should be another one."""
    before = group.word.active
    if active == before:
        return None
    if before is None:
        first = group.word.generation == 0
        return Reason.FIRST if first else Reason.RECOVERED
    if before >= len(verdicts):
        return Reason.REMOVED
    if active in _usable(verdicts) and active == group.pinned:
        return Reason.OPERATOR
    if verdicts[before] is Verdict.DAMPED:
        return Reason.DAMPED
    return group.slots[before].sight.lack or Reason.PREFERRED


def _wake_at(group: Group, verdicts: list[Verdict]) -> float | None:
    """The first moment at which a verdict becomes another by itself."""
    ends = (ends_at(group, slot, each) for slot, each in enumerate(verdicts))
    return min((end for end in ends if end is not None), default=None)
