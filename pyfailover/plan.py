# SPDX-License-Identifier: GPL-2.0-or-later
"""From what was asked and what is there to the steps that are to be taken.

Reads the namespace, changes nothing; every refusal comes from here, before the
first step.
"""

import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pyfailover.admission import Facts, refuse_slave
from pyfailover.datapath import hooks
from pyfailover.datapath.programs import rx_rule
from pyfailover.errors import RefusedError, StateError
from pyfailover.journal import Record
from pyfailover.model import (
    IFNAME_MAX,
    Filter,
    GroupSpec,
    Hook,
    Link,
    MacPolicy,
    Role,
    Side,
    TcMode,
    parse_rule,
)
from pyfailover.rules import pick
from pyfailover.steps import (
    Attach,
    Device,
    DropLinkLocal,
    Host,
    MakeClsact,
    MakeVeth,
    Seat,
    SetLink,
    Setting,
    Step,
    made_ends,
)

_LOW = "-low"
_NO_LINK_LOCAL = 1  # IN6_ADDR_GEN_MODE_NONE


def find(links: Mapping[int, Link], name: str) -> Link:
    """The interface of a name.

    Raises:
        StateError: there is none.
    """
    for link in links.values():
        if link.name == name:
            return link
    raise no_interface(name)


def no_interface(rule: str) -> StateError:
    """The error of a name, or a rule, that nothing has."""
    fits = "that fits " if parse_rule(rule) is not None else ""
    return StateError(
        f"there is no interface {fits}'{rule}' in this network namespace",
        hint="see 'ip link'; --netns NAME acts in another namespace",
    )


@dataclass(frozen=True, slots=True)
class Master:
    """A master: where the programs attach, and what the user sees.

    One interface, but for a `wire` master that we made: its lower end is attached
    to, its upper end has the user's addresses.
    """

    port: Link
    face: Link


def master_of(record: Record, links: Mapping[int, Link]) -> Master:
    """The master of a group, whatever it is called now.

    Raises:
        StateError: it is not there.
    """
    name = record.spec.name
    if record.created:
        ends = made_ends(links, record.low_mac)
        if ends is None:
            raise StateError(
                f"'{name}' was deleted",
                hint=f"pyfailover destroy {name}, then create it again",
            )
        port = ends.top if record.spec.side is Side.STACK else ends.low
        return Master(port, ends.top)
    if record.master is None:
        found = find(links, name)
    elif record.master in links:
        found = links[record.master]
    else:
        raise StateError(
            f"'{name}' was deleted",
            hint=f"pyfailover detach {name}, then attach again",
        )
    return Master(found, found)


def has_master(record: Record, links: Mapping[int, Link]) -> bool:
    """Whether the master of a group is there."""
    try:
        master_of(record, links)
    except StateError:
        return False
    return True


