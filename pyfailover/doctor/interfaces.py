# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong with interfaces: with their links, and what is in a slave's way.

That is judged by `admission`, so that the doctor and `attach` never disagree.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from pyfailover import report
from pyfailover.admission import Facts, refuse_macs, refuse_master, refuse_slave
from pyfailover.datapath import hooks, libbpf
from pyfailover.doctor.claimants import claims
from pyfailover.doctor.findings import Finding, Level
from pyfailover.doctor.groups import carrying
from pyfailover.doctor.system import System
from pyfailover.errors import RefusedError
from pyfailover.journal import Record
from pyfailover.model import GroupSpec, Hook, Link, MacPolicy, TcMode
from pyfailover.netlink.features import xdp_features
from pyfailover.place import Roots
from pyfailover.plan import Planner, has_master, master_of
from pyfailover.steps import Host

# A slave's or master's group to be; its names are for the hints.
_DRAFT = GroupSpec(name="MASTER", primary="SLAVE")

# What it costs if it came after we attached; before, attach refuses it.
_STARVES = "the programs take its frames: it gets none"
_COSTS = {
    "addresses": "what is sent to it does not arrive",
    "routes": "what goes that way leaves by a slave that may not be active",
    "qdisc": "the traffic does not pass it",
    "XDP program": "it may take frames before our programs do",
    "filters": "the traffic does not pass it",
}


