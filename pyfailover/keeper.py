# SPDX-License-Identifier: GPL-2.0-or-later
"""One group in a controller's care: what is seen of it becomes the word in force.

Joins the pure core to the maps and the packet sockets. Synchronous, quick, and
without an event loop: who calls it when is the controller's.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pyfailover import core
from pyfailover.announce import (
    Announcement,
    Announcer,
    Source,
    announcements,
    others,
)
from pyfailover.core import Sight
from pyfailover.datapath.abi import LinkState
from pyfailover.datapath.kernel_steps import KernelStep
from pyfailover.datapath.programs import ProgramSet
from pyfailover.errors import StateError
from pyfailover.ethtool import Ethtool
from pyfailover.journal import Record
from pyfailover.model import Address, Decider, Link, Policy, Reason, Word
from pyfailover.plan import master_of
from pyfailover.switching import Change, own_macs, send, shown, slave_names

# A message that is older than this is not on its way any more
# (linkwatch_nextevent: one second).
_STALE_S = 2.0


@dataclass(slots=True)
class View:
    """What a controller knows of its namespace's interfaces."""

    ethtool: Ethtool
    announcer: Announcer
    programs: ProgramSet | None = None
    links: dict[int, Link] = field(default_factory=dict)
    addresses: dict[tuple[int, str], Address] = field(default_factory=dict)
    touched: dict[int, float] = field(default_factory=dict)  # last event of a link

    @property
    def loaded(self) -> ProgramSet:
        """The programs.

        Raises:
            StateError: they are not loaded.
        """
        if self.programs is None:
            raise StateError("the programs of this namespace are not loaded")
        return self.programs


@dataclass(frozen=True, slots=True)
class Polled:
    """A group whose slaves are asked for their carrier, in another thread, too."""

    keeper: "Keeper"
    names: dict[int, str]  # by slot, of those that are there

    def news(self, ethtool: Ethtool) -> list[tuple[int, bool]]:
        """Slots whose slave is not as it is thought to be, and whether it is ready."""
        found = self.keeper.ready(self.names, ethtool)
        return [(n, ready) for n, ready in found.items() if ready is not self.knows(n)]

    def knows(self, slot: int) -> bool:
        """Whether a slave is thought to be ready."""
        return self.keeper.group.slots[slot].sight.ready


def _later(generation: int, than: int) -> bool:
    """Of two generations of a word, which begin again after 2^32 - 1."""
    return 0 < (generation - than) % 2**32 < 2**31


