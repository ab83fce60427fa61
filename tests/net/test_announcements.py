# SPDX-License-Identifier: GPL-2.0-or-later
"""Every change is told to the network: once for each address, by the new slave
and by no other (S5)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyfailover.lab import Namespace
from pyfailover.model import MacPolicy, Side, TcMode
from tests.support.capture import (
    BROADCAST,
    EXPERIMENTAL,
    Capture,
    announcements,
    capture,
    ethernet,
    send,
)
from tests.support.tool import WAYS, Tool, spec
from tests.support.topology import MAC, Duo, guest

ADDRESSES = ["192.0.2.1", "192.0.2.9", "198.51.100.1", "2001:db8::1", "2001:db8::9"]
LINK_LOCAL = "fe80::5eff:fe10:1"  # the kernel's, of MAC


def give_addresses(ns: Namespace, dev: str) -> None:
    """All of ADDRESSES; two of them on one prefix."""
    for address in ADDRESSES:
        length = 64 if ":" in address else 24
        ns.ip(f"addr add {address}/{length} dev {dev}" + " nodad" * (":" in address))


@contextmanager
def far_ports(pair: Duo) -> Iterator[list[Capture]]:
    """What arrives at the far ends of both slaves."""
    with capture(pair.far, "p1") as one, capture(pair.far, "p2") as two:
        yield [one, two]


def told(pair: Duo, ports: list[Capture]) -> list[list[tuple[str, str]]]:
    """The announcements at each port up to now, and none that is still under way:
    a frame sent after them by the slave itself has arrived."""
    found = []
    for number, port in enumerate(ports, 1):
        end = ethernet(BROADCAST, "02:00:00:00:00:99", EXPERIMENTAL, b"end")
        send(pair.host, f"eth{number}", end)
        port.wait_for(end)
        found.append(sorted(announcements(port.frames())))
        port.forget()
    return found


def expected(*addresses: str, mac: str = MAC) -> list[tuple[str, str]]:
    """One announcement for each."""
    return sorted((address, mac) for address in addresses)


def test_attach_and_switch_are_announced(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """One gratuitous ARP for each IPv4 and one unsolicited NA for each IPv6 address
    of the master, link-local included, after attach and after each switch."""
    pair.lab.veth(pair.host, "m0", pair.far, "m0-far", mac_a=MAC)
    give_addresses(pair.host, "m0")
    everything = expected(*ADDRESSES, LINK_LOCAL)
    with far_ports(pair) as ports:
        tool.attach(pair.host, spec("m0", tc=tc))
        assert told(pair, ports) == [everything, []]
        for slave, seen in (
            ("eth2", [[], everything]),
            ("eth1", [everything, []]),
        ):
            done = tool.switch(pair.host, slave, "m0")
            assert done is not None
            assert done.announced == len(everything)
            assert told(pair, ports) == seen
        assert tool.switch(pair.host, "eth1", "m0") is None
        tool.attach(pair.host, spec("m0", tc=tc))
        assert told(pair, ports) == [[], []]
        tool.detach(pair.host, "m0")
        assert [announcements(port.frames()) for port in ports] == [[], []]


@WAYS
def test_created_master_is_announced(
    pair: Duo, tool: Tool, tc: TcMode, side: Side
) -> None:
    """The same for a master of ours, driven from either side."""
    tool.create(pair.host, spec(tc=tc, side=side))
    give_addresses(pair.host, "fo0")
    with far_ports(pair) as ports:
        tool.switch(pair.host, "eth2")
        assert told(pair, ports) == [[], expected(*ADDRESSES, LINK_LOCAL)]


def test_announced_with_the_masters_address(pair: Duo, tool: Tool) -> None:
    """With --mac clone it is the master's MAC address that is told, and the frame
    comes from it."""
    mac = "02:00:5e:10:00:55"
    pair.lab.veth(pair.host, "m0", pair.far, "m0-far", mac_a=mac)
    pair.host.ip("addr add 192.0.2.1/24 dev m0")
    with far_ports(pair) as ports:
        tool.attach(pair.host, spec("m0", mac=MacPolicy.CLONE))
        frames = list(ports[0].frames())
        assert told(pair, ports) == [
            expected("192.0.2.1", "fe80::5eff:fe10:55", mac=mac),
            [],
        ]
    sources = {f[6:12].hex(":") for f in frames if announcements([f])}
    assert sources == {mac}


def test_tentative_address_is_not_announced(pair: Duo, tool: Tool) -> None:
    """An address that is still being checked for duplicates belongs to nobody yet."""
    tool.create(pair.host, spec())
    pair.address()
    with pair.host.enter():
        conf = Path("/proc/sys/net/ipv6/conf/fo0")
        (conf / "accept_dad").write_text("1")
        (conf / "dad_transmits").write_text("100")
    pair.host.ip("addr add 2001:db8::77/64 dev fo0")
    assert "tentative" in pair.host.ip("addr show dev fo0")
    with far_ports(pair) as ports:
        tool.switch(pair.host, "eth2")
        seen = told(pair, ports)
    assert seen == [[], expected("192.0.2.1", "2001:db8::1", LINK_LOCAL)]


def test_master_that_is_down_is_not_announced(pair: Duo, tool: Tool) -> None:
    """Its addresses are not in use; the switch is made all the same."""
    tool.create(pair.host, spec())
    pair.address()
    pair.host.ip("link set fo0 down")
    with far_ports(pair) as ports:
        done = tool.switch(pair.host, "eth2")
        assert done is not None
        assert (done.announced, done.after) == (0, "eth2")
        assert told(pair, ports) == [[], []]


def test_a_guest_is_announced_by_what_he_sent(pair: Duo, tool: Tool) -> None:
    """Behind a foreign wire master nobody tells us addresses; but every MAC address
    that transmitted is announced by one reverse ARP, by the new slave alone."""
    behind = guest(pair)
    pair.host.ip("addr add 203.0.113.1/24 dev tap0")
    tool.attach(pair.host, spec("tap0", side=Side.WIRE))
    stranger = "02:00:5e:30:00:97"
    frame = ethernet(BROADCAST, stranger, EXPERIMENTAL, b"here I am")
    with far_ports(pair) as ports:
        for sender in (stranger, behind.mac("eth0")):
            frame = ethernet(BROADCAST, sender, EXPERIMENTAL, b"here I am")
            send(behind, "eth0", frame)
            ports[0].wait_for(frame)
        told(pair, ports)
        tool.switch(pair.host, "eth2", "tap0")
        told_by = [*reversed_arps(pair, ports)]
        assert told_by == [[], sorted([stranger, behind.mac("eth0")])]


def test_a_master_needs_no_reverse_arp(pair: Duo, tool: Tool) -> None:
    """Its addresses are announced as such, be it up or down; somebody who transmits
    through it under another MAC address (bridged, or a container's macvlan) is
    announced beside."""
    tool.create(pair.host, spec())
    pair.address()
    stranger = "02:00:5e:30:00:97"
    with far_ports(pair) as ports:
        for sender in (stranger, MAC):
            frame = ethernet(BROADCAST, sender, EXPERIMENTAL, b"here I am")
            send(pair.host, "fo0", frame)
            ports[0].wait_for(frame)
        told(pair, ports)
        tool.switch(pair.host, "eth2")
        assert [*reversed_arps(pair, ports)] == [[], [stranger]]


def reversed_arps(pair: Duo, ports: list[Capture]) -> Iterator[list[str]]:
    """Whom reverse ARP requests told of at each port, from their own address."""
    for number, port in enumerate(ports, 1):
        end = ethernet(BROADCAST, "02:00:00:00:00:99", EXPERIMENTAL, b"end")
        send(pair.host, f"eth{number}", end)
        port.wait_for(end)
        found = [f for f in port.frames() if f[12:14] == b"\x80\x35"]
        assert all(f[6:12] == f[22:28] == f[32:38] for f in found)
        yield sorted(f[6:12].hex(":") for f in found)
