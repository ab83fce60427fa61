# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of groups as values and as text; reads, locks and changes nothing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pyfailover.journal import Journal, Record
from pyfailover.model import Link, Role, Side, TcMode, Word
from pyfailover.netlink import Netlink
from pyfailover.place import Roots
from pyfailover.steps import Attach, Host, from_data
from pyfailover.transaction import find_record, open_programs, paths


class Health(StrEnum):
    """Whether a group carries traffic, and would after a failure."""

    OK = "ok"
    DEGRADED = "degraded"  # traffic flows, redundancy or an attachment is missing
    DOWN = "down"  # traffic does not flow
    IDLE = "idle"  # a master of ours that is not attached


@dataclass(frozen=True, slots=True, kw_only=True)
class SlaveStatus:
    """One slave; counters are zero-based at attach and survive a re-plug."""

    slot: int
    rank: int
    role: Role
    name: str
    ifindex: int | None  # None: unplugged
    up: bool
    carrier: bool
    ready: bool
    active: bool
    approved: bool
    attached: bool
    counters: Mapping[str, int]

    @property
    def link(self) -> str:
        """The link in a word or two."""
        if self.ifindex is None:
            return "unplugged"
        if not self.up:
            return "down"
        return "up" if self.carrier else "no carrier"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatus:
    """One group."""

    name: str
    health: Health
    side: Side
    tc: TcMode
    created: bool
    master: str | None  # interface that is attached to; None: it is gone
    master_attached: bool
    active: str | None
    generation: int
    decided_by: str  # "user" or "kernel"
    slaves: Sequence[SlaveStatus]
    counters: Mapping[str, int]


def groups(roots: Roots, name: str | None = None) -> list[GroupStatus]:
    """The groups of this namespace, or the one of that name."""
    pins, run = paths(roots)
    journal = Journal(run)
    with Netlink() as netlink:
        if name is None:
            records = list(journal.all().values())
        else:
            found = find_record(journal, netlink, name)
            records = [] if found is None else [found]
        host = Host(netlink, pins, open_programs(pins) if records else None)
        try:
            links = netlink.links() if records else {}
            return [_group(record, host, links) for record in records]
        finally:
            if host.programs is not None:
                host.programs.close()


def _group(record: Record, host: Host, links: Mapping[int, Link]) -> GroupStatus:
    spec, programs = record.spec, host.programs
    live = record.attached and programs is not None
    word = (
        programs.word(record.index)
        if live and programs
        else Word(generation=0, active=None)
    )
    counters = programs.counters(record.index) if live and programs else None
    intact = {
        step.ifindex
        for step in map(from_data, record.steps)
        if isinstance(step, Attach) and step.intact(host)
    }
    slaves = []
    for slot, asked in enumerate(spec.slaves):
        link = links.get(record.slaves.get(slot, 0))
        slaves.append(
            SlaveStatus(
                slot=slot,
                rank=spec.rank(slot),
                role=spec.role(slot),
                name=asked if link is None else link.name,
                ifindex=None if link is None else link.ifindex,
                up=link is not None and link.up,
                carrier=link is not None and link.carrier,
                ready=link is not None and link.ready,
                active=word.active == slot,
                approved=bool(word.approved >> slot & 1),
                attached=link is not None and link.ifindex in intact,
                counters=counters.slaves[slot] if counters else {},
            )
        )
    master = links.get(record.master or 0)
    whole = master is not None and master.ifindex in intact
    active = next((s for s in slaves if s.active), None)
    return GroupStatus(
        name=spec.name,
        health=_health(record, slaves, active, whole),
        side=spec.side,
        tc=record.tc,
        created=record.created,
        master=None if master is None else master.name,
        master_attached=whole,
        active=None if active is None else active.name,
        generation=word.generation,
        decided_by="kernel" if word.by_kernel else "user",
        slaves=slaves,
        counters=counters.group if counters else {},
    )


def _health(
    record: Record,
    slaves: Sequence[SlaveStatus],
    active: SlaveStatus | None,
    whole: bool,
) -> Health:
    if not record.attached:
        return Health.IDLE
    if active is None or not (active.ready and active.attached and whole):
        return Health.DOWN
    good = all(s.ready and s.attached for s in slaves)
    return Health.OK if good else Health.DEGRADED


def table(group: GroupStatus) -> Iterator[str]:
    """A group in lines of at most 80 columns."""
    yield f"{group.name}: {group.health}, active {group.active or '-'}"
    yield (
        f" {group.side} master by {group.tc}, "
        f"generation {group.generation} by {group.decided_by}"
    )
    yield _row("RANK", "SLAVE", "LINK", "STATE", "TX PACKETS", "RX PACKETS", "RX DROP")
    for slave in group.slaves:
        yield _row(
            slave.rank,
            slave.name,
            slave.link,
            _state(slave),
            *(
                slave.counters.get(name, 0)
                for name in ("tx_packets", "rx_packets", "rx_drop_inactive")
            ),
        )
    dropped = group.counters.get("tx_drop_no_active", 0)
    if dropped:
        yield f" {dropped} packets dropped: no active slave"
    yield from _advice(group)


def _row(rank: int | str, slave: str, link: str, state: str, *numbers: object) -> str:
    figures = " ".join(f"{number:>12}" for number in numbers)
    return f" {rank:<4} {slave:<15} {link:<10} {state:<8} {figures}"


def _state(slave: SlaveStatus) -> str:
    if not slave.attached:
        return "detached"
    return "active" if slave.active else str(slave.role)


def _advice(group: GroupStatus) -> Iterator[str]:
    """What to do about what is wrong."""
    if group.health is Health.IDLE:
        yield f" idle: 'pyfailover attach {group.name} …' or 'destroy {group.name}'"
        return
    if group.master is None:
        yield f" its master is gone: 'pyfailover detach {group.name}'"
        return
    active = next((s for s in group.slaves if s.active), None)
    spare = next((s for s in group.slaves if s.ready and s.attached), None)
    if spare is not None and not (active and active.ready and active.attached):
        yield f" traffic is lost: 'pyfailover switch {group.name} {spare.name}'"
    plugged = [s for s in group.slaves if s.ifindex is not None]
    if not group.master_attached or not all(s.attached for s in plugged):
        yield " a program was detached: run the attach command again"