class Keeper:
    """A group that is attached."""

    def __init__(self, record: Record, view: View, now: float) -> None:
        self.record = record
        self._seats = record.slaves  # ifindexes by slot: found out once
        self._view = view
        self._own_macs: set[str] = set()
        self._announcements: list[Announcement] = []
        self.usable = 0
        self.wake_at: float | None = None
        self.carrier_wanted = True
        self._decider: Decider | None = None  # of the last change, if we saw it
        self._polled_at: dict[int, float] = {}  # changes that the poll saw, by slot
        self.lost: set[int] = set()  # ifindexes that went, until the record says so
        self._damped: dict[int, int] = {}  # times that were told, by slot
        self._steps: list[KernelStep] = []  # of programs, not adopted yet
        sights = [self.sight(slot) for slot in range(len(record.spec.slaves))]
        word = view.loaded.word(record.index)
        self._began_at = word.generation
        found = core.start(record.spec, word, sights, now)
        self._group = replace(found, pinned=record.pinned)

    @property
    def name(self) -> str:
        """Of the group."""
        return self.record.spec.name

    @property
    def group(self) -> core.Group:
        """What the core knows."""
        return self._group

    @property
    def names(self) -> dict[int, str]:
        """Of the slaves, by slot."""
        return slave_names(self.record, self._view.links)

    def face(self) -> Link | None:
        """The interface that the user talks through."""
        try:
            return master_of(self.record, self._view.links).face
        except StateError:
            return None

    def vacant(self) -> list[str]:
        """Rules of the slots whose slave is not there."""
        rules = self.record.spec.slaves
        return [rule for slot, rule in enumerate(rules) if self.link(slot) is None]

    def link(self, slot: int) -> Link | None:
        """The slave in a slot, as the view has it; None if it is not there."""
        ifindex = self._seats.get(slot, 0)
        return None if ifindex in self.lost else self._view.links.get(ifindex)

    def polled(self) -> Polled:
        """The slaves that are there."""
        links = self._view.links
        names = {
            slot: links[ifindex].name
            for slot, ifindex in self.record.slaves.items()
            if ifindex in links and ifindex not in self.lost
        }
        return Polled(self, names)

    def ready(self, names: Mapping[int, str], ethtool: Ethtool) -> dict[int, bool]:
        """Which of these slaves are ready at this moment, by slot.

        The programs know without waiting for the rtnl lock, where they can look at
        links; what they do not see may be there all the same. What nobody sees is
        gone; without such programs it may have another name since.
        """
        programs = self._view.programs
        looked = programs is not None and programs.carrier_test
        if programs is not None and looked:
            links = programs.links(self.record.index)
            seen = {n: links[n] for n in names if links[n] is not LinkState.NONE}
        else:
            seen = {}
        found = {n: state is LinkState.READY for n, state in seen.items()}
        for slot in names.keys() - found.keys():
            ready = ethtool.ready(names[slot])
            if ready is not None or looked:
                found[slot] = bool(ready)
        return found

    def _ready(self, slot: int, link: Link) -> bool:
        found = self.ready({slot: link.name}, self._view.ethtool)
        return found.get(slot, False)

    def sight(self, slot: int) -> Sight:
        """What the view has of a slave."""
        link = self.link(slot)
        return self._with_speed(core.sight_of(link), link)

    def _with_speed(self, sight: Sight, link: Link | None) -> Sight:
        """Only the policy that asks for it pays for it."""
        if link is None or self.record.spec.policy is not Policy.BETTER:
            return sight
        speed = self._view.ethtool.speed(link.name)
        return replace(sight, speed=speed.mbit, full_duplex=speed.full_duplex)

    # --- seeing -----------------------------------------------------------

    def see(self, slot: int, now: float) -> None:
        """A slave as the view has it. A message may be older than what the poll has
        seen, so one who is said to be ready is asked himself, and so is one who is
        said not to be if the poll saw a change of late: asking may have to wait for
        the rtnl lock. One that is being deleted, or moved away, is told to be down
        first."""
        link = self.link(slot)
        sight = core.sight_of(link)
        known = self._group.slots[slot].sight
        if link is not None and not link.up:
            sight = replace(sight, present=self._view.ethtool.up(link.name) is not None)
        stale = now < self._polled_at.get(slot, core.LONG_AGO) + _STALE_S
        if link is not None and sight.ready != known.ready and (sight.ready or stale):
            if self._ready(slot, link):
                sight = replace(sight, present=True, up=True, carrier=True)
            elif sight.ready:
                sight = replace(sight, carrier=False)
        self._observe(slot, self._with_speed(sight, link), now)

    def see_ready(self, slot: int, ready: bool, now: float) -> None:
        """A slave as the poll has seen it."""
        known, link = self._group.slots[slot].sight, self.link(slot)
        if link is not None and known.ready != ready:
            self._polled_at[slot] = now
            up = ready or self._view.ethtool.up(link.name)
            sight = replace(known, present=up is not None, up=bool(up), carrier=ready)
            self._observe(slot, self._with_speed(sight, link), now)

    def _observe(self, slot: int, sight: Sight, now: float) -> None:
        self._group = core.observe(self._group, slot, sight, now)

    def take(self, record: Record, now: float) -> None:
        """The record is another now; what is remembered stays."""
        self.lost = set()
        if record.pinned != self.record.pinned:  # by a command, past us
            self._group = core.pin(self._group, record.pinned)
        self._group = replace(self._group, spec=record.spec)
        self.record = record
        self._seats = record.slaves
        for slot in range(len(self._group.slots)):
            self.see(slot, now)
        self.prepare()

    def pin(self, slot: int | None) -> None:
        """The operator pinned the traffic, or unpinned it."""
        self._group = core.pin(self._group, slot)

    def hear(self, step: KernelStep) -> Change | None:
        """A program tells of a step.

        Returns:
            A change that nobody was there to see: it is only to be told.
        """
        if step.at < self._view.loaded.opened_at(self.record.index):
            return None  # of a group that had this place before
        if not _later(step.generation, self._began_at):
            return self._stepped(step)
        if _later(step.generation, self._group.word.generation):
            self._steps.append(step)
        return None

    # --- acting -----------------------------------------------------------

    def settle(
        self,
        now: float,
        since: float,
        *,
        reason: Reason | None = None,
        by: Decider = Decider.CONTROLLER,
    ) -> list[Change]:
        """Have the word in force that should be.

        Args:
            now, since: of time.monotonic(); it was due since then.
            reason, by: of a change, if known better than the core does.

        Returns:
            What changed: first what a program did meanwhile.
        """
        changes = self._catch_up(now, since)
        while True:
            decision = core.decide(self._group, now)
            before, after = self._group.word, decision.word
            if before == after:
                break
            left = before.active if before.active != after.active else None
            if self._view.loaded.swap(
                self.record.index,
                before,
                after,
                grace_slot=left,
                grace_ms=self.record.spec.rx_grace_ms,
            ):
                self._group = core.applied(self._group, after)
                if before.active != after.active:
                    why = reason or decision.reason or Reason.PREFERRED
                    changes.append(self._changed(before, after, why, by, since))
                break
            changes += self._catch_up(now, since)
        self.usable = decision.usable
        self.wake_at = decision.wake_at
        self.carrier_wanted = decision.carrier
        return changes

    def _catch_up(self, now: float, since: float) -> list[Change]:
        """Adopt the word in the map, if it is not the one that we know."""
        before = self._group.word
        found = self._view.loaded.word(self.record.index)
        steps, self._steps = self._steps, []
        if found == before:
            return []
        if found.by_kernel:  # who knew better than we
            seen = self.ready(self.polled().names, self._view.ethtool)
            for slot, ready in seen.items():
                self.see_ready(slot, ready, now)
        self._group = core.adopt(self._group, found, now)
        if found.by_kernel:
            return self._taken(before, found, steps)
        if found.active == before.active:
            return []
        why = Reason.FIRST if before.active is None else Reason.OPERATOR
        return [self._changed(before, found, why, Decider.USER, since)]

    def _taken(
        self, before: Word, found: Word, steps: Sequence[KernelStep]
    ) -> list[Change]:
        """The steps of programs from one word to another: each, if they told."""
        changes = [self._stepped(step) for step in steps]
        reached = steps[-1].after if steps else before.active
        if reached != found.active and found.active is not None:
            unheard = KernelStep(
                at=time.monotonic(),
                group=self.record.index,
                generation=found.generation,
                before=reached,
                after=found.active,
            )
            changes.append(self._stepped(unheard))
        return changes

    def _stepped(self, step: KernelStep) -> Change:
        """A program's step; not one packet was late for it."""
        return self._change(
            step.before,
            step.after,
            reason=self._lack(step.before),
            by=Decider.KERNEL,
            generation=step.generation,
            took_s=0.0,
            at=step.at,
        )

    def _lack(self, slot: int | None) -> Reason:
        """Why a program left a slave."""
        if slot is None:
            return Reason.RECOVERED
        return self._group.slots[slot].sight.lack or Reason.CARRIER_LOST

    def _changed(
        self, before: Word, after: Word, why: Reason, by: Decider, since: float
    ) -> Change:
        return self._change(
            before.active,
            after.active,
            reason=why,
            by=by,
            generation=after.generation,
            took_s=time.monotonic() - since,
        )

    def _change(
        self,
        before: int | None,
        after: int | None,
        *,
        reason: Reason,
        by: Decider,
        generation: int,
        took_s: float,
        at: float | None = None,
    ) -> Change:
        self._decider = by
        frames = sum(len(each.frames) for each in self._announcements)
        return Change(
            group=self.name,
            before=self._name_of(before),
            after=self._name_of(after),
            reason=reason,
            by=by,
            generation=generation,
            took_s=took_s,
            announced=frames if self.record.spec.announce_count else 0,
            at=at,
        )

    def _name_of(self, slot: int | None) -> str | None:
        if slot is None:
            return None
        link = self.link(slot)
        return self.record.spec.slaves[slot] if link is None else link.name

    def prepare(self) -> None:
        """Have the announcements made; none while the master is gone."""
        try:
            links, addresses = self._view.links, self._view.addresses.values()
            self._announcements = announcements(shown(self.record, links, addresses))
            self._own_macs = own_macs(self.record, links)
        except StateError:
            self._announcements = []

    def announce(self, sources: Iterable[Source]) -> int | None:
        """Announce the master once, and who else transmits through it; by how many
        frames. None: an interface refused them."""
        slave = self._name_of(self._group.word.active)
        if slave is None:
            return 0
        learned = others(sources, self._own_macs, slave)
        return send(self._view.announcer, [*self._announcements, learned])

    def leave(self) -> None:
        """Leave the group to itself: with nobody active no link that comes back
        would carry anything until the next controller."""
        word = self._group.word
        there = [n for n, slot in enumerate(self._group.slots) if slot.sight.present]
        if word.active is None and there:
            after = core.switched(word, there[0])
            self._view.loaded.swap(self.record.index, word, after)

    # --- telling ----------------------------------------------------------

    def newly_damped(self, now: float) -> dict[str, float]:
        """Slaves that changed too often since this was last asked, and for how many
        seconds each stays out."""
        fresh = {}
        for slot, state in enumerate(self._group.slots):
            if state.damped > self._damped.get(slot, 0):
                self._damped[slot] = state.damped
                fresh[self.names[slot]] = state.out_until - now
        return fresh

    def status(self, now: float) -> dict[str, object]:
        """What `status` shows beside what the maps and the kernel say."""
        pinned = self._group.pinned
        return {
            "decided_by": self._decider,
            "policy": self.record.spec.policy,
            "pinned": None if pinned is None else self.names[pinned],
            "usable": self.usable,
            "slaves": [self._slave_status(slot, now) for slot in self.names],
        }

    def _slave_status(self, slot: int, now: float) -> dict[str, object]:
        verdict = core.verdict(self._group, slot, now)
        ends = core.ends_at(self._group, slot, verdict)
        return {
            "verdict": verdict,
            "left_s": None if ends is None else round(max(0.0, ends - now), 3),
            "damped": self._group.slots[slot].damped,
        }
