# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of groups as values and as text; reads, locks and changes nothing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from textwrap import wrap
from typing import Any

from pyfailover.datapath.readings import Counters, Readings
from pyfailover.journal import Journal, Record
from pyfailover.model import (
    IFNAME_MAX,
    NOBODY,
    Link,
    Policy,
    Role,
    RxMode,
    Side,
    TcMode,
)
from pyfailover.netlink.dump import all_links
from pyfailover.place import Roots
from pyfailover.steps import Attach, from_data
from pyfailover.transaction import find_record, paths, read_programs

_WIDTH = 80
_NOTHING = Counters({}, {})


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
    verdict: str | None = None  # the controller's; None: there is none
    left_s: float | None = None  # until that is another by itself
    damped: int = 0  # times that it changed too often

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
    decided_by: str  # "user" or "kernel"; "controller" if there is one to say so
    slaves: Sequence[SlaveStatus]
    counters: Mapping[str, int]
    policy: Policy
    pinned: str | None  # slave that the operator holds the traffic on
    rx: RxMode = RxMode.ACTIVE
    stepped_at: float | None = None  # unix seconds: when a program did, last
    carrier_test: bool | None = None  # whether programs look at links; None: none
    carrier: str | None = None  # what becomes of the master's
    degraded_since: float | None = None  # unix seconds
    trouble: str | None = None  # what the controller could not do


def groups(
    roots: Roots, name: str | None = None, controller: Mapping[str, Any] | None = None
) -> list[GroupStatus]:
    """The groups of this namespace, or the one of that name.

    Args:
        controller: what it says of itself, if there is one.
    """
    pins, run = paths(roots)
    journal = Journal(run)
    links = {link.ifindex: link for link in all_links()}
    if name is None:
        records = list(journal.all().values())
    else:
        found = find_record(journal, lambda: links, name)
        records = [] if found is None else [found]
    highest = max((record.index for record in records), default=0)
    said = read_programs(pins, highest + 1) if records else None
    listed = [_group(record, pins, said, links) for record in records]
    return [_completed(group, controller) for group in listed]


def _completed(group: GroupStatus, controller: Mapping[str, Any] | None) -> GroupStatus:
    """With what only the controller knows."""
    if controller is None:
        return group
    group = replace(group, trouble=controller["troubles"].get(group.name))
    known = controller["groups"].get(group.name)
    if known is None or len(known["slaves"]) != len(group.slaves):  # made anew
        return group
    slaves = [
        replace(slave, **said)
        for slave, said in zip(group.slaves, known["slaves"], strict=True)
    ]
    idle = any(slave.verdict not in (None, "usable") for slave in slaves)
    worse = group.health is Health.OK and idle
    return replace(
        group,
        health=Health.DEGRADED if worse else group.health,
        slaves=slaves,
        carrier=known["carrier"],
        degraded_since=known["degraded_since"],
        decided_by=known["decided_by"] or group.decided_by,
    )


def waiting(
    found: Sequence[GroupStatus], controller: Mapping[str, Any] | None
) -> dict[str, str]:
    """Declared groups that the controller could not attach yet, and why."""
    troubles = {} if controller is None else controller["troubles"]
    known = {group.name for group in found}
    return {name: why for name, why in troubles.items() if name not in known}


