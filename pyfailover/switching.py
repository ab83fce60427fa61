# SPDX-License-Identifier: GPL-2.0-or-later
"""Moving a group's traffic from slave to slave, and telling the network."""

import logging
import time
from dataclasses import dataclass

from pyfailover import announce, core
from pyfailover.errors import PyFailoverError, StateError
from pyfailover.journal import Record
from pyfailover.model import Side
from pyfailover.plan import find, master_of
from pyfailover.transaction import Namespace

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """A change of the active slave."""

    before: str | None
    after: str
    generation: int
    announced: int  # frames sent
    took_s: float  # from reading the word to the last announcement


def switch(namespace: Namespace, name: str, slave: str) -> Switch | None:
    """Move a group's traffic to a slave and announce it; None if it is there.

    Raises:
        StateError: not attached, no such slave, or the slave is not ready.
    """
    record = namespace.record(name)
    if record is None or not record.attached:
        raise StateError(
            f"'{name}' is not attached", hint="'pyfailover status' lists groups"
        )
    slot = _slot(namespace, record, slave)
    if namespace.host.loaded.word(record.index).active == slot:
        return None
    return _move(namespace, record, slot)


def _slot(namespace: Namespace, record: Record, slave: str) -> int:
    """The slot of a slave that traffic can be moved to."""
    links = namespace.netlink.links()
    what = f"cannot switch '{record.spec.name}' to '{slave}'"
    there = {
        links[ifindex].name: slot
        for slot, ifindex in record.slaves.items()
        if ifindex in links
    }
    if slave not in there:
        if slave in record.spec.slaves:
            raise StateError(
                f"{what}: it was unplugged",
                hint="once it is back, run the attach command again",
            )
        raise StateError(
            f"{what}: it is not one of its slaves",
            hint=f"its slaves are {', '.join(record.spec.slaves)}",
        )
    link = find(links, slave)
    if not link.up:
        raise StateError(f"{what}: it is down", hint=f"ip link set {slave} up")
    if not link.carrier:
        raise StateError(f"{what}: it has no carrier", hint="its link must be up first")
    return there[slave]


def _move(namespace: Namespace, record: Record, slot: int) -> Switch:
    """Change the word, then tell the network at once.

    The announcements are made beforehand: until they are out, the far end still
    sends to the slave that was left.
    """
    with announcer_of(namespace, record) as announcer:
        start = time.monotonic()
        before, after = namespace.host.loaded.change(
            record.index,
            lambda word: core.switched(word, slot),
            grace_ms=record.spec.rx_grace_ms,
        )
        sent = _send(announcer)
        took = time.monotonic() - start
    names = record.spec.slaves
    return Switch(
        before=None if before.active is None else names[before.active],
        after=names[slot],
        generation=after.generation,
        announced=sent,
        took_s=took,
    )


def announce_active(namespace: Namespace, record: Record) -> None:
    """Announce the master's addresses out of the slave that became active."""
    if namespace.host.loaded.word(record.index).active is None:
        log.warning(
            "no slave of '%s' is ready: its traffic is dropped until "
            "'pyfailover switch %s SLAVE'",
            record.spec.name,
            record.spec.name,
        )
        return
    with announcer_of(namespace, record) as announcer:
        _send(announcer)


def _send(announcer: announce.Announcer) -> int:
    """Send; the traffic has moved by now, so a failure is not the change's."""
    try:
        return announcer.send()
    except PyFailoverError as exc:
        log.warning("%s", exc)
        return 0


def announcer_of(namespace: Namespace, record: Record) -> announce.Announcer:
    """For the master's own addresses; behind a wire master of others we know none."""
    nothing = announce.Announcer(None, [])
    if record.spec.side is Side.WIRE and not record.created:
        return nothing
    master = master_of(record, namespace.netlink.links()).face
    if not master.up:
        return nothing
    addresses = [
        a.address
        for a in namespace.netlink.addresses(master.ifindex)
        if not a.tentative
    ]
    return announce.Announcer(master.name, announce.frames(master.mac, addresses))
