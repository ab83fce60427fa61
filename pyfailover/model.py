# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of the project as values: interfaces, groups, the active word.

Frozen data and what can be said from it alone. No I/O, no clock, no library.
Interfaces are identified by ifindex within one network namespace; a name is
what people see and may change.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pyfailover.errors import ConfigError

MAX_SLAVES = 8
IFNAME_MAX = 15  # IFNAMSIZ without its NUL
ARPHRD_ETHER = 1


class Side(StrEnum):
    """Where the user of a master sits."""

    STACK = "stack"  # this host's own IP stack sends through the master
    WIRE = "wire"  # somebody behind the master does: a VM, a container


class MacPolicy(StrEnum):
    """What is done about the slaves' MAC addresses."""

    MATCH = "match"  # all must be the same already; nothing is touched
    CLONE = "clone"  # slaves get the master's, and theirs back at detach


class TcMode(StrEnum):
    """How the programs are attached."""

    AUTO = "auto"  # tcx where the kernel has it, clsact else
    TCX = "tcx"
    CLSACT = "clsact"


class RxMode(StrEnum):
    """Which slaves' frames the master takes."""

    ACTIVE = "active"  # the active slave's, and rx_grace
    KERNEL = "kernel"  # kernel net_failover's: never a standby's while a
    # primary is plugged (net_failover_handle_frame)
    ALL = "all"  # every slave's


class Policy(StrEnum):
    """When traffic goes back to a better slave (bonding's primary_reselect)."""

    ALWAYS = "always"  # as soon as it is usable: kernel net_failover's
    BETTER = "better"  # if it is faster than the active one too
    FAILURE = "failure"  # once the active one dies
    MANUAL = "manual"  # as failure; and a slave that died while it was active
    # is taken only where there is no other, until the operator switches


class Reason(StrEnum):
    """Why the active slave changed; logs, events and metrics use these words."""

    FIRST = "first"  # nobody was active yet
    RECOVERED = "recovered"  # nobody was usable, now somebody is
    CARRIER_LOST = "carrier_lost"
    ADMIN_DOWN = "admin_down"
    REMOVED = "removed"  # the device is gone, or in another namespace
    DAMPED = "damped"  # it changed too often
    PREFERRED = "preferred"  # a better one is usable: fail-back
    OPERATOR = "operator"  # by `switch`, or back to where it pinned the traffic


class Decider(StrEnum):
    """Who changed the active slave."""

    KERNEL = "kernel"  # a program, by itself
    CONTROLLER = "controller"
    USER = "user"  # a command


class Hook(StrEnum):
    """Where on an interface a program sits."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Role(StrEnum):
    """What a slave is in its group."""

    PRIMARY = "primary"
    STANDBY = "standby"


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """The word of a group (bpf/failover.h): which slave is active.

    `left` and `approved` are bit masks over slots.
    """

    generation: int
    active: int | None
    left: int = 0
    approved: int = 0
    by_kernel: bool = False


NOBODY = Word(generation=0, active=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An interface as a link dump shows it (rtnetlink(7))."""

    ifindex: int
    name: str
    mac: str
    mtu: int
    up: bool  # IFF_UP
    carrier: bool
    loopback: bool = False
    arptype: int = ARPHRD_ETHER
    kind: str | None = None  # IFLA_INFO_KIND: "veth", "vlan", "macvlan", ...
    master: int | None = None  # IFLA_MASTER
    lower: int | None = None  # IFLA_LINK, where it is in this namespace
    peer: int | None = None  # the other end of a veth, if in this namespace
    addrgenmode: int | None = None  # IFLA_INET6_ADDR_GEN_MODE; None: no IPv6
    promisc: bool = False  # IFF_PROMISC as set by user space
    xdp_prog: int | None = None  # id of an attached XDP program
    altnames: tuple[str, ...] = ()
    perm_mac: str | None = None  # the one it was made with, if it says so

    @property
    def ready(self) -> bool:
        """Present, IFF_UP and carrier (net_failover_xmit_ready)."""
        return self.up and self.carrier


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An IP address on an interface."""

    ifindex: int
    address: str
    prefixlen: int
    ipv6: bool
    link_local: bool  # IPv6, scope link
    by_kernel: bool  # made by addrconf, not by somebody
    tentative: bool = False  # not to be announced: DAD runs, or failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A tc filter on a hook; the name of its program if it is a bpf one."""

    ifindex: int
    hook: Hook
    priority: int
    handle: int
    kind: str
    prog_id: int | None = None

    def __str__(self) -> str:
        program = "" if self.prog_id is None else f", program {self.prog_id}"
        return f"{self.kind} filter (pref {self.priority}{program}) on {self.hook}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Qdisc:
    """A queueing discipline; `handle` 0 is one the kernel chose by itself."""

    ifindex: int
    kind: str
    handle: int
    parent: int

    @property
    def is_root(self) -> bool:
        """At the root of the device (TC_H_ROOT)."""
        return self.parent == 0xFFFFFFFF

    @property
    def is_ingress(self) -> bool:
        """Holds the ingress hook: clsact, or the older ingress."""
        return self.kind in ("clsact", "ingress")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpec:
    """What the operator asked for: one master and its slaves by rank.

    A slave is named by a rule (pyfailover.rules): an interface's name, or
    conditions like `driver=mlx5_core,pci=0000:03:00.1`.

    Raises:
        ConfigError: no slave, too many, one named twice, or a bad number.
    """

    name: str  # the master's interface name
    primary: str | None = None
    standbys: tuple[str, ...] = ()
    side: Side = Side.STACK
    mac: MacPolicy = MacPolicy.MATCH
    tc: TcMode = TcMode.AUTO
    rx: RxMode = RxMode.ACTIVE
    rx_grace_ms: int = 100
    bypass_filters: bool = False
    policy: Policy = Policy.ALWAYS
    up_delay_ms: int = 0  # ready for so long before it is used
    down_delay_ms: int = 0  # without carrier for so long before it is left
    announce_count: int = 1  # times that each address is announced
    announce_interval_ms: int = 200
    flap_changes: int = 10  # so many changes (0: never mind) ...
    flap_window_s: int = 60  # ... in this time keep a slave out ...
    flap_hold_s: int = 10  # ... for so long, twice that the next time ...
    flap_hold_max_s: int = 300  # ... but no longer than this

    def __post_init__(self) -> None:
        check_ifname(self.name)
        if not self.slaves:
            raise ConfigError(
                f"'{self.name}' has no slave", hint="name one with --standby IF"
            )
        if len(self.slaves) > MAX_SLAVES:
            raise ConfigError(
                f"cannot put {len(self.slaves)} slaves behind '{self.name}': "
                f"a group has at most {MAX_SLAVES}"
            )
        for position, slave in enumerate(self.slaves):
            if slave == self.name:
                raise ConfigError(f"'{slave}' cannot be its own slave")
            if slave in self.slaves[:position]:
                raise ConfigError(f"slave '{slave}' is named twice")
            parse_rule(slave)
        for key, (low, high) in RANGES.items():
            value = getattr(self, key)
            if not low <= value <= high:
                name, _, unit = key.rpartition("_")
                shown = key if unit not in ("ms", "s") else name
                amount = f"{value} {unit}" if unit in ("ms", "s") else f"{value}"
                raise ConfigError(
                    f"{shown.replace('_', '-')} of {amount} is out of range: "
                    f"{low} to {high}"
                )

    @property
    def slaves(self) -> tuple[str, ...]:
        """Rules by slot: the primary's first, if there is one."""
        return ((self.primary,) if self.primary else ()) + self.standbys

    def role(self, slot: int) -> Role:
        """What the slave in a slot is."""
        return Role.PRIMARY if self.primary and slot == 0 else Role.STANDBY

    def rank(self, slot: int) -> int:
        """0 for the primary, standbys from 1."""
        return slot if self.primary else slot + 1