class Planner:
    """Facts and steps for one group of one namespace.

    Args:
        records: of all groups of the namespace.
    """

    def __init__(
        self, host: Host, spec: GroupSpec, tc: TcMode, *, records: Mapping[str, Record]
    ) -> None:
        self._netlink = host.netlink
        self._identify = host.ethtool.driver
        self._spec = spec
        self._tc = tc
        self._records = records
        self._ours = host.ours()

    def facts(self, link: Link, links: Mapping[int, Link], hook: Hook) -> Facts:
        """What there is on and around an interface that we want a hook of."""
        return Facts(
            link=link,
            links=links,
            addresses=self._netlink.addresses(link.ifindex),
            routes=self._netlink.routes(link.ifindex),
            qdiscs=self._netlink.qdiscs(link.ifindex),
            bypassed=self._bypassed(link.ifindex, hook),
            squatter=self._squatter(link.ifindex, hook),
            xdp=None
            if link.xdp_prog is None
            else hooks.describe_program(link.xdp_prog),
            used_by=self._used_by(link),
        )

    def _bypassed(self, ifindex: int, hook: Hook) -> Sequence[str]:
        """Filters that would run after our program, which redirects."""
        return [
            _describe(f)
            for f in self._netlink.filters(ifindex, hook)
            if f.prog_id not in self._ours
            and (self._tc is TcMode.TCX or f.priority > hooks.PRIORITY)
        ]

    def _squatter(self, ifindex: int, hook: Hook) -> str | None:
        """A foreign filter with our preference and handle."""
        if self._tc is not TcMode.CLSACT:
            return None
        for found in self._netlink.filters(ifindex, hook):
            place = (found.priority, found.handle)
            if place == (hooks.PRIORITY, hooks.HANDLE) and found.prog_id not in (
                self._ours
            ):
                return f"preference {hooks.PRIORITY:#x} is taken by {_describe(found)}"
        return None

    def _used_by(self, link: Link) -> str | None:
        for name, record in self._records.items():
            if name == self._spec.name:
                continue
            if link.ifindex in record.slaves.values():
                return f"a slave of '{name}'"
            if link.ifindex == record.master or link.name == name:
                return f"the master '{name}'"
            if link.mac and link.mac == record.low_mac:
                return f"the lower end of the master '{name}'"
        return None

    # --- slaves -----------------------------------------------------------

    def slaves(
        self,
        slots: Collection[int],
        links: Mapping[int, Link],
        seated: Collection[int] = (),
    ) -> dict[int, Link]:
        """The interfaces that are to be the slaves in some slots; those that are not
        there are left out.

        Args:
            seated: ifindexes of the slaves that this group has already.

        Raises:
            ConfigError: several fit a rule.
            RefusedError: one may not be a slave.
        """
        rules = self._spec.slaves
        found: dict[int, Link] = {}
        # Plain names first: what one of them names is not meant by a rule.
        for slot in sorted(slots, key=lambda n: (parse_rule(rules[n]) is not None, n)):
            taken = {*seated, *(link.ifindex for link in found.values())}
            if parse_rule(rules[slot]) is not None:
                taken |= self._masters(links)
            link = pick(rules[slot], links, taken, self._identify)
            if link is not None:
                refuse_slave(self.facts(link, links, Hook.INGRESS), self._spec)
                found[slot] = link
        return dict(sorted(found.items()))

    def _masters(self, links: Mapping[int, Link]) -> set[int]:
        """What a rule never means: masters, what is above them, slaves of others."""
        found = set()
        for name, record in self._records.items():
            if name != self._spec.name:
                found |= set(record.slaves.values())
            found.add(record.master or 0)
            ends = made_ends(links, record.low_mac)
            if ends is not None:
                found |= {ends.top.ifindex, ends.low.ifindex}
        found |= {i for i, link in links.items() if link.name == self._spec.name}
        return found | {i for i, link in links.items() if link.lower in found}

    def join(
        self, index: int, slot: int, link: Link, master: Master, *, created: bool
    ) -> Iterator[Step]:
        """The steps that make an interface the slave in a slot (design S0)."""
        yield from self._settings(link, master.face, created=created)
        yield Seat(
            index=index,
            slot=slot,
            ifindex=link.ifindex,
            master=master.port.ifindex,
            rule=rx_rule(
                self._spec.rx,
                primary=self._spec.role(slot) is Role.PRIMARY,
                has_primary=self._spec.primary is not None,
            ),
        )
        yield from self._hook(
            self._device(link, master.face), Hook.INGRESS, f"fo_{self._spec.side}_rx"
        )

    def _settings(self, link: Link, face: Link, *, created: bool) -> Iterator[Step]:
        device = self._device(link, face)

        def change(setting: Setting, old: int | str, new: int | str) -> Iterator[Step]:
            if old != new:
                yield SetLink(device=device, setting=setting, old=old, new=new)

        if link.addrgenmode is not None:
            yield from change(Setting.ADDRGENMODE, link.addrgenmode, _NO_LINK_LOCAL)
        for own in self._netlink.addresses(link.ifindex):
            if own.by_kernel:
                yield DropLinkLocal(
                    device=device, address=own.address, prefixlen=own.prefixlen
                )
        yield from change(Setting.MTU, link.mtu, face.mtu)
        if self._spec.mac is MacPolicy.CLONE:
            yield from change(Setting.MAC, link.mac, face.mac)
        if self._spec.side is Side.WIRE and not created:
            # Whoever is behind the master has an address of his own.
            yield from change(Setting.PROMISC, int(link.promisc), 1)
        yield from change(Setting.UP, int(link.up), 1)

    def _device(self, link: Link, face: Link) -> Device:
        macs = [link.mac]
        if self._spec.mac is MacPolicy.CLONE:
            macs.append(face.mac)
        return Device(ifindex=link.ifindex, name=link.name, macs=tuple(macs))

    # --- the master -------------------------------------------------------

    def engage(self, port: Link) -> Iterator[Step]:
        """The steps that take the master's traffic: the last ones."""
        device = Device(ifindex=port.ifindex, name=port.name, macs=(port.mac,))
        yield from self._hook(device, self.master_hook, f"fo_{self._spec.side}_tx")

    @property
    def master_hook(self) -> Hook:
        """Where the user's transmissions pass the master."""
        return Hook.EGRESS if self._spec.side is Side.STACK else Hook.INGRESS

    def _hook(self, device: Device, hook: Hook, program: str) -> Iterator[Step]:
        ifindex = device.ifindex
        if self._tc is TcMode.CLSACT and not any(
            qdisc.is_ingress for qdisc in self._netlink.qdiscs(ifindex)
        ):
            yield MakeClsact(device=device)
        yield Attach(ifindex=ifindex, hook=hook, tc=self._tc, program=program)


def make_master(
    spec: GroupSpec, links: Mapping[int, Link], like: Link, *, queues: int
) -> MakeVeth:
    """The step that makes a master with a standby's MAC address and MTU.

    As kernel net_failover_create() does with its standby.

    Raises:
        RefusedError: a name is taken.
    """
    low = lower_name(spec.name)
    for name in (spec.name, low):
        if any(link.name == name for link in links.values()):
            raise RefusedError(
                f"cannot create '{spec.name}': there is an interface '{name}' already",
                hint=f"'pyfailover attach {spec.name} …' uses it as it is"
                if name == spec.name
                else "choose another name: its lower end needs that one",
            )
    return MakeVeth(
        name=spec.name,
        low=low,
        mac=like.mac,
        low_mac=_random_mac(),
        mtu=like.mtu,
        queues=queues,
    )


def lower_name(name: str) -> str:
    """NAME-low, cut to what an interface's name may have in bytes."""
    room = IFNAME_MAX - len(_LOW)
    stem = name.encode()[:room].decode(errors="ignore")
    return f"{stem}{_LOW}" if name != f"{stem}{_LOW}" else f"{stem}-lo"


def _random_mac() -> str:
    """A locally administered unicast address."""
    raw = bytearray(secrets.token_bytes(6))
    raw[0] = raw[0] & 0xFC | 0x02
    return raw.hex(":")


def _describe(found: Filter) -> str:
    if found.prog_id is None:
        return str(found)
    return f"{found}: {hooks.describe_program(found.prog_id)}"
