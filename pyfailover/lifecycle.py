# SPDX-License-Identifier: GPL-2.0-or-later
"""Create, attach, detach and destroy groups."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace

from pyfailover.admission import refuse_macs, refuse_master
from pyfailover.datapath import hooks
from pyfailover.datapath.libbpf import possible_cpus
from pyfailover.errors import RefusedError, StateError, UnsupportedError
from pyfailover.journal import Record
from pyfailover.mending import Outcome, mend, retune, tune
from pyfailover.model import GroupSpec, Link, TcMode
from pyfailover.plan import (
    Master,
    Planner,
    has_master,
    make_master,
    master_of,
    no_interface,
)
from pyfailover.renewal import renew
from pyfailover.steps import Attach, OpenGroup, Step, from_data
from pyfailover.switching import announce_active
from pyfailover.transaction import Namespace

log = logging.getLogger(__name__)


def create(
    namespace: Namespace,
    spec: GroupSpec,
    *,
    max_groups: int | None = None,
    carrier_test: bool | None = None,
    patient: bool = False,
) -> Outcome:
    """Make a master and attach it.

    Args:
        max_groups, carrier_test: see Namespace.load().
        patient: slaves that are not there yet join later; one must be there.

    Raises:
        PyFailoverError: refused or failed; nothing is changed.
    """
    renew(namespace)
    record = namespace.journal.get(spec.name)
    links = namespace.netlink.links()
    if record is not None and has_master(record, links):
        return attach(
            namespace,
            spec,
            max_groups=max_groups,
            carrier_test=carrier_test,
            patient=patient,
        )
    if record is not None:
        namespace.retreat(record, 0)  # somebody deleted it
        links = namespace.netlink.links()
    record, planner, slaves = _prepare(namespace, spec, links, patient=patient)
    standbys = [link for slot, link in slaves.items() if spec.rank(slot)]
    like = standbys[0] if standbys else slaves[0]
    made = make_master(spec, links, like, queues=possible_cpus())
    coming = Link(
        ifindex=0, name=spec.name, mac=like.mac, mtu=like.mtu, up=True, carrier=True
    )
    refuse_macs(spec, coming, list(slaves.values()), created=True)
    _load(namespace, record, max_groups, carrier_test)

    def steps() -> Iterator[Step]:
        yield made
        links = namespace.netlink.links()
        yield from _build(record, planner, slaves, master_of(record, links))

    namespace.carry_out(record, steps())
    tune(namespace, record)
    announce_active(namespace, record)
    return Outcome.DONE


def attach(
    namespace: Namespace,
    spec: GroupSpec,
    *,
    max_groups: int | None = None,
    carrier_test: bool | None = None,
    patient: bool = False,
) -> Outcome:
    """Attach a master and its slaves; mend what is attached but not whole.

    Args:
        max_groups, carrier_test: see Namespace.load().
        patient: slaves that are not there yet join later; one must be there.

    Raises:
        PyFailoverError: refused or failed; nothing is changed.
    """
    renew(namespace)
    record = namespace.journal.get(spec.name)
    if record is not None and record.attached and namespace.host.programs is None:
        namespace.retreat(record, record.kept_by_detach)  # its pins were removed
        record = namespace.journal.get(spec.name)
    if record is not None and record.attached:
        _load(namespace, record, max_groups, carrier_test)  # refuses others
        retuned = retune(namespace, record, spec)
        done = mend(namespace, record)
        for rule in done.missing:
            log.warning("slave '%s' of '%s' is still missing", rule, spec.name)
        return Outcome.RETUNED if retuned else done.outcome
    links = namespace.netlink.links()
    made = [] if record is None else record.steps
    draft = Record(spec=spec, index=0, tc=spec.tc, steps=made)
    master = master_of(draft, links)
    record, planner, slaves = _prepare(namespace, spec, links, patient=patient)
    facts = planner.facts(master.port, links, planner.master_hook)
    refuse_master(facts, replace(spec, tc=record.tc))
    refuse_macs(spec, master.face, list(slaves.values()), created=draft.created)
    _load(namespace, record, max_groups, carrier_test)
    record.steps = made
    record.committed = len(made)
    namespace.carry_out(record, _build(record, planner, slaves, master))
    tune(namespace, record)
    announce_active(namespace, record)
    return Outcome.DONE


def _prepare(
    namespace: Namespace,
    spec: GroupSpec,
    links: Mapping[int, Link],
    *,
    patient: bool,
) -> tuple[Record, Planner, dict[int, Link]]:
    """A record without steps, and the slaves; refused if they may not be that."""
    tc = _resolve(spec.tc)
    records = namespace.journal.all()
    planner = Planner(namespace.host, spec, tc, records=records)
    slaves = planner.slaves(range(len(spec.slaves)), links)
    for slot, text in enumerate(spec.slaves):
        if slot not in slaves and not (patient and slaves):
            raise no_interface(text)
    taken = {r.index for name, r in records.items() if name != spec.name}
    index = next(i for i in range(len(taken) + 1) if i not in taken)
    return Record(spec=spec, index=index, tc=tc), planner, slaves


def _load(
    namespace: Namespace,
    record: Record,
    max_groups: int | None,
    carrier_test: bool | None,
) -> None:
    """Have the programs loaded, with room for the group."""
    namespace.load(max_groups, carrier_test)
    room = namespace.host.loaded.max_groups
    if record.index >= room:
        raise StateError(
            f"cannot attach '{record.spec.name}': the programs of this namespace "
            f"were loaded for {room} groups",
            hint="detach all of them and attach the first with --max-groups",
        )


def _build(
    record: Record, planner: Planner, slaves: Mapping[int, Link], master: Master
) -> Iterator[Step]:
    """All steps of a group whose master is there."""
    yield OpenGroup(index=record.index, master=master.port.ifindex)
    for slot, link in slaves.items():
        yield from planner.join(
            record.index, slot, link, master, created=record.created
        )
    yield from planner.engage(master.port)


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
