# SPDX-License-Identifier: GPL-2.0-or-later
"""What may be a master or a slave, as a table: facts, and what is said to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from pyfailover.admission import Facts, refuse_macs, refuse_master, refuse_slave
from pyfailover.errors import ConfigError, PyFailoverError, RefusedError
from pyfailover.model import Address, GroupSpec, Link, MacPolicy, Qdisc, Side, TcMode

MAC, OTHER_MAC = "02:00:5e:10:00:01", "02:00:5e:10:00:99"
TC_H_ROOT, TC_H_CLSACT = 0xFFFFFFFF, 0xFFFFFFF1


def link(name: str = "eth1", ifindex: int = 2, **changes: Any) -> Link:
    """An Ethernet interface that is up."""
    values = {"mac": MAC, "mtu": 1500, "up": True, "carrier": True, **changes}
    return Link(name=name, ifindex=ifindex, **values)


def spec(**changes: Any) -> GroupSpec:
    """A group fo0 over eth1 and eth2."""
    return GroupSpec(
        **{"name": "fo0", "primary": "eth1", "standbys": ("eth2",), **changes}
    )


def address(text: str, prefixlen: int, *, by_kernel: bool = False) -> Address:
    """An address of eth1."""
    return Address(
        ifindex=2,
        address=text,
        prefixlen=prefixlen,
        ipv6=":" in text,
        link_local=text.startswith("fe80"),
        by_kernel=by_kernel,
    )


def qdisc(kind: str, handle: int, parent: int = TC_H_ROOT) -> Qdisc:
    """A queueing discipline of the interface."""
    return Qdisc(ifindex=2, kind=kind, handle=handle, parent=parent)


FO0 = spec()
LINK_LOCAL = address("fe80::5eff:fe10:1", 64, by_kernel=True)
HTB = qdisc("htb", 0x10000)
INGRESS = qdisc("ingress", 0xFFFF0000, TC_H_CLSACT)
CLSACT = qdisc("clsact", 0xFFFF0000, TC_H_CLSACT)
ADDRESS_HINT = (
    "addresses belong on the master: ip address del {0} dev eth1, then add it on 'fo0'"
)
DETACH_FIRST = "detach that first"
FILTER = "bpf filter (pref 1, program 7) on ingress: 'guard' (id 7)"


@dataclass(frozen=True, kw_only=True)
class Case:
    """Facts about an interface; `why` None: it is accepted."""

    description: str
    own: Mapping[str, Any] = field(default_factory=dict)  # of the link
    others: Sequence[Link] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    spec: GroupSpec = FO0
    why: str | None = None
    hint: str | None = None


ETHERNET = [
    Case(description="an Ethernet interface"),
    Case(description="one that is down", own={"up": False, "carrier": False}),
    Case(
        description="lo",
        own={"loopback": True, "arptype": 772},
        why="it is not an Ethernet interface",
    ),
    Case(
        description="a loopback that says it is Ethernet",
        own={"loopback": True},
        why="it is not an Ethernet interface",
    ),
    Case(
        description="a tunnel",
        own={"arptype": 65534},
        why="it is not an Ethernet interface",
    ),
    Case(
        description="a slave of another group",
        facts={"used_by": "a slave of 'fo1'"},
        why="it is a slave of 'fo1'",
        hint=DETACH_FIRST,
    ),
    Case(
        description="a master of another group",
        facts={"used_by": "the master 'fo1'"},
        why="it is the master 'fo1'",
        hint=DETACH_FIRST,
    ),
]

FILTERED = [
    Case(
        description="an XDP program",
        facts={"xdp": "'guard' (id 7)"},
        why="XDP program 'guard' (id 7) is attached and takes frames first",
        hint="ip link set dev eth1 xdp off, or accept it with --bypass-filters",
    ),
    Case(
        description="a filter that would be bypassed: the first is named",
        facts={"bypassed": [FILTER, "another"]},
        why=f"{FILTER} would no longer see its frames",
        hint="--bypass-filters accepts that; --tc clsact attaches behind filters "
        "of clsact",
    ),
    Case(
        description="all of that, accepted",
        facts={"xdp": "'guard' (id 7)", "bypassed": [FILTER]},
        spec=spec(bypass_filters=True),
    ),
]

SLAVES = [
    Case(
        description="an IPv4 address",
        facts={"addresses": [address("192.0.2.1", 24)]},
        why="it has the address 192.0.2.1/24",
        hint=ADDRESS_HINT.format("192.0.2.1/24"),
    ),
    Case(
        description="an IPv6 address behind a link-local one",
        facts={"addresses": [LINK_LOCAL, address("2001:db8::1", 64)]},
        why="it has the address 2001:db8::1/64",
        hint=ADDRESS_HINT.format("2001:db8::1/64"),
    ),
    Case(
        description="a link-local address by the kernel",
        facts={"addresses": [LINK_LOCAL]},
    ),
    Case(
        description="a link-local address by somebody",
        facts={"addresses": [replace(LINK_LOCAL, by_kernel=False)]},
        why="it has the address fe80::5eff:fe10:1/64",
        hint=ADDRESS_HINT.format("fe80::5eff:fe10:1/64"),
    ),
    Case(
        description="an address is not bypassed by --bypass-filters",
        facts={"addresses": [address("192.0.2.1", 24)]},
        spec=spec(bypass_filters=True),
        why="it has the address 192.0.2.1/24",
        hint=ADDRESS_HINT.format("192.0.2.1/24"),
    ),
    Case(
        description="a route",
        facts={"routes": ["198.51.100.0/24", "default"]},
        why="the route '198.51.100.0/24' goes over it",
        hint="routes belong on the master: delete it, then add it on 'fo0'",
    ),
    Case(
        description="a port of a bridge",
        own={"master": 9},
        others=[link("br0", 9, kind="bridge")],
        why="it is a port of 'br0'",
        hint="ip link set eth1 nomaster",
    ),
    Case(
        description="a port of something that is out of sight",
        own={"master": 9},
        why="it is a port of '9'",
        hint="ip link set eth1 nomaster",
    ),
    Case(
        description="a VLAN on it",
        others=[link("eth1.97", 9, kind="vlan", lower=2)],
        why="vlan 'eth1.97' sits on it",
        hint="make it on 'fo0' instead",
    ),
    Case(
        description="a macvlan on it",
        others=[link("mv0", 9, kind="macvlan", lower=2)],
        why="macvlan 'mv0' sits on it",
        hint="make it on 'fo0' instead",
    ),
    Case(
        description="something without a kind on it",
        others=[link("x0", 9, lower=2)],
        why="interface 'x0' sits on it",
        hint="make it on 'fo0' instead",
    ),
    Case(
        description="a VLAN on another, a bridge of others",
        others=[
            link("eth2.97", 9, kind="vlan", lower=3),
            link("br0", 10, kind="bridge"),
            link("eth3", 11, master=10),
        ],
    ),
    Case(
        description="a qdisc: a slave's still works",
        facts={"qdiscs": [HTB, INGRESS]},
        spec=spec(tc=TcMode.CLSACT),
    ),
]

MASTERS = [
    Case(
        description="addresses and routes, where else should they be",
        facts={
            "addresses": [address("192.0.2.1", 24)],
            "routes": ["default"],
        },
    ),
    Case(
        description="a VLAN on it",
        others=[link("eth1.97", 9, kind="vlan", lower=2)],
    ),
    Case(
        description="a root qdisc on a stack",
        facts={"qdiscs": [HTB]},
        why="its htb qdisc would no longer see its frames",
        hint="put it on the slaves, or accept that with --bypass-filters",
    ),
    Case(
        description="a root qdisc on a stack, accepted",
        facts={"qdiscs": [HTB]},
        spec=spec(bypass_filters=True),
    ),
    Case(
        description="a root qdisc on a wire: its frames are not those",
        facts={"qdiscs": [HTB]},
        spec=spec(side=Side.WIRE),
    ),
    Case(
        description="the kernel's own root qdisc",
        facts={"qdiscs": [qdisc("noqueue", 0), qdisc("mq", 0)]},
    ),
    Case(
        description="the kernel's classes below its own root",
        facts={"qdiscs": [qdisc("mq", 0), qdisc("fq_codel", 0, 0x80010001)]},
    ),
    Case(
        description="an ingress qdisc on a stack by clsact",
        facts={"qdiscs": [INGRESS]},
        spec=spec(tc=TcMode.CLSACT),
        why="its ingress qdisc leaves no room for a filter on egress",
        hint="delete it: tc qdisc del dev eth1 ingress",
    ),
    Case(
        description="an ingress qdisc is in the way whatever is bypassed",
        facts={"qdiscs": [INGRESS]},
        spec=spec(tc=TcMode.CLSACT, bypass_filters=True),
        why="its ingress qdisc leaves no room for a filter on egress",
        hint="delete it: tc qdisc del dev eth1 ingress",
    ),
    Case(
        description="an ingress qdisc on a stack by tcx",
        facts={"qdiscs": [INGRESS]},
        spec=spec(tc=TcMode.TCX),
    ),
    Case(
        description="an ingress qdisc on a wire: its hook is all that is wanted",
        facts={"qdiscs": [INGRESS]},
        spec=spec(tc=TcMode.CLSACT, side=Side.WIRE),
    ),
    Case(
        description="a clsact qdisc is used as it is",
        facts={"qdiscs": [CLSACT]},
        spec=spec(tc=TcMode.CLSACT),
    ),
]


def facts(case: Case) -> Facts:
    """The facts of a case, about an interface eth1 among others."""
    own = link(**case.own)
    around = {other.ifindex: other for other in (link("eth2", 3), *case.others)}
    return Facts(link=own, links={own.ifindex: own, **around}, **case.facts)


def described(case: Case) -> str:
    """The name of a test."""
    return f"{case.description}{'' if case.why is None else ': refused'}"


@pytest.mark.parametrize("case", ETHERNET + SLAVES + FILTERED, ids=described)
def test_slave(case: Case) -> None:
    """What is in the way of a slave is named, with what to do about it."""
    if case.why is None:
        refuse_slave(facts(case), case.spec)
        return
    with pytest.raises(RefusedError) as refused:
        refuse_slave(facts(case), case.spec)
    assert refused.value.message == f"cannot use 'eth1' as a slave: {case.why}"
    assert refused.value.hint == case.hint
    assert refused.value.exit_code == 1


@pytest.mark.parametrize("case", ETHERNET + MASTERS + FILTERED, ids=described)
def test_master(case: Case) -> None:
    """What is in the way of a master is named, with what to do about it."""
    if case.why is None:
        refuse_master(facts(case), case.spec)
        return
    with pytest.raises(RefusedError) as refused:
        refuse_master(facts(case), case.spec)
    assert refused.value.message == f"cannot use 'eth1' as a master: {case.why}"
    assert refused.value.hint == case.hint


DIFFERS = (
    f"cannot use 'eth2' as a slave: its MAC address {OTHER_MAC} is not that of "
    f"'fo0', {MAC}"
)
CLONE_HINT = "--mac clone gives the slaves the master's until detach"


@pytest.mark.parametrize(
    ("policy", "side", "created", "second", "error", "message", "hint"),
    [
        (MacPolicy.MATCH, Side.STACK, False, MAC, None, "", ""),
        (MacPolicy.MATCH, Side.STACK, True, MAC, None, "", ""),
        (MacPolicy.MATCH, Side.WIRE, True, MAC, None, "", ""),
        *(
            (MacPolicy.MATCH, side, made, OTHER_MAC, RefusedError, DIFFERS, CLONE_HINT)
            for side, made in (
                (Side.STACK, False),
                (Side.STACK, True),
                (Side.WIRE, True),
            )
        ),
        (MacPolicy.MATCH, Side.WIRE, False, OTHER_MAC, None, "", ""),
        (MacPolicy.CLONE, Side.STACK, False, OTHER_MAC, None, "", ""),
        (MacPolicy.CLONE, Side.STACK, True, OTHER_MAC, None, "", ""),
        (MacPolicy.CLONE, Side.WIRE, True, OTHER_MAC, None, "", ""),
        (
            MacPolicy.CLONE,
            Side.WIRE,
            False,
            MAC,
            ConfigError,
            "cannot clone the MAC address of 'fo0': whoever is behind a wire master "
            "has his own",
            "leave out --mac clone",
        ),
    ],
)
def test_macs(
    policy: MacPolicy,
    side: Side,
    created: bool,
    second: str,
    error: type[PyFailoverError] | None,
    message: str,
    hint: str,
) -> None:
    """Equal addresses are required where ours are the user's, and can be made."""
    wanted = spec(mac=policy, side=side)
    slaves = [link("eth1", 2), link("eth2", 3, mac=second)]
    if error is None:
        refuse_macs(wanted, link("fo0", 1), slaves, created=created)
        return
    with pytest.raises(error) as refused:
        refuse_macs(wanted, link("fo0", 1), slaves, created=created)
    assert (refused.value.message, refused.value.hint) == (message, hint)
