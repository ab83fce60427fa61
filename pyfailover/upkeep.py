# SPDX-License-Identifier: GPL-2.0-or-later
"""What a controller does to its namespace under the lock, in a thread of its own.

Each function is one piece of work on a locked namespace: it may wait for the
kernel, and what it has found or done goes back as a value.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pyfailover import lifecycle, mending
from pyfailover.errors import PyFailoverError, UnsupportedError
from pyfailover.journal import Record
from pyfailover.mending import Mended
from pyfailover.model import Address, Link, Side
from pyfailover.plan import has_master, master_of
from pyfailover.steps import Attach, Device, Seat, TakeCarrier, from_data, made_ends
from pyfailover.transaction import Namespace


@dataclass(slots=True, kw_only=True)
class Dump:
    """All of a namespace, and what was found to be broken."""

    started: float  # time.monotonic(): older than events that came meanwhile
    links: dict[int, Link]
    addresses: list[Address]
    records: dict[str, Record]
    broken: list[str] = field(default_factory=list)
    cost_s: float = 0.0  # of a CPU


def dump(namespace: Namespace) -> Dump:
    """Read everything, and see which groups are not as their records say."""
    started, cpu_s = time.monotonic(), time.thread_time()
    records = {n: r for n, r in namespace.journal.all().items() if r.attached}
    found = Dump(
        started=started,
        links=namespace.netlink.links(),
        addresses=namespace.netlink.all_addresses(),
        records=records,
        broken=[n for n, record in records.items() if not _intact(namespace, record)],
    )
    found.cost_s = time.thread_time() - cpu_s
    return found


def mend_all(namespace: Namespace, done: Collection[str]) -> dict[str, PyFailoverError]:
    """Make groups whole; what of them could not be. One look at everything tells
    which need it: to look once for each takes minutes where there are hundreds.

    Args:
        done: groups that need no look.
    """
    found, failed = dump(namespace), {}
    for name, record in found.records.items():
        whole = name not in found.broken and _all_there(record, found.links)
        if name not in done and not whole:
            try:
                mend(namespace, name, None)
            except PyFailoverError as exc:
                failed[name] = exc
    return failed


def _all_there(record: Record, links: Mapping[int, Link]) -> bool:
    """Whether a group has its master and all of its slaves."""
    seated = record.slaves
    return (
        len(seated) == len(record.spec.slaves)
        and links.keys() >= set(seated.values())
        and has_master(record, links)
    )


def _intact(namespace: Namespace, record: Record) -> bool:
    """Whether attachments and maps are as recorded."""
    if namespace.host.programs is None:
        return False
    return all(
        step.intact(namespace.host)
        for step in map(from_data, record.steps)
        if isinstance(step, Attach | Seat)
    )


def give_back_carriers(namespace: Namespace) -> None:
    """Give the masters the carrier back that a controller took."""
    for record in namespace.journal.all().values():
        namespace.take_back(record, TakeCarrier)


def mend(namespace: Namespace, name: str, lost: Collection[int] | None) -> Mended:
    """Make a group whole.

    Raises:
        PyFailoverError: a slave that is there cannot join, or the master is gone.
    """
    record = namespace.journal.get(name)
    if record is None or not record.attached:
        return Mended()
    if _must_begin_anew(namespace, record):
        if namespace.host.programs is not None:
            namespace.retreat(record, record.kept_by_detach)
        lifecycle.attach(namespace, record.spec, patient=True)
        again = namespace.journal.get(name)
        if again is not None:
            again.pinned, again.lasting = record.pinned, record.lasting
            namespace.journal.put(again)
        done = Mended(repaired=["all of it"])
    else:
        done = mending.mend(namespace, record, lost=lost)
    return done


def _must_begin_anew(namespace: Namespace, record: Record) -> bool:
    """Whether the pins were removed, or a master of somebody else's is another
    interface now."""
    if namespace.host.programs is None:
        return True
    if record.created:
        return False
    links = namespace.netlink.links()
    named = any(link.name == record.spec.name for link in links.values())
    return record.master not in links and named


def set_up_again(namespace: Namespace, ifindex: int) -> None:
    """Set a slave up after a rename (net_failover_slave_name_change)."""
    link = namespace.netlink.link(ifindex)
    if link is not None and not link.up:
        namespace.netlink.set_up(ifindex, True)


def follow_mtu(namespace: Namespace, name: str) -> list[str]:
    """Give a group's slaves the MTU of its master.

    Raises:
        PyFailoverError: one refused, and all are as before.
    """
    record = namespace.journal.get(name)
    return [] if record is None else mending.follow_mtu(namespace, record)


def can_take_carrier(namespace: Namespace, name: str) -> bool:
    """Whether the master's carrier can be made to follow its slaves'."""
    record = namespace.journal.get(name)
    if record is None:
        return False
    if record.created:
        return record.spec.side is Side.STACK
    try:
        face = master_of(record, namespace.netlink.links()).face
        namespace.netlink.set_carrier(face.ifindex, face.carrier)  # as it is
    except UnsupportedError:
        return False
    except PyFailoverError:  # the master is gone this moment
        return False
    return True


def set_carrier(namespace: Namespace, name: str, *, on: bool) -> bool:
    """Take a master's carrier, or give it back; False if that was done already.

    Raises:
        PyFailoverError: the kernel refused; nothing is changed.
    """
    record = namespace.journal.get(name)
    if record is None or not record.attached or record.carrier_taken is not on:
        return False
    if on:
        namespace.take_back(record, TakeCarrier)
        return True
    links = namespace.netlink.links()
    device = master_of(record, links).face
    ends = made_ends(links, record.low_mac) if record.created else None
    if ends is not None:
        device = ends.low
    step = TakeCarrier(
        device=Device(ifindex=device.ifindex, name=device.name, macs=(device.mac,)),
        lower=ends is not None,
    )
    namespace.carry_out(record, [step])
    return True
