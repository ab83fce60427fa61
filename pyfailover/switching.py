# SPDX-License-Identifier: GPL-2.0-or-later
"""Moving a group's traffic from slave to slave, and telling the network."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pyfailover import core
from pyfailover.announce import (
    Announcement,
    Announcer,
    Face,
    announcements,
    faces,
    others,
    uppers,
)
from pyfailover.errors import PyFailoverError, StateError
from pyfailover.history import Event, History, Kind
from pyfailover.journal import Record
from pyfailover.model import Address, Decider, Link, Reason, Side, Word
from pyfailover.plan import master_of
from pyfailover.transaction import Namespace

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of the active slave; names as they were then."""

    group: str
    before: str | None
    after: str | None
    reason: Reason
    by: Decider
    generation: int
    took_s: float  # from knowing that it was due to the word in the map
    announced: int = 0  # frames for it, each sent once or more often
    at: float | None = None  # of time.monotonic(); None: now

    def as_event(self) -> Event:
        """As it is written down."""
        ago = 0.0 if self.at is None else time.monotonic() - self.at
        return Event(
            time=time.time() - ago,
            group=self.group,
            kind=Kind.SWITCH,
            before=self.before,
            after=self.after,
            reason=self.reason,
            by=self.by,
            took_s=self.took_s,
            generation=self.generation,
        )


def switch(namespace: Namespace, name: str, slave: str | None) -> Change | None:
    """Pin a group's traffic to a slave, or leave it to the policy again.

    The pin is in the record: the next controller keeps to it.

    Args:
        slave: its name; None unpins.

    Returns:
        None if the traffic stays where it is.

    Raises:
        StateError: not attached, no such slave, or the slave is not ready.
    """
    record = namespace.record(name)
    if record is None or not record.attached:
        raise not_attached(name)
    links = namespace.netlink.links()
    slot = None if slave is None else slot_of(record, links, slave)
    record = pin(namespace, record.spec.name, slot)
    now = time.monotonic()

    def decide(word: Word) -> Word:
        sights = [
            core.sight_of(links.get(record.slaves.get(slot, 0)))
            for slot in range(len(record.spec.slaves))
        ]
        group = core.start(record.spec, word, sights, core.LONG_AGO)
        return core.decide(core.pin(group, record.pinned), now).word

    change = _move(namespace, record, links, decide)
    if change is not None:
        History(namespace.run).append(change.as_event())
    return change


def pin(namespace: Namespace, name: str, slot: int | None) -> Record:
    """Write down which slave the operator wants; the traffic stays where it is.

    Raises:
        StateError: not attached.
    """
    record = namespace.journal.get(name)
    if record is None or not record.attached:
        raise not_attached(name)
    record.pinned = slot
    namespace.journal.put(record)
    return record


def not_attached(name: str) -> StateError:
    """The error of a group that there is not."""
    return StateError(
        f"{name!r} is not attached", hint="'pyfailover status' lists groups"
    )


def slave_names(record: Record, links: Mapping[int, Link]) -> dict[int, str]:
    """Names by slot: the present one, or the rule of a slave that is not there."""
    return {
        slot: links[ifindex].name
        if (ifindex := record.slaves.get(slot, 0)) in links
        else rule
        for slot, rule in enumerate(record.spec.slaves)
    }


def slot_of(record: Record, links: Mapping[int, Link], slave: str) -> int:
    """The slot of a slave that traffic can be moved to.

    Raises:
        StateError: no such slave, or it is not ready.
    """
    what = f"cannot switch '{record.spec.name}' to {slave!r}"
    names = slave_names(record, links)
    slot = next((slot for slot, name in names.items() if name == slave), None)
    if slot is None:
        raise StateError(
            f"{what}: it is not one of its slaves",
            hint=f"its slaves are {', '.join(names.values())}",
        )
    link = links.get(record.slaves.get(slot, 0))
    if link is None:
        raise StateError(
            f"{what}: it was unplugged",
            hint="once it is back, run the attach command again",
        )
    if not link.up:
        raise StateError(f"{what}: it is down", hint=f"ip link set {slave} up")
    if not link.carrier:
        raise StateError(f"{what}: it has no carrier", hint="its link must be up first")
    return slot


def _move(
    namespace: Namespace,
    record: Record,
    links: Mapping[int, Link],
    decide: Callable[[Word], Word],
) -> Change | None:
    """Change the word, then tell the network at once.

    The announcements are made beforehand: until they are out, the far end still
    sends to the slave that was left. What follows the word is not timed.
    """
    made = announcements(shown(record, links, namespace.netlink.all_addresses()))
    programs, names = namespace.host.loaded, slave_names(record, links)
    with Announcer() as announcer:
        start = time.monotonic()
        before, after = programs.change(
            record.index, decide, grace_ms=record.spec.rx_grace_ms
        )
        took = time.monotonic() - start
        if before.active == after.active:
            return None
        if after.active is not None:
            sources = programs.sources().get(record.index, [])
            own = own_macs(record, links)
            made.append(others(sources, own, names[after.active]))
        for number in range(record.spec.announce_count):
            if number:
                time.sleep(record.spec.announce_interval_ms / 1000)
            send(announcer, made)
    frames = sum(len(each.frames) for each in made)
    return Change(
        group=record.spec.name,
        before=None if before.active is None else names[before.active],
        after=None if after.active is None else names[after.active],
        reason=Reason.OPERATOR,
        by=Decider.USER,
        generation=after.generation,
        took_s=took,
        announced=frames if record.spec.announce_count else 0,
    )


def announce_active(namespace: Namespace, record: Record) -> None:
    """Announce the master's addresses out of the slave that became active."""
    programs, name = namespace.host.loaded, record.spec.name
    if programs.word(record.index).active is None:
        until = (
            "one is" if programs.carrier_test else f"'pyfailover switch {name} SLAVE'"
        )
        log.warning(
            "no slave of '%s' is ready: its traffic is dropped until %s", name, until
        )
        return
    if not record.spec.announce_count:
        return
    links = namespace.netlink.links()
    with Announcer() as announcer:
        found = shown(record, links, namespace.netlink.all_addresses())
        send(announcer, announcements(found))


def send(announcer: Announcer, made: Iterable[Announcement]) -> int | None:
    """Send, and say how many frames; the traffic has moved by now, so a failure (None)
    is not the change's."""
    try:
        return announcer.send(made)
    except PyFailoverError as exc:
        log.warning("%s", exc)
        return None


def shown(
    record: Record, links: Mapping[int, Link], addresses: Iterable[Address]
) -> list[Face]:
    """What the network knows a master by; nothing for a wire master of others: it
    is behind it that somebody has addresses."""
    if _is_foreign_wire(record):
        return []
    return faces(master_of(record, links).face, links, addresses)


def own_macs(record: Record, links: Mapping[int, Link]) -> set[str]:
    """MAC addresses of a master and of what stands on it, with addresses or not."""
    if _is_foreign_wire(record):
        return set()
    face = master_of(record, links).face
    return {face.mac, *(link.mac for link in uppers(face.ifindex, links))}


def _is_foreign_wire(record: Record) -> bool:
    return record.spec.side is Side.WIRE and not record.created
