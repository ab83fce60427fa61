# SPDX-License-Identifier: GPL-2.0-or-later
"""All interfaces by one dump, against pyroute2's word on each of them."""

import json
import socket
import subprocess
from pathlib import Path

from pyfailover.lab import Lab, LabError, Namespace
from pyfailover.netlink.dump import all_links
from pyfailover.netlink.rtnl import Netlink
from tests.support.foreign import xdp_passer
from tests.support.topology import make_talkative

# Some kernels lack some of these.
KINDS = {
    "dummy": "type dummy",
    "bridge": "type bridge",
    "bond": "type bond",
    "vlan": "link base type vlan id 97",
    "macvlan": "link base type macvlan",
    "ipvlan": "link base type ipvlan",
    "vxlan": "type vxlan id 97 dstport 4789",
    "sit": "type sit local 192.0.2.1 remote 192.0.2.2",
    "ip6tnl": "type ip6tnl local 2001:db8::1 remote 2001:db8::2",
    "gre": "type gre local 192.0.2.1 remote 192.0.2.2",
    "ifb": "type ifb",
    "vcan": "type vcan",
    "netkit": "type netkit",
}


def zoo(lab: Lab) -> Namespace:
    """A namespace with interfaces of all kinds that this kernel has, in all states."""
    ns, other = lab.namespace("zoo"), lab.namespace("other")
    ns.batch(
        "link add base type veth peer name peer",
        "link set base up mtu 1400 promisc on",
        "link set peer up addrgenmode none",
        "link property add dev base altname a-name-longer-than-an-interfaces altname ä",
        "link add ümlaut type veth peer name low",
        "addr add 192.0.2.1/24 dev base",
    )
    lab.veth(ns, "out", other, "in")
    for name, words in KINDS.items():
        try:
            ns.ip(f"link add {name} {words}")
        except LabError:
            continue
    ns.ip("link add br9 type bridge")
    ns.ip("link set low master br9 up")
    return ns


def test_a_dump_says_what_pyroute2_says(lab: Lab) -> None:
    """Each field of each interface is the same, whatever kind it is of."""
    ns = zoo(lab)
    with xdp_passer(ns, "peer"), ns.enter(), Netlink() as netlink:
        found = {link.ifindex: link for link in all_links()}
        assert len(found) >= 10
        for ifindex, link in found.items():
            assert link == netlink.link(ifindex)
        by_name = {link.name: link for link in found.values()}
        assert by_name["base"].altnames == ("a-name-longer-than-an-interfaces", "ä")
        assert by_name["base"].peer == by_name["peer"].ifindex
        assert by_name["peer"].xdp_prog is not None
        assert by_name["low"].master == by_name["br9"].ifindex
        assert by_name["out"].peer is None
        assert netlink.links() == found


def pairs(ns: Namespace, count: int) -> list[str]:
    """Make so many veth pairs; the names of all interfaces."""
    ns.batch(*(f"link add a{n} type veth peer name b{n}" for n in range(count)))
    return ["lo", *(f"{end}{n}" for end in "ab" for n in range(count))]


def test_a_dump_of_many(lab: Lab) -> None:
    """It has every interface, once, however many datagrams they take."""
    ns = lab.namespace("many")
    names = pairs(ns, 300)
    with ns.enter():
        assert sorted(link.name for link in all_links()) == sorted(names)


def test_a_dump_while_interfaces_come_and_go(lab: Lab) -> None:
    """What is there all the time is in it, whatever happens meanwhile."""
    ns = lab.namespace("busy")
    names = pairs(ns, 100)
    script = "while :; do ip link add x type veth peer name y; ip link del x; done"
    with subprocess.Popen(ns.argv("sh", "-c", script)) as busy, ns.enter():
        try:
            for _ in range(100):
                found = {link.name for link in all_links()}
                assert found - {"x", "y"} == set(names)
        finally:
            busy.kill()


def test_a_dump_of_an_empty_namespace(lab: Lab) -> None:
    """It has a loopback interface and nothing else."""
    with lab.namespace("bare").enter():
        (link,) = all_links()
    assert (link.name, link.ifindex, link.loopback) == ("lo", 1, True)


def test_addresses_and_qdiscs(lab: Lab) -> None:
    """They are what `ip` and `tc` show, with who made an address and whether it is in
    use yet."""
    ns = zoo(lab)
    make_talkative(ns, "base")
    with ns.enter():
        Path("/proc/sys/net/ipv6/conf/base/dad_transmits").write_text("100")
    ns.batch(
        "addr add 192.0.2.9/28 dev base label base:1",
        "addr add 198.51.100.1 peer 198.51.100.2/30 dev base",
        "addr add 2001:db8::7/56 dev base",
        "addr add fe80::7/64 dev base nodad",
        "link set lo up",
    )
    ns.run("tc", "qdisc", "add", "dev", "base", "clsact")
    ns.run("tc", "qdisc", "add", "dev", "base", "root", "pfifo")
    listed = json.loads(ns.ip("-j", "addr"))
    with ns.enter(), Netlink() as netlink:
        base = socket.if_nametoindex("base")
        found = netlink.all_addresses()
        mine = {each.address: each for each in netlink.addresses(base)}
        qdiscs = netlink.qdiscs(base)
    assert sorted((a.ifindex, a.address, a.prefixlen) for a in found) == sorted(
        (link["ifindex"], each["local"], each["prefixlen"])
        for link in listed
        for each in link["addr_info"]
    )
    (made,) = mine.keys() - {
        *("192.0.2.1", "192.0.2.9", "198.51.100.1", "2001:db8::7", "fe80::7")
    }
    kinds = {a.address: (a.ipv6, a.link_local, a.by_kernel) for a in mine.values()}
    assert kinds[made] == (True, True, True)
    assert kinds["fe80::7"] == (True, True, False)
    assert kinds["2001:db8::7"] == (True, False, False)
    assert kinds["192.0.2.9"] == (False, False, False)
    assert mine["2001:db8::7"].tentative
    assert not mine["fe80::7"].tentative
    shown = {(each.kind, each.is_root, each.is_ingress) for each in qdiscs}
    assert shown == {("clsact", False, True), ("pfifo", True, False)}
    assert all(each.handle for each in qdiscs)
