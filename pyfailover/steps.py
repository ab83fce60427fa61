# SPDX-License-Identifier: GPL-2.0-or-later
"""The single changes that attaching is made of, each with its way back.

Every step can be taken back from its data alone, by another process, whether
it was carried out or not, once or twice: that is what rollback, recovery after
a kill and detach all do. A step never takes back what is not ours: a device is
touched only if its MAC address shows that it still is the one.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import assert_never, get_args

from pyfailover import core
from pyfailover.datapath import abi, hooks
from pyfailover.datapath.programs import ProgramSet
from pyfailover.errors import NetlinkError, StateError
from pyfailover.ethtool import Ethtool
from pyfailover.journal import StepData
from pyfailover.model import Hook, Link, TcMode
from pyfailover.netlink.rtnl import Netlink


class Setting(StrEnum):
    """What SetLink can change."""

    ADDRGENMODE = "addrgenmode"
    MTU = "mtu"
    MAC = "mac"
    PROMISC = "promisc"
    UP = "up"


@dataclass(slots=True)
class Host:
    """What steps work on: one namespace's links, pins and programs."""

    netlink: Netlink
    ethtool: Ethtool
    pins: Path
    programs: ProgramSet | None = None

    @property
    def loaded(self) -> ProgramSet:
        """The programs.

        Raises:
            StateError: they are not loaded.
        """
        if self.programs is None:
            raise StateError("the programs of this namespace are not loaded")
        return self.programs

    def ours(self) -> set[int]:
        """Ids of our programs."""
        return set(self.programs.program_ids().values()) if self.programs else set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """An interface that was changed, so that it is known again.

    The kernel may give an ifindex again (`ip link add … index N`, a move between
    namespaces), so a name or an address must fit too; either may have changed.
    """

    ifindex: int
    name: str
    macs: tuple[str, ...]

    def present(self, host: Host) -> bool:
        """Whether it is still there, and no other in its place."""
        link = host.netlink.link(self.ifindex)
        return link is not None and (link.name == self.name or link.mac in self.macs)


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeVeth:
    """Make a master: a veth pair, known again by the address of its lower end."""

    name: str
    low: str
    mac: str
    low_mac: str
    mtu: int
    queues: int

    def apply(self, host: Host) -> None:
        """Make the pair and bring both ends up."""
        host.netlink.make_veth(
            self.name,
            self.low,
            mac=self.mac,
            peer_mac=self.low_mac,
            mtu=self.mtu,
            queues=self.queues,
        )
        low = host.netlink.link_named(self.low)
        top = host.netlink.link_named(self.name)
        if low is None or top is None:
            raise StateError(f"'{self.name}' vanished while it was made")
        host.netlink.set_noarp(low.ifindex)
        if low.addrgenmode is not None:
            host.netlink.set_addrgenmode(low.ifindex, 1)
        host.netlink.set_up(low.ifindex, True)
        host.netlink.set_up(top.ifindex, True)

    def revert(self, host: Host) -> None:
        """Delete the pair."""
        ends = made_ends(host.netlink.links(), self.low_mac)
        if ends is not None:
            host.netlink.delete_link(ends.low.ifindex)


@dataclass(frozen=True, slots=True)
class Ends:
    """The two ends of a master that was made."""

    top: Link  # the user's
    low: Link


