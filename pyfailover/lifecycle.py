# SPDX-License-Identifier: GPL-2.0-or-later
"""Create, attach, mend, detach and destroy groups."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from enum import StrEnum

from pyfailover.admission import refuse_macs, refuse_master
from pyfailover.datapath import hooks
from pyfailover.datapath.libbpf import possible_cpus
from pyfailover.errors import RefusedError, StateError, UnsupportedError
from pyfailover.journal import Record
from pyfailover.model import GroupSpec, Link, TcMode
from pyfailover.plan import Master, Planner, find, has_master, make_master, master_of
from pyfailover.steps import (
    Attach,
    MakeClsact,
    OpenGroup,
    Seat,
    SetLink,
    Step,
    concerns,
    from_data,
)
from pyfailover.switching import announce_active
from pyfailover.transaction import Namespace

log = logging.getLogger(__name__)


class Outcome(StrEnum):
    """What a request came to."""

    DONE = "done"
    MENDED = "mended"
    UNCHANGED = "unchanged"


def create(
    namespace: Namespace, spec: GroupSpec, *, max_groups: int | None = None
) -> Outcome:
    """Make a master and attach it.

    Raises:
        PyFailoverError: refused or failed; nothing is changed.
    """
    record = namespace.journal.get(spec.name)
    links = namespace.netlink.links()
    if record is not None and has_master(record, links):
        return attach(namespace, spec, max_groups=max_groups)
    if record is not None:
        namespace.retreat(record, 0)  # somebody deleted it
    like = find(links, spec.standbys[0] if spec.standbys else spec.slaves[0])
    made = make_master(spec, links, like, queues=possible_cpus())
    coming = Link(
        ifindex=0, name=spec.name, mac=like.mac, mtu=like.mtu, up=True, carrier=True
    )
    record, planner = _prepare(
        namespace, spec, links, Master(coming, coming), max_groups, created=True
    )

    def steps() -> Iterator[Step]:
        yield made
        links = namespace.netlink.links()
        yield from _build(record, planner, links, master_of(record, links))

    namespace.carry_out(record, steps())
    announce_active(namespace, record)
    return Outcome.DONE


def attach(
    namespace: Namespace, spec: GroupSpec, *, max_groups: int | None = None
) -> Outcome:
    """Attach a master and its slaves; mend what is attached but not whole.

    Raises:
        PyFailoverError: refused or failed; nothing is changed.
    """
    record = namespace.journal.get(spec.name)
    if record is not None and record.attached and namespace.host.programs is None:
        namespace.retreat(record, record.kept_by_detach)  # its pins were removed
        record = namespace.journal.get(spec.name)
    if record is not None and record.attached:
        return _mend(namespace, record, spec)
    links = namespace.netlink.links()
    made = [] if record is None else record.steps
    draft = Record(spec=spec, index=0, tc=spec.tc, steps=made)
    master = master_of(draft, links)
    record, planner = _prepare(
        namespace, spec, links, master, max_groups, created=draft.created
    )
    record.steps = made
    record.committed = len(made)
    namespace.carry_out(record, _build(record, planner, links, master))
    announce_active(namespace, record)
    return Outcome.DONE


def _prepare(
    namespace: Namespace,
    spec: GroupSpec,
    links: Mapping[int, Link],
    master: Master,
    max_groups: int | None,
    *,
    created: bool,
) -> tuple[Record, Planner]:
    """Refuse what must be refused, then have the programs loaded."""
    tc = _resolve(spec.tc)
    records = namespace.journal.all()
    planner = Planner(
        namespace.netlink, spec, tc, records=records, ours=namespace.host.ours()
    )
    if master.port.ifindex:
        facts = planner.facts(master.port, links, planner.master_hook)
        refuse_master(facts, replace(spec, tc=tc))
    slaves = [planner.slave(name, links) for name in spec.slaves]
    refuse_macs(spec, master.face, slaves, created=created)
    namespace.load(max_groups)
    taken = {r.index for name, r in records.items() if name != spec.name}
    index = next(i for i in range(len(taken) + 1) if i not in taken)
    room = namespace.host.loaded.max_groups
    if index >= room:
        raise StateError(
            f"cannot attach '{spec.name}': the programs of this namespace were "
            f"loaded for {room} groups",
            hint="detach all of them and attach the first with --max-groups",
        )
    return Record(spec=spec, index=index, tc=tc), planner


def _build(
    record: Record, planner: Planner, links: Mapping[int, Link], master: Master
) -> Iterator[Step]:
    """All steps of a group whose master is there."""
    yield OpenGroup(index=record.index, master=master.port.ifindex)
    for slot, name in enumerate(record.spec.slaves):
        yield from planner.join(
            record.index, slot, find(links, name), master, created=record.created
        )
    yield from planner.engage(master.port)


def _mend(namespace: Namespace, record: Record, spec: GroupSpec) -> Outcome:
    """Take re-created slaves in again and attach what was detached."""
    _refuse_other(record.spec, spec)
    planner = Planner(
        namespace.netlink,
        spec,
        record.tc,
        records=namespace.journal.all(),
        ours=namespace.host.ours(),
    )
    links = namespace.netlink.links()
    master = master_of(record, links)
    gone = _gone(namespace, record, links)
    vacant = set(range(len(spec.slaves))) - set(record.slaves)
    vacant |= {slot for slot, ifindex in record.slaves.items() if ifindex in gone}
    fresh = _returned(planner, spec, vacant, links)
    refuse_macs(spec, master.face, list(fresh.values()), created=record.created)
    mended = _reattach(namespace, record, gone)
    for ifindex in gone:
        _forget(namespace, record, ifindex)
    if not fresh:
        return Outcome.MENDED if mended or gone else Outcome.UNCHANGED

    def steps() -> Iterator[Step]:
        for slot, link in fresh.items():
            yield from planner.join(
                record.index, slot, link, master, created=record.created
            )

    active = namespace.host.loaded.word(record.index).active
    namespace.carry_out(record, steps())
    if namespace.host.loaded.word(record.index).active != active:
        announce_active(namespace, record)
    return Outcome.MENDED


def _gone(namespace: Namespace, record: Record, links: Mapping[int, Link]) -> set[int]:
    """ifindexes of slaves that were deleted, another in their place or not.

    A tcx link knows that its device died. A filter does not: one that is missing
    from a device which is not as we set it up was another device's.
    """
    steps = [from_data(data) for data in record.steps]
    strange = {
        step.device.ifindex
        for step in steps
        if isinstance(step, SetLink) and step.is_undone_on(links)
    }
    dead = {
        step.ifindex
        for step in steps
        if isinstance(step, Attach)
        and (
            step.orphaned(namespace.host)
            or (step.ifindex in strange and not step.intact(namespace.host))
        )
    }
    return {i for i in record.slaves.values() if i not in links or i in dead}


def _returned(
    planner: Planner, spec: GroupSpec, vacant: set[int], links: Mapping[int, Link]
) -> dict[int, Link]:
    """Interfaces for vacant slots, of those that are there."""
    present = {link.name for link in links.values()}
    found = {}
    for slot in sorted(vacant):
        name = spec.slaves[slot]
        if name in present:
            found[slot] = planner.slave(name, links)
        else:
            log.warning("slave '%s' of '%s' is still missing", name, spec.name)
    return found


def _reattach(namespace: Namespace, record: Record, gone: set[int]) -> bool:
    """Put back attachments that somebody removed."""
    steps = [from_data(data) for data in record.steps]
    broken = {
        step.ifindex
        for step in steps
        if isinstance(step, Attach)
        and step.ifindex not in gone
        and not step.intact(namespace.host)
    }
    for step in steps:
        if isinstance(step, Attach | MakeClsact) and any(
            concerns(step, ifindex) for ifindex in broken
        ):
            step.apply(namespace.host)
    return bool(broken)


def _forget(namespace: Namespace, record: Record, ifindex: int) -> None:
    """Drop the steps of a device that is gone, and what of ours outlived it.

    Its settings went with it: they are not restored on one that has its index.
    """
    mine = [data for data in record.steps if concerns(from_data(data), ifindex)]
    for step in map(from_data, reversed(mine)):
        if isinstance(step, Seat | Attach):
            step.revert(namespace.host)
    record.steps = [data for data in record.steps if data not in mine]
    record.committed = len(record.steps)
    namespace.journal.put(record)


def detach(namespace: Namespace, name: str) -> Outcome:
    """Take a group's traffic back and restore what was changed.

    A master that pyfailover made stays, idle, until it is destroyed.
    """
    record = namespace.record(name)
    if record is None or not record.attached:
        return Outcome.UNCHANGED
    keep = record.kept_by_detach
    if record.created and not has_master(record, namespace.netlink.links()):
        keep = 0  # somebody deleted it
    namespace.retreat(record, keep)
    return Outcome.DONE


def destroy(namespace: Namespace, name: str) -> Outcome:
    """Detach a group and delete its master.

    Raises:
        RefusedError: the master was not made by pyfailover.
    """
    record = namespace.record(name)
    if record is None:
        if any(link.name == name for link in namespace.netlink.links().values()):
            raise RefusedError(
                f"cannot destroy '{name}': pyfailover did not make it",
                hint="ip link del deletes interfaces",
            )
        return Outcome.UNCHANGED
    if not record.created:
        raise RefusedError(
            f"cannot destroy '{name}': pyfailover did not make it",
            hint=f"pyfailover detach {name}",
        )
    namespace.retreat(record, 0)
    return Outcome.DONE


def purge(namespace: Namespace) -> list[str]:
    """Remove what is ours but in no record: `detach --force`.

    Settings of devices cannot be restored, since nothing tells what they
    were; a clsact qdisc stays, since nothing tells who made it.

    Returns:
        What was removed, in words.
    """
    recorded = {
        (step.ifindex, step.hook)
        for record in namespace.journal.all().values()
        for step in map(from_data, record.steps)
        if isinstance(step, Attach)
    }
    removed = []
    for stale in hooks.all_attachments(namespace.host.pins, namespace.netlink.links()):
        if (stale.ifindex, stale.hook) not in recorded:
            stale.detach(namespace.host.ours())
            removed.append(str(stale))
    indexes = {record.index for record in namespace.journal.all().values()}
    if namespace.host.programs is not None:
        for port in namespace.host.programs.ports().values():
            if port.group not in indexes:
                namespace.host.programs.close_group(port.group)
    namespace.settle()
    return removed


def _resolve(wanted: TcMode) -> TcMode:
    """The way to attach that this kernel has."""
    if wanted is TcMode.CLSACT:
        return wanted
    if hooks.has_tcx():
        return TcMode.TCX
    if wanted is TcMode.TCX:
        raise UnsupportedError(
            "cannot attach by tcx: this kernel has none (requires Linux 6.6)",
            hint="--tc clsact",
        )
    return TcMode.CLSACT


def _refuse_other(attached: GroupSpec, wanted: GroupSpec) -> None:
    for field in fields(GroupSpec):
        old, new = getattr(attached, field.name), getattr(wanted, field.name)
        if old != new:
            raise StateError(
                f"'{wanted.name}' is attached already, with {field.name} "
                f"{_shown(old)} instead of {_shown(new)}",
                hint=f"pyfailover detach {wanted.name} first",
            )


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
