# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of a group that a network manager is to be told of. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pyfailover.model import GroupSpec, Link, Rule, Side, parse_rule
from pyfailover.rules import Identify, fits


class Dhcp(StrEnum):
    """What the manager is to ask for on the master."""

    YES = "yes"
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    NO = "no"  # nothing: the master's addresses are told by somebody else

    @property
    def v4(self) -> bool:
        """Whether it asks for IPv4 addresses."""
        return self in (Dhcp.YES, Dhcp.IPV4)

    @property
    def v6(self) -> bool:
        """Whether it asks for IPv6 addresses."""
        return self in (Dhcp.YES, Dhcp.IPV6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slave:
    """An interface that no manager is to set up."""

    rule: str  # a name, or conditions
    present: tuple[str, ...] = ()  # what it is called now

    @property
    def conditions(self) -> Rule | None:
        """What its rule asks for; None: it is a name."""
        return parse_rule(self.rule)

    @property
    def names(self) -> tuple[str, ...]:
        """All names that it is known to have."""
        own = (self.rule,) if self.conditions is None else ()
        return tuple(dict.fromkeys((*own, *self.present)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A master and what is behind it."""

    master: str
    there: bool = False  # the master is an interface now
    slaves: tuple[Slave, ...] = ()  # and what else is nobody's: the lower end of a
    # master of ours, a master that ...
    somebody_elses: bool = False  # ... a VM uses, or another namespace


def present(subject: Subject) -> list[str]:
    """Names of interfaces that are there, and that a manager may have set up."""
    return [name for slave in subject.slaves for name in slave.present]


def by_present_names(manager: str, slave: Slave) -> str:
    """What to say of a rule that a manager cannot be told of."""
    known = ", ".join(f"'{name}'" for name in slave.names) or "nobody, as none fits it"
    return (
        f"{manager} cannot be told of the rule '{slave.rule}', but of {known} now: "
        "install again once that changes"
    )


def subject(
    spec: GroupSpec,
    low: str | None,
    links: Mapping[int, Link],
    identify: Identify,
    seated: Mapping[int, int] | None = None,
) -> Subject:
    """What is known of a group.

    Args:
        low: lower end of a master of ours.
        seated: ifindex by slot; for the others, whoever fits the rule.
    """
    seated = seated or {}
    free = [
        link
        for index, link in links.items()
        if index not in seated.values() and link.name not in (spec.name, low)
    ]
    names = {link.name for link in links.values()}
    slaves: list[Slave] = []
    for slot, rule in enumerate(spec.slaves):
        at = links.get(seated.get(slot, 0))
        found = [at] if at else [each for each in free if fits(rule, each, identify)]
        slaves.append(Slave(rule=rule, present=tuple(each.name for each in found)))
    if low is not None:
        slaves.append(Slave(rule=low))
    somebody_elses = spec.side is Side.WIRE and low is None
    if somebody_elses:
        slaves.append(Slave(rule=spec.name, present=tuple(names & {spec.name})))
    return Subject(
        master=spec.name,
        there=spec.name in names,
        slaves=tuple(slaves),
        somebody_elses=somebody_elses,
    )
