# SPDX-License-Identifier: GPL-2.0-or-later
"""What the far bridge floods to all slaves arrives once (C6, S2)."""

import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from pyfailover.lab import Namespace, eventually
from pyfailover.model import Side, TcMode
from tests.support.capture import (
    BROADCAST,
    EXPERIMENTAL,
    capture,
    ethernet,
    send,
    transmitted,
)
from tests.support.tool import WAYS, Tool, spec
from tests.support.topology import FAR_V4, FAR_V6, HOST_V4, Duo, guest

ARP = 0x0806
PORT = 9_700
COUNT = 97
GROUP_V4, GROUP_V6 = "239.192.0.97", "ff05::97"
SO_RCVBUFFORCE = 33  # not in the socket module
LONG_MS = 60_000  # a grace that no test outlives


@contextmanager
def listener(ns: Namespace, dev: str, address: str) -> Iterator[socket.socket]:
    """A UDP socket that hears a broadcast address or a group on a device."""
    ipv6 = ":" in address
    with ns.enter():
        sock = socket.socket(
            socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM
        )
        index = socket.if_nametoindex(dev)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
        sock.bind((address, PORT))
        if ipv6:
            join = socket.inet_pton(socket.AF_INET6, address) + struct.pack("@I", index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, join)
        elif address == GROUP_V4:
            join = socket.inet_aton(address) + struct.pack("=4si", bytes(4), index)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, join)
        sock.setblocking(False)
        yield sock


def shout(ns: Namespace, dev: str, address: str, first: int) -> None:
    """Send COUNT numbered datagrams to a broadcast address or a group."""
    ipv6 = ":" in address
    with ns.enter():
        sock = socket.socket(
            socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM
        )
        index = socket.if_nametoindex(dev)
    with sock:
        sock.bind((FAR_V6 if ipv6 else FAR_V4, 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        else:
            here = struct.pack("=4s4si", bytes(4), bytes(4), index)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
        for number in range(first, first + COUNT):
            sock.sendto(struct.pack("!I", number), (address, PORT))


def heard(sock: socket.socket) -> Callable[[], Counter[int]]:
    """A function that tells how often each number was heard up to now."""
    numbers: Counter[int] = Counter()

    def look() -> Counter[int]:
        while True:
            try:
                numbers[struct.unpack("!I", sock.recv(64))[0]] += 1
            except BlockingIOError:
                return numbers

    return look


def once(first: int) -> dict[int, int]:
    """What is to be heard of a shout."""
    return dict.fromkeys(range(first, first + COUNT), 1)


def wait_for_drops(tool: Tool, ns: Namespace, first: int, second: int) -> None:
    """Wait until the copies on both slaves were dropped: none can be late."""

    def dropped() -> bool:
        slaves = tool.status(ns).slaves
        one, two = (slave.counters["rx_drop_inactive"] for slave in slaves)
        return one >= first and two >= second

    eventually(dropped, what=f"drops of {first} and {second} copies")


@WAYS
def test_flooded_datagram_arrives_once(
    pair: Duo, tool: Tool, tc: TcMode, side: Side
) -> None:
    """Broadcasts and multicasts, of which both slaves get a copy, are heard once,
    with either slave active and within the grace after a switch."""
    tool.create(pair.host, spec(tc=tc, side=side, rx_grace_ms=LONG_MS))
    pair.settle()
    pair.address()
    addresses = ("192.0.2.255", "255.255.255.255", GROUP_V4, GROUP_V6)
    expected: dict[int, int] = {}
    with ExitStack() as stack:
        ears = [
            heard(stack.enter_context(listener(pair.host, "fo0", address)))
            for address in addresses
        ]
        copies = [transmitted(pair.far, port) for port in ("p1", "p2")]
        for first, slave in ((1, "eth1"), (1001, "eth2"), (2001, "eth1")):
            tool.switch(pair.host, slave)
            for address in addresses:
                shout(pair.far, "br0", address, first)
            expected |= once(first)
        wait_for_drops(tool, pair.host, 4 * COUNT, 2 * 4 * COUNT)
        assert [look() for look in ears] == [expected] * 4
    for port, before in zip(("p1", "p2"), copies, strict=True):
        assert transmitted(pair.far, port) - before >= 3 * 4 * COUNT


def test_flooded_frame_reaches_a_guest_once(pair: Duo, tool: Tool) -> None:
    """A broadcast frame reaches whoever is behind a wire master once, within the
    grace after a switch too."""
    behind = guest(pair)
    tool.attach(pair.host, spec("tap0", side=Side.WIRE, rx_grace_ms=LONG_MS))
    pair.settle()
    me = pair.far.mac("br0")
    with capture(behind, "eth0", EXPERIMENTAL) as seen:
        for number, slave in enumerate(("eth1", "eth2", "eth1")):
            tool.switch(pair.host, slave, "tap0")
            call = ethernet(BROADCAST, me, EXPERIMENTAL, b"%d" % number)
            end = ethernet(BROADCAST, me, EXPERIMENTAL, b"end %d" % number)
            send(pair.far, "br0", *[call] * COUNT, end)
            seen.wait_for(end)
            assert (seen.count(call), seen.count(end)) == (COUNT, 1)


def test_flooded_arp_arrives_once(pair: Duo, tool: Tool) -> None:
    """Of a broadcast ARP request the master's stack sees one, and answers once."""
    tool.create(pair.host, spec())
    pair.settle()
    pair.address()
    me = pair.far.mac("br0")
    request = bytes.fromhex("0001080006040001") + bytes.fromhex(me.replace(":", ""))
    request += socket.inet_aton(FAR_V4) + bytes(6) + socket.inet_aton(HOST_V4)
    frame = ethernet(BROADCAST, me, ARP, request)
    with (
        capture(pair.host, "fo0", ARP) as asked,
        capture(pair.far, "br0", ARP) as heard_back,
    ):
        send(pair.far, "br0", *[frame] * COUNT)
        tool.switch(pair.host, "eth2")
        send(pair.far, "br0", *[frame] * COUNT)
        wait_for_drops(tool, pair.host, COUNT, COUNT)
        assert asked.count(frame) == 2 * COUNT
        answers = [f for f in heard_back.frames() if f[20:22] == b"\0\2"]
        assert len(answers) == 2 * COUNT
