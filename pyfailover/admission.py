# SPDX-License-Identifier: GPL-2.0-or-later
"""What may be a master or a slave, and what is in the way if it may not.

Pure: facts in, RefusedError out. tc ingress runs before the bridge's, bond's
and macvlan's rx_handler and before the IP stack, so whatever lives on a slave
would starve in silence; it is refused by name instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyfailover.errors import ConfigError, RefusedError
from pyfailover.model import (
    ARPHRD_ETHER,
    Address,
    GroupSpec,
    Link,
    MacPolicy,
    Qdisc,
    Side,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found on and around one interface."""

    link: Link
    links: Mapping[int, Link]  # all of the namespace
    addresses: Sequence[Address] = ()
    routes: Sequence[str] = ()
    qdiscs: Sequence[Qdisc] = ()
    bypassed: Sequence[str] = ()  # foreign programs and filters that our
    # attachment would run ahead of
    xdp: str | None = None  # a program that takes frames before us
    squatter: str | None = None  # a foreign filter in our very place
    used_by: str | None = None  # another group that has it, as what


def refuse_slave(facts: Facts, spec: GroupSpec) -> None:
    """See whether an interface may be a slave (design S9, S13).

    Raises:
        RefusedError: no; the message names what is in the way.
    """
    link, what = facts.link, f"cannot use '{facts.link.name}' as a slave"
    if link.loopback or link.arptype != ARPHRD_ETHER:
        raise RefusedError(f"{what}: it is not an Ethernet interface")
    if facts.used_by:
        raise RefusedError(f"{what}: it is {facts.used_by}", hint="detach that first")
    if link.master is not None:
        owner = facts.links.get(link.master)
        raise RefusedError(
            f"{what}: it is a port of '{owner.name if owner else link.master}'",
            hint=f"ip link set {link.name} nomaster",
        )
    uppers = [o for o in facts.links.values() if o.lower == link.ifindex]
    if uppers:
        raise RefusedError(
            f"{what}: {_kind(uppers[0])} '{uppers[0].name}' sits on it",
            hint=f"make it on '{spec.name}' instead",
        )
    _refuse_configured(facts, spec, what)
    _refuse_bypass(facts, spec, what)


def _refuse_configured(facts: Facts, spec: GroupSpec, what: str) -> None:
    own = [a for a in facts.addresses if not a.by_kernel]
    if own:
        shown = f"{own[0].address}/{own[0].prefixlen}"
        raise RefusedError(
            f"{what}: it has the address {shown}",
            hint=f"addresses belong on the master: ip address del {shown} dev "
            f"{facts.link.name}, then add it on '{spec.name}'",
        )
    if facts.routes:
        raise RefusedError(
            f"{what}: the route '{facts.routes[0]}' goes over it",
            hint=f"routes belong on the master: delete it, then add it on "
            f"'{spec.name}'",
        )


def _refuse_bypass(facts: Facts, spec: GroupSpec, what: str) -> None:
    if facts.squatter:
        raise RefusedError(
            f"{what}: {facts.squatter}", hint="give that filter another preference"
        )
    if facts.xdp and not spec.bypass_filters:
        raise RefusedError(
            f"{what}: XDP program {facts.xdp} is attached and takes frames first",
            hint=f"ip link set dev {facts.link.name} xdp off, or accept it with "
            "--bypass-filters",
        )
    if facts.bypassed and not spec.bypass_filters:
        raise RefusedError(
            f"{what}: {facts.bypassed[0]} would no longer see its frames",
            hint="--bypass-filters accepts that; --tc clsact attaches behind "
            "filters of clsact",
        )


def refuse_master(facts: Facts, spec: GroupSpec) -> None:
    """See whether an interface may be a master (design S13).

    Raises:
        RefusedError: no; the message names what is in the way.
    """
    link, what = facts.link, f"cannot use '{facts.link.name}' as a master"
    if link.loopback or link.arptype != ARPHRD_ETHER:
        raise RefusedError(f"{what}: it is not an Ethernet interface")
    if facts.used_by:
        raise RefusedError(f"{what}: it is {facts.used_by}", hint="detach that first")
    # A qdisc that the kernel chose by itself has no handle.
    root = [q for q in facts.qdiscs if q.is_root and q.handle]
    if spec.side is Side.STACK and root and not spec.bypass_filters:
        raise RefusedError(
            f"{what}: its {root[0].kind} qdisc would no longer see its frames",
            hint="put it on the slaves, or accept that with --bypass-filters",
        )
    ingress_only = [q for q in facts.qdiscs if q.kind == "ingress"]
    if spec.side is Side.STACK and ingress_only and spec.tc == "clsact":
        raise RefusedError(
            f"{what}: its ingress qdisc leaves no room for a filter on egress",
            hint=f"delete it: tc qdisc del dev {link.name} ingress",
        )
    _refuse_bypass(facts, spec, what)


def refuse_macs(
    spec: GroupSpec, master: Link, slaves: Sequence[Link], *, created: bool
) -> None:
    """See whether the slaves' MAC addresses fit the policy (design S7).

    Behind a wire master that is not ours sits somebody with an address of his
    own, which the slaves need not have.

    Raises:
        RefusedError: a slave's differs under `match`.
        ConfigError: `clone` with nothing to clone.
    """
    foreign_wire = spec.side is Side.WIRE and not created
    if spec.mac is MacPolicy.CLONE and foreign_wire:
        raise ConfigError(
            f"cannot clone the MAC address of '{spec.name}': whoever is behind a "
            "wire master has his own",
            hint="leave out --mac clone",
        )
    if spec.mac is MacPolicy.CLONE or foreign_wire:
        return
    for slave in slaves:
        if slave.mac != master.mac:
            raise RefusedError(
                f"cannot use '{slave.name}' as a slave: its MAC address "
                f"{slave.mac} is not that of '{spec.name}', {master.mac}",
                hint="--mac clone gives the slaves the master's until detach",
            )


def _kind(link: Link) -> str:
    return link.kind or "interface"