def _group(
    record: Record, pins: Path, said: Readings | None, links: Mapping[int, Link]
) -> GroupStatus:
    spec = record.spec
    if said is not None and record.attached:
        word = said.word(record.index)
        counters = said.counters(record.index, len(spec.slaves))
        tested, ours = said.carrier_test, said.program_ids
        stepped_at = said.stepped_at(record.index)
    else:
        word, counters, tested = NOBODY, _NOTHING, None
        ours, stepped_at = frozenset(), None
    intact = {
        step.ifindex
        for step in map(from_data, record.of("Attach"))
        if isinstance(step, Attach) and step.attachment(pins).attached(ours)
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
                counters=counters.slaves.get(slot, {}),
            )
        )
    master = links.get(record.master or 0)
    whole = master is not None and master.ifindex in intact
    active = next((s for s in slaves if s.active), None)
    return GroupStatus(
        name=spec.name,
        health=_health(record, slaves, active, whole, tested=tested),
        carrier_test=tested,
        side=spec.side,
        tc=record.tc,
        created=record.created,
        master=None if master is None else master.name,
        master_attached=whole,
        active=None if active is None else active.name,
        generation=word.generation,
        decided_by="kernel" if word.by_kernel else "user",
        slaves=slaves,
        counters=counters.group,
        stepped_at=stepped_at,
        rx=spec.rx,
        policy=spec.policy,
        pinned=None if record.pinned is None else slaves[record.pinned].name,
    )


def _health(
    record: Record,
    slaves: Sequence[SlaveStatus],
    active: SlaveStatus | None,
    whole: bool,
    *,
    tested: bool | None,
) -> Health:
    if not record.attached:
        return Health.IDLE
    good = [s for s in slaves if s.ready and s.attached]
    # Programs that look at links leave one that is not ready with the next packet.
    leaves = tested and not (active and active.ready)
    carries = bool(good) if leaves else active in good
    if not (carries and whole):
        return Health.DOWN
    return Health.OK if len(good) == len(slaves) else Health.DEGRADED


def table(group: GroupStatus) -> Iterator[str]:
    """A group in lines of at most 80 columns."""
    yield f"{group.name}: {group.health}, active {_short(group.active or '-')}"
    test = {True: ", carrier test on", False: ", carrier test off", None: ""}
    yield (
        f" {group.side} master by {group.tc}{test[group.carrier_test]}, "
        f"generation {group.generation} by {group.decided_by}"
    )
    pinned = f", pinned to {_short(group.pinned)}" if group.pinned else ""
    carrier = f", carrier {group.carrier}" if group.carrier else ""
    yield f" policy {group.policy}{pinned}{carrier}"
    if group.degraded_since is not None and group.health is not Health.OK:
        moment = datetime.fromtimestamp(group.degraded_since, UTC).astimezone()
        yield f" degraded since {moment:%Y-%m-%d %H:%M:%S}"
    yield _row("RANK", "SLAVE", "LINK", "STATE", "TX PACKETS", "RX PACKETS", "RX DROP")
    for slave in group.slaves:
        yield _row(
            slave.rank,
            _short(slave.name),
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
    for slave in group.slaves:
        yield from _remarks(slave)
    yield from _advice(group)


def _remarks(slave: SlaveStatus) -> Iterator[str]:
    """Why the controller does not use a slave that looks ready."""
    if slave.left_s is not None:
        yield f" {slave.name}: {slave.verdict}, {slave.left_s:.1f} s left"
    elif slave.verdict == "held":
        yield f" {slave.name}: held until 'pyfailover switch'"
    if slave.damped:
        times = "time" if slave.damped == 1 else "times"
        yield f" {slave.name}: damped {slave.damped} {times} for changing too often"


def _short(name: str) -> str:
    """The rule of a slave that is not there may be longer than any name."""
    return name if len(name) <= IFNAME_MAX else f"{name[: IFNAME_MAX - 1]}…"


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
    if group.trouble is not None:
        yield from wrap(
            f"trouble: {group.trouble}",
            _WIDTH,
            initial_indent=" ",
            subsequent_indent="  ",
            break_on_hyphens=False,
        )
    spare = next((s for s in group.slaves if s.ready and s.attached), None)
    if spare is not None and group.health is Health.DOWN and group.master_attached:
        yield f" traffic is lost: 'pyfailover switch {group.name} {spare.name}'"
    plugged = [s for s in group.slaves if s.ifindex is not None]
    if not group.master_attached or not all(s.attached for s in plugged):
        yield " a program was detached: run the attach command again"