# What a number of a GroupSpec may be.
RANGES = {
    "rx_grace_ms": (0, 60_000),
    "up_delay_ms": (0, 3_600_000),
    "down_delay_ms": (0, 3_600_000),
    "announce_count": (0, 255),
    "announce_interval_ms": (1, 60_000),
    "flap_changes": (0, 1000),
    "flap_window_s": (1, 86_400),
    "flap_hold_s": (1, 86_400),
    "flap_hold_max_s": (1, 86_400),
}

# What may change while the group carries traffic.
TUNABLE = frozenset(RANGES) | {"policy"}


class RuleKey(StrEnum):
    """What a rule can ask of an interface."""

    NAME = "name"  # a glob
    ALTNAME = "altname"  # a glob
    MAC = "mac"
    PCI = "pci"  # 0000:03:00.1
    DRIVER = "driver"  # as `ethtool -i` says


Rule = Mapping[RuleKey, str]


def parse_rule(text: str) -> Rule | None:
    """The conditions of a rule; None for a plain interface name.

    Raises:
        ConfigError: neither a name nor KEY=VALUE[,KEY=VALUE...].
    """
    keys = "|".join(RuleKey)
    if not re.match(rf"({keys})=", text):
        if "=" in text:
            raise ConfigError(
                f"{text!r} is not a rule for a slave",
                hint=f"an interface name, or {', '.join(RuleKey)} as KEY=VALUE, "
                "joined by commas",
            )
        check_ifname(text)
        return None
    rule: dict[RuleKey, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or not value or key not in list(RuleKey) or key in rule:
            raise ConfigError(
                f"{part!r} is not a condition of the rule {text!r}",
                hint=f"once each, of {', '.join(RuleKey)}: KEY=VALUE",
            )
        rule[RuleKey(key)] = _checked_value(RuleKey(key), value, text)
    return rule


_SHAPES = {
    RuleKey.MAC: (r"([0-9a-f]{2}:){5}[0-9a-f]{2}", "aa:bb:cc:dd:ee:ff"),
    RuleKey.PCI: (r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", "0000:03:00.1"),
}


def _checked_value(key: RuleKey, value: str, text: str) -> str:
    if key not in _SHAPES:
        return value
    shape, example = _SHAPES[key]
    if not re.fullmatch(shape, value.lower()):
        raise ConfigError(
            f"{value!r} is not a {key} in the rule {text!r}", hint=f"like {example}"
        )
    return value.lower()


def check_ifname(name: str) -> None:
    """Refuse what dev_valid_name() refuses.

    Raises:
        ConfigError: not a name that an interface can have.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # bytes that are no text, as argv hands them on
        size = 0
    bad = (
        not 0 < size <= IFNAME_MAX
        or name in (".", "..")
        or any(c in "/:%" or c.isspace() for c in name)
    )
    if bad:
        raise ConfigError(
            f"{name!r} is not an interface name: 1 to {IFNAME_MAX} bytes, "
            "no slash, colon, percent sign or space"
        )
