# SPDX-License-Identifier: GPL-2.0-or-later
"""Making an attached group whole again: slaves that came back, programs that
somebody took off, maps that say something else than the record."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum

from pyfailover.admission import refuse_macs
from pyfailover.errors import PyFailoverError, StateError
from pyfailover.journal import Record
from pyfailover.model import TUNABLE, GroupSpec, Link
from pyfailover.plan import Planner, master_of
from pyfailover.steps import (
    Attach,
    Device,
    MakeClsact,
    Seat,
    SetLink,
    Setting,
    concerns,
    from_data,
    made_ends,
    to_data,
)
from pyfailover.switching import announce_active
from pyfailover.transaction import Namespace


class Outcome(StrEnum):
    """What a request came to."""

    DONE = "done"
    MENDED = "mended"
    RETUNED = "retuned"
    UNCHANGED = "unchanged"


@dataclass(slots=True, kw_only=True)
class Mended:
    """What was done to a group."""

    gone: set[int] = field(default_factory=set)  # ifindexes that were forgotten
    joined: dict[int, Link] = field(default_factory=dict)  # by slot
    missing: list[str] = field(default_factory=list)  # rules of empty slots
    repaired: list[str] = field(default_factory=list)  # what was put right

    @property
    def outcome(self) -> Outcome:
        """In a word."""
        done = self.gone or self.joined or self.repaired
        return Outcome.MENDED if done else Outcome.UNCHANGED


def mend(
    namespace: Namespace, record: Record, *, lost: Collection[int] | None = None
) -> Mended:
    """Take re-created slaves in again and attach what was detached.

    Args:
        lost: ifindexes of slaves that are known to have gone, even if there is an
            interface of that index again; None: to be found out.

    Raises:
        PyFailoverError: refused or failed; no slave joined.
    """
    spec = record.spec
    planner = Planner(namespace.host, spec, record.tc, records=namespace.journal.all())
    links = namespace.netlink.links()
    master = master_of(record, links)
    done = Mended(gone=_gone(namespace, record, links, lost))
    vacant = set(range(len(spec.slaves))) - set(record.slaves)
    vacant |= {slot for slot, ifindex in record.slaves.items() if ifindex in done.gone}
    seated = set(record.slaves.values()) - done.gone
    done.joined = planner.slaves(vacant, links, seated)
    done.missing = [spec.slaves[slot] for slot in sorted(vacant - set(done.joined))]
    refuse_macs(spec, master.face, list(done.joined.values()), created=record.created)
    done.repaired = _repair(namespace, record, done.gone)
    tune(namespace, record)
    for ifindex in done.gone:
        _forget(namespace, record, ifindex)
    if done.joined:
        active = namespace.host.loaded.word(record.index).active
        namespace.carry_out(
            record,
            (
                step
                for slot, link in done.joined.items()
                for step in planner.join(
                    record.index, slot, link, master, created=record.created
                )
            ),
        )
        if namespace.host.loaded.word(record.index).active != active:
            announce_active(namespace, record)
    return done


def _gone(
    namespace: Namespace,
    record: Record,
    links: Mapping[int, Link],
    lost: Collection[int] | None,
) -> set[int]:
    """ifindexes of slaves that were deleted, another in their place or not.

    A tcx link knows that its device died. A filter does not: one that is missing
    from a device which is not as we set it up was another device's.
    """
    slaves = set(record.slaves.values())
    if lost is not None:
        return {i for i in slaves if i not in links or i in lost}
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
    return {i for i in slaves if i not in links or i in dead}


def _repair(namespace: Namespace, record: Record, gone: set[int]) -> list[str]:
    """Put back attachments that somebody removed, and what the maps should say."""
    host = namespace.host
    steps = [from_data(data) for data in record.steps]
    broken = [
        step
        for step in steps
        if isinstance(step, Attach | Seat)
        and step.ifindex not in gone
        and not step.intact(host)
    ]
    repaired = []
    for step in broken:
        if isinstance(step, Seat):
            step.write(host)
            repaired.append(f"slot {step.slot} in the maps")
            continue
        for qdisc in steps:
            if isinstance(qdisc, MakeClsact) and concerns(qdisc, step.ifindex):
                qdisc.apply(host)
        step.apply(host)
        repaired.append(f"{step.program} on {step.hook} of interface {step.ifindex}")
    return repaired


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


def follow_mtu(namespace: Namespace, record: Record) -> list[str]:
    """Give the slaves the master's MTU, all of them or none (S6).

    If one refuses, the master gets back what the slaves have.

    Returns:
        Names of the slaves that were changed.

    Raises:
        PyFailoverError: a slave refused; names it.
    """
    netlink, links = namespace.netlink, namespace.netlink.links()
    face = master_of(record, links).face
    wanted = face.mtu
    slaves = [links[i] for i in record.slaves.values() if i in links]
    ends = made_ends(links, record.low_mac)
    lower = [] if ends is None else [ends.low]
    changing = [link for link in (*lower, *slaves) if link.mtu != wanted]
    old = changing[0].mtu if changing else wanted
    done: list[Link] = []
    try:
        for link in changing:
            netlink.set_mtu(link.ifindex, wanted)
            done.append(link)
    except PyFailoverError as exc:
        for link in done:
            netlink.set_mtu(link.ifindex, link.mtu)
        netlink.set_mtu(face.ifindex, old)
        raise StateError(
            f"cannot set the MTU of '{record.spec.name}' to {wanted}: {exc}",
            hint=f"all are back at {old}",
        ) from exc
    _remember_mtu(namespace, record, [link for link in done if link in slaves], wanted)
    return [link.name for link in done]


def _remember_mtu(
    namespace: Namespace, record: Record, changed: Collection[Link], mtu: int
) -> None:
    """Have detach restore the MTU of slaves that had the master's when they joined."""
    for link in changed:
        steps = [from_data(data) for data in record.steps]
        if not any(
            isinstance(step, SetLink)
            and step.concerns_setting(link.ifindex, Setting.MTU)
            for step in steps
        ):
            device = Device(ifindex=link.ifindex, name=link.name, macs=(link.mac,))
            step = SetLink(device=device, setting=Setting.MTU, old=link.mtu, new=mtu)
            record.steps.append(to_data(step))
            record.committed = len(record.steps)
            namespace.journal.put(record)


def retune(namespace: Namespace, record: Record, spec: GroupSpec) -> bool:
    """Change what may change under traffic; True if anything did.

    Raises:
        StateError: something else differs.
    """
    refuse_change(record.spec, spec)
    if record.spec == spec:
        return False
    record.spec = spec
    namespace.journal.put(record)
    tune(namespace, record)
    return True


def tune(namespace: Namespace, record: Record) -> None:
    """Have the programs know what of a group's settings they obey."""
    host = namespace.host
    host.loaded.set_down_delay(record.index, record.spec.down_delay_ms)


def refuse_change(attached: GroupSpec, wanted: GroupSpec) -> None:
    """See whether a group can become another one under traffic.

    Raises:
        StateError: it cannot; names the first difference.
    """
    for each in fields(GroupSpec):
        old, new = getattr(attached, each.name), getattr(wanted, each.name)
        if old != new and each.name not in TUNABLE:
            raise StateError(
                f"'{wanted.name}' is attached already, with {each.name} "
                f"{_shown(old)} instead of {_shown(new)}",
                hint=f"pyfailover detach {wanted.name} first",
            )


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
