# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of the project as values: interfaces, groups, the active word.

Frozen data and what can be said from it alone. No I/O, no clock, no library.
Interfaces are identified by ifindex within one network namespace; a name is
what people see and may change.
"""

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

    Raises:
        ConfigError: no slave, too many, one named twice, or a bad number.
    """

    name: str  # the master's interface name
    primary: str | None
    standbys: tuple[str, ...]
    side: Side = Side.STACK
    mac: MacPolicy = MacPolicy.MATCH
    tc: TcMode = TcMode.AUTO
    rx: RxMode = RxMode.ACTIVE
    rx_grace_ms: int = 100
    bypass_filters: bool = False

    def __post_init__(self) -> None:
        for name in (self.name, *self.slaves):
            check_ifname(name)
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
        if not 0 <= self.rx_grace_ms <= 60_000:
            raise ConfigError(
                f"rx-grace of {self.rx_grace_ms} ms is out of range: 0 to 60000"
            )

    @property
    def slaves(self) -> tuple[str, ...]:
        """Names by slot: the primary first, if there is one."""
        return ((self.primary,) if self.primary else ()) + self.standbys

    def role(self, slot: int) -> Role:
        """What the slave in a slot is."""
        return Role.PRIMARY if self.primary and slot == 0 else Role.STANDBY

    def rank(self, slot: int) -> int:
        """0 for the primary, standbys from 1."""
        return slot if self.primary else slot + 1


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