class Examiner:
    """What is needed to look at several interfaces and groups."""

    def __init__(
        self,
        host: Host,
        records: Mapping[str, Record],
        running: Mapping[str, Sequence[str]],
        system: System,
    ) -> None:
        self._host = host
        self._records = records
        self._system = system
        self._links = host.netlink.links()
        self._features = xdp_features()
        self._running = running  # network managers
        self._tc = TcMode.TCX if hooks.has_tcx() else TcMode.CLSACT
        self._owners = dict(self._owned())

    def _owned(self) -> Iterator[tuple[int, str]]:
        """Interfaces of groups, with the group."""
        for name, record in self._records.items():
            if has_master(record, self._links):
                master = master_of(record, self._links)
                yield master.port.ifindex, name
                yield master.face.ifindex, name
            for ifindex in record.slaves.values():
                if ifindex in self._links:
                    yield ifindex, name

    def findings(self, roots: Roots, names: Sequence[str]) -> Iterator[Finding]:
        """On the interfaces of these names and their groups, or on all groups."""
        links = [] if names else [self._links[index] for index in self._owners]
        for name in names:
            link = self._find(name)
            if link is not None:
                links.append(link)
            elif name not in self._records:
                yield Finding(
                    level=Level.FATAL,
                    subject=name,
                    what="interface",
                    found="there is none of this name",
                    cost="it cannot carry traffic",
                    mend="see 'ip link'; --netns NAME looks into another namespace",
                )
        wanted = {self._owners.get(link.ifindex) for link in links} | set(names)
        for status in report.groups(roots) if self._records else ():
            if not names or status.name in wanted:
                yield from carrying(status)
        for name, record in self._records.items():
            if not names or name in wanted:
                yield from self._macs(record)
        for link in links:
            yield from self._interface(link)

    def _find(self, name: str) -> Link | None:
        for link in self._links.values():
            if name == link.name or name in link.altnames:
                return link
        return None

    def _macs(self, record: Record) -> Iterator[Finding]:
        """A NIC takes no frames for another address than its own."""
        if not has_master(record, self._links):
            return
        spec = replace(record.spec, mac=MacPolicy.MATCH)
        face = master_of(record, self._links).face
        for ifindex in record.slaves.values():
            slave = self._links.get(ifindex)
            if slave is None:
                continue
            try:
                refuse_macs(spec, face, [slave], created=record.created)
            except RefusedError as exc:
                yield Finding(
                    level=Level.FATAL,
                    subject=slave.name,
                    what="MAC address",
                    found=_cause(exc),
                    cost="while it is active, nothing that is sent to us arrives",
                    mend=f"ip link set {slave.name} address {face.mac}",
                )

    # --- one interface ----------------------------------------------------

    def _interface(self, link: Link) -> Iterator[Finding]:
        driver = self._host.ethtool.driver(link.name)
        told = () if driver is None else (driver.name, driver.bus)
        found = " at ".join(filter(None, told)) or "not told"
        yield Finding(subject=link.name, what="driver", found=found)
        yield self._link(link)
        yield self._xdp(link)
        yield self._offloads(link)
        record = self._records.get(self._owners.get(link.ifindex, ""))
        if record is None or link.ifindex in record.slaves.values():
            yield from self._in_the_way(link, record, refuse_slave)
            yield from self._tcx_programs(link)
            yield from self._claims(link)
        elif link.ifindex == record.master:
            yield from self._in_the_way(link, record, refuse_master)

    def _link(self, link: Link) -> Finding:
        speed = self._host.ethtool.speed(link.name)
        rate = f", {speed.mbit} Mbit/s" if speed.mbit else ""
        look = Finding(subject=link.name, what="link", found=f"up{rate}")
        lack = replace(look, level=Level.COST, cost="it cannot carry traffic")
        if not link.up:
            return replace(lack, found="down", mend=f"ip link set {link.name} up")
        if not link.carrier:
            mend = "see its cable, and the port at the far end"
            return replace(lack, found="no carrier", mend=mend)
        if self._host.ethtool.ready(link.name) is None:
            return replace(
                lack,
                found="up; its driver does not tell of the carrier when asked",
                cost="a loss is seen when netlink tells of it, up to 1 s later",
                mend="another driver",
            )
        return look

    def _xdp(self, link: Link) -> Finding:
        look = Finding(subject=link.name, what="XDP", found="")
        if self._features is None:
            return replace(look, found="not told by this kernel (requires Linux 6.3)")
        acts = self._features.get(link.ifindex, frozenset())
        mode = "native" if {"basic", "redirect"} <= acts else "generic only"
        told = f" ({', '.join(sorted(acts))})" if acts else ""
        return replace(look, found=mode + told)

    def _offloads(self, link: Link) -> Finding:
        on = self._host.ethtool.offloads(link.name)
        found = f"GRO {'on' if on.gro else 'off'}, LRO {'on' if on.lro else 'off'}"
        look = Finding(subject=link.name, what="offloads", found=found)
        if not on.lro:
            return look
        return replace(
            look,
            level=Level.COST,
            cost="a wire master and XDP cannot carry on frames that it merged",
            mend=f"ethtool -K {link.name} lro off",
        )

    def _in_the_way(
        self,
        link: Link,
        record: Record | None,
        refuse: Callable[[Facts, GroupSpec], None],
    ) -> Iterator[Finding]:
        """All that admission refuses; it would stop at the first."""
        tc = self._tc if record is None else record.tc
        spec = replace(_DRAFT if record is None else record.spec, tc=tc)
        planner = Planner(self._host, spec, tc, records=self._records)
        hook = Hook.INGRESS if refuse is refuse_slave else planner.master_hook
        clean = True
        for what, facts in _aspects(planner.facts(link, self._links, hook)):
            try:
                refuse(facts, spec)
            except RefusedError as exc:
                clean = False
                yield Finding(
                    level=Level.FATAL if record is None else Level.COST,
                    subject=link.name,
                    what=what,
                    found=_cause(exc),
                    cost="attach refuses it"
                    if record is None
                    else _COSTS.get(what, _STARVES),
                    mend=exc.hint or "",
                )
                if what == "kind":
                    return  # in every aspect
        if clean:
            yield Finding(subject=link.name, what="in the way", found="nothing")

    def _tcx_programs(self, link: Link) -> Iterator[Finding]:
        if self._tc is not TcMode.TCX:
            return
        with suppress(OSError):  # it vanished meanwhile
            for prog in libbpf.tcx_progs(link.ifindex, libbpf.TCX_INGRESS):
                if prog not in self._host.ours():
                    yield Finding(
                        level=Level.COST,
                        subject=link.name,
                        what="tcx program",
                        found=f"{hooks.describe_program(prog)} on ingress",
                        cost="before ours it may take frames, after ours it sees none",
                        mend="see 'bpftool net', and its owner",
                    )

    def _claims(self, link: Link) -> Iterator[Finding]:
        master = self._owners.get(link.ifindex)
        for who, mend in claims(link, self._running, self._system, master=master):
            yield Finding(
                level=Level.COST,
                subject=link.name,
                what="manager",
                found=f"{who} sets it up",
                cost="addresses and routes that it gets there do not work",
                mend=mend,
            )


def _aspects(facts: Facts) -> Iterator[tuple[str, Facts]]:
    """The facts one by one, the interface alone first."""
    alone = Facts(link=replace(facts.link, master=None), links={})
    yield "kind", alone
    yield "group", replace(alone, used_by=facts.used_by)
    yield "stacking", replace(alone, link=facts.link, links=facts.links)
    yield "addresses", replace(alone, addresses=facts.addresses)
    yield "routes", replace(alone, routes=facts.routes)
    yield "qdisc", replace(alone, qdiscs=facts.qdiscs)
    yield "XDP program", replace(alone, xdp=facts.xdp)
    yield (
        "filters",
        replace(alone, bypassed=facts.bypassed, squatter=facts.squatter),
    )


def _cause(exc: RefusedError) -> str:
    """What follows `cannot use 'eth1' as a slave: `."""
    return exc.message.partition(": ")[2]