def made_ends(links: Mapping[int, Link], low_mac: str | None) -> Ends | None:
    """The ends of a made master, whatever they are called now; None: it is gone."""
    for low in links.values():
        top = links.get(low.peer or 0)
        if low.mac == low_mac and low.kind == "veth" and top is not None:
            return Ends(top, low)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLink:
    """Change one setting of a slave."""

    device: Device
    setting: Setting
    old: int | str
    new: int | str

    def apply(self, host: Host) -> None:
        """Set the new value."""
        self._set(host.netlink, self.new)

    def revert(self, host: Host) -> None:
        """Set the old value, if the device is still there."""
        if self.device.present(host):
            self._set(host.netlink, self.old)

    def concerns_setting(self, ifindex: int, setting: Setting) -> bool:
        """Whether it has the old value of a device's setting."""
        return self.device.ifindex == ifindex and self.setting is setting

    def is_undone_on(self, links: Mapping[int, Link]) -> bool:
        """Whether it is not in force, for settings that nobody else changes."""
        link = links.get(self.device.ifindex)
        return (
            link is not None
            and self.setting is Setting.ADDRGENMODE
            and link.addrgenmode != self.new
        )

    def _set(self, netlink: Netlink, value: int | str) -> None:
        match self.setting:
            case Setting.MAC:
                netlink.set_mac(self.device.ifindex, str(value))
            case Setting.MTU:
                netlink.set_mtu(self.device.ifindex, int(value))
            case Setting.ADDRGENMODE:
                netlink.set_addrgenmode(self.device.ifindex, int(value))
            case Setting.PROMISC:
                netlink.set_promisc(self.device.ifindex, bool(value))
            case Setting.UP:
                netlink.set_up(self.device.ifindex, bool(value))
            case _:
                assert_never(self.setting)


