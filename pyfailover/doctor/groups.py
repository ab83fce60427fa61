# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a group carries traffic, and would after a failure."""

from collections.abc import Iterator
from dataclasses import replace

from pyfailover.doctor.findings import Finding, Level
from pyfailover.report import GroupStatus, Health


def carrying(status: GroupStatus) -> Iterator[Finding]:
    """Whether a group carries traffic, and would after a failure."""
    yield _attachments(status)
    if status.health is not Health.IDLE:
        yield _traffic(status)
        yield _redundancy(status)


def _attachments(status: GroupStatus) -> Finding:
    name = status.name
    look = Finding(subject=name, what="attachments", found=f"whole, by {status.tc}")
    lack = replace(look, level=Level.FATAL, cost="no traffic is carried")
    if status.health is Health.IDLE:
        mend = f"pyfailover attach {name} …, or pyfailover destroy {name}"
        return replace(lack, found="none", mend=mend)
    if status.master is None:
        mend = f"pyfailover detach {name}, then attach again"
        return replace(lack, found="the master is gone", mend=mend)
    loose = [] if status.master_attached else [status.master]
    loose += [s.name for s in status.slaves if s.ifindex is not None and not s.attached]
    if not loose:
        return look
    return replace(
        lack,
        found=f"missing on {', '.join(loose)}",
        cost="traffic is not carried there",
        mend="run the attach command again, or the controller",
    )


def _traffic(status: GroupStatus) -> Finding:
    """Whether it flows now."""
    look = Finding(subject=status.name, what="active", found=status.active or "nobody")
    if any(s.ready and (s.active or status.carrier_test) for s in status.slaves):
        return look
    spare = next((s.name for s in status.slaves if s.ready and s.attached), "SLAVE")
    return replace(
        look,
        level=Level.FATAL,
        found=f"{look.found}, who is not ready" if status.active else look.found,
        cost="traffic is lost now",
        mend=f"pyfailover switch {status.name} {spare}, or run the controller",
    )


def _redundancy(status: GroupStatus) -> Finding:
    """Two slaves that could carry the traffic, at least."""
    usable = [s.name for s in status.slaves if s.ready and s.attached]
    look = Finding(
        subject=status.name,
        what="usable slaves",
        found=f"{len(usable)} of {len(status.slaves)}: {', '.join(usable) or 'none'}",
    )
    if len(usable) >= 2:
        return look
    lacks = [
        f"{s.name} ({s.link if s.attached or s.ifindex is None else 'detached'})"
        for s in status.slaves
        if s.name not in usable
    ]
    return replace(
        look,
        level=Level.FATAL,
        cost="a failure would cut the traffic",
        mend=f"see to {', '.join(lacks)}" if lacks else "attach a second slave",
    )