@dataclass(frozen=True, slots=True, kw_only=True)
class DropLinkLocal:
    """Take the kernel's own IPv6 link-local address off a slave.

    With it the slave's stack would talk (MLD, router solicitations) under the
    master's MAC address out of a slave that may not be the active one.
    """

    device: Device
    address: str
    prefixlen: int

    def apply(self, host: Host) -> None:
        """Take it off, without a multicast leave under the master's address."""
        host.netlink.flush_ipv6(self.device.ifindex)

    def revert(self, host: Host) -> None:
        """Put it back, if the device is still there."""
        if self.device.present(host):
            host.netlink.enable_ipv6(self.device.ifindex)  # killed in the middle
            host.netlink.add_address(self.device.ifindex, self.address, self.prefixlen)


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeClsact:
    """Give an interface the clsact qdisc that it had not."""

    device: Device

    def apply(self, host: Host) -> None:
        """Make it; one that somebody made meanwhile serves as well."""
        hooks.make_clsact(self.device.ifindex)

    def revert(self, host: Host) -> None:
        """Delete it, unless somebody's filter is on it."""
        if not self.device.present(host):
            return
        if not any(
            q.kind == "clsact" for q in host.netlink.qdiscs(self.device.ifindex)
        ):
            return
        for hook in Hook:
            own = hooks.Attachment(host.pins, self.device.ifindex, hook, TcMode.CLSACT)
            if own.is_ours(host.ours()):
                raise StateError(f"'{self.device.name}' has a filter of ours still")
        if not any(host.netlink.filters(self.device.ifindex, hook) for hook in Hook):
            hooks.drop_clsact(self.device.ifindex)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeCarrier:
    """Take the master's carrier while no slave is usable (design S10)."""

    device: Device
    lower: bool  # the device is the lower end of a pair of ours: set it down

    def apply(self, host: Host) -> None:
        """Take it."""
        self._set(host.netlink, on=False)

    def revert(self, host: Host) -> None:
        """Give it back, if the device is still there.

        A tap that nobody has open refuses it, and has it once somebody does.
        """
        if self.device.present(host):
            with suppress(NetlinkError):
                self._set(host.netlink, on=True)

    def _set(self, netlink: Netlink, *, on: bool) -> None:
        if self.lower:
            netlink.set_up(self.device.ifindex, on)
        else:
            netlink.set_carrier(self.device.ifindex, on)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenGroup:
    """Give the group its place in the maps, with a master and no slave yet."""

    index: int
    master: int

    def apply(self, host: Host) -> None:
        """Write the group and its master."""
        host.loaded.open_group(self.index)
        host.loaded.set_master(self.index, self.master)

    def revert(self, host: Host) -> None:
        """Forget the group with all its ports."""
        if host.programs is not None:
            host.programs.close_group(self.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Put a slave in its slot; traffic moves to it only if there was no active."""

    index: int
    slot: int
    ifindex: int
    master: int
    rule: abi.RxRule

    def apply(self, host: Host) -> None:
        """Write the slave, and the word by compare-and-swap."""
        self.write(host)
        programs = host.loaded
        link = host.netlink.link(self.ifindex)
        ready = link is not None and link.ready
        programs.change(
            self.index, lambda word: core.joined(word, self.slot, ready=ready)
        )

    def write(self, host: Host) -> None:
        """Write the slave, and leave the word as it is."""
        programs = host.loaded
        programs.set_slave(
            self.index,
            self.ifindex,
            slot=self.slot,
            master=self.master,
            rule=self.rule,
        )
        programs.seat(self.index, self.slot, self.ifindex)

    def intact(self, host: Host) -> bool:
        """Whether the maps say so."""
        programs = host.loaded
        port = programs.port(self.ifindex)
        found = port and (port.group, port.slot, port.master, port.rx_rule)
        wanted = (self.index, self.slot, self.master, self.rule)
        return found == wanted and programs.seated(self.index, self.slot, self.ifindex)

    def revert(self, host: Host) -> None:
        """Empty the slot, if it still is this slave's."""
        programs = host.programs
        if programs is None:
            return
        port = programs.port(self.ifindex)
        if port is not None and port.group == self.index:
            programs.drop_port(self.ifindex)
        if programs.slaves(self.index).get(self.slot) == self.ifindex:
            programs.unseat(self.index, self.slot)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attach:
    """Put a program on a hook."""

    ifindex: int
    hook: Hook
    tc: TcMode
    program: str

    def apply(self, host: Host) -> None:
        """Attach it."""
        self.attachment(host.pins).attach(host.loaded.program(self.program))

    def revert(self, host: Host) -> None:
        """Detach it, if it is ours."""
        self.attachment(host.pins).detach(host.ours())

    def intact(self, host: Host) -> bool:
        """Whether it is where it should be."""
        return self.attachment(host.pins).attached(host.ours())

    def orphaned(self, host: Host) -> bool:
        """Whether its device is gone for sure, even if the ifindex is in use."""
        return self.attachment(host.pins).orphaned()

    def attachment(self, pins: Path) -> hooks.Attachment:
        """The hook that this is about."""
        return hooks.Attachment(pins, self.ifindex, self.hook, self.tc)


Step = (
    MakeVeth
    | SetLink
    | DropLinkLocal
    | MakeClsact
    | TakeCarrier
    | OpenGroup
    | Seat
    | Attach
)
_STEPS: dict[str, type[Step]] = {cls.__name__: cls for cls in get_args(Step)}
_ENUMS = {"setting": Setting, "hook": Hook, "tc": TcMode, "rule": abi.RxRule}


def concerns(step: Step, ifindex: int) -> bool:
    """Whether a step was taken on an interface."""
    match step:
        case SetLink() | DropLinkLocal() | MakeClsact() | TakeCarrier():
            return step.device.ifindex == ifindex
        case Seat() | Attach():
            return step.ifindex == ifindex
        case MakeVeth() | OpenGroup():
            return False


def to_data(step: Step) -> StepData:
    """A step as the journal keeps it."""
    return {"step": type(step).__name__, **asdict(step)}


def from_data(data: StepData) -> Step:
    """The step that to_data() made it of."""
    cls = _STEPS[data["step"]]
    values = {f.name: data[f.name] for f in fields(cls)}
    for name, enum in _ENUMS.items():
        if name in values:
            values[name] = enum(values[name])
    if "device" in values:
        device = values["device"]
        values["device"] = Device(**{**device, "macs": tuple(device["macs"])})
    return cls(**values)
