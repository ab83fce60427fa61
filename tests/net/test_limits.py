# SPDX-License-Identifier: GPL-2.0-or-later
"""At the edges: indexes, names, frames, slaves, groups."""

import socket
from contextlib import ExitStack

import pytest

from pyfailover.errors import RefusedError
from pyfailover.lab import Lab, Namespace, eventually
from pyfailover.model import MAX_SLAVES, Side, TcMode
from pyfailover.report import Health
from pyfailover.traffic import TcpStream, UdpStream
from tests.support.capture import all_received
from tests.support.snapshot import assert_same, take
from tests.support.streams import damage, deliver, exchange
from tests.support.tool import WAYS, Tool, spec
from tests.support.topology import (
    FAR_V4,
    FAR_V6,
    HOST_V4,
    HOST_V6,
    MAC,
    Duo,
    duo,
    guest,
)

UNHARMED = [(0, 0)] * 4
LARGEST_INDEX = 2**31 - 1
FIFTEEN = ("abcdefghijklmno", "primary-eth0123", "standby-eth0123")


def test_large_indexes(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """Interfaces with indexes above 65,535, up to the largest that there is."""
    for number, index in ((1, 70_001), (2, LARGEST_INDEX)):
        pair.unplug(number)
        pair.plug(number, index=index)
    pair.lab.veth(pair.host, "m0", pair.far, "m0-far", mac_a=MAC, index_a=1_000_003)
    pair.address("m0")
    before = take(tool, pair.host)
    tool.attach(pair.host, spec("m0", tc=tc))
    with exchange(pair.host, pair.far) as streams:
        for slave in ("eth2", "eth1", "eth2"):
            tool.switch(pair.host, slave, "m0")
            deliver(*streams)
        assert damage(*streams) == UNHARMED
    assert {s.ifindex for s in tool.status(pair.host, "m0").slaves} == {
        70_001,
        LARGEST_INDEX,
    }
    tool.detach(pair.host, "m0")
    assert_same(before, lambda: take(tool, pair.host), where="detached")


def test_names_of_fifteen_characters(pair: Duo, tool: Tool) -> None:
    """Slaves and a foreign master with names as long as they can be."""
    name, primary, standby = FIFTEEN
    assert {len(each) for each in FIFTEEN} == {15}
    pair.host.batch(
        f"link set eth1 name {primary}",
        f"link set eth2 name {standby}",
    )
    behind = guest(pair)
    pair.host.ip(f"link set tap0 name {name}")
    tool.attach(pair.host, spec(name, primary, (standby,), side=Side.WIRE))
    with exchange(behind, pair.far) as streams:
        tool.switch(pair.host, standby, name)
        deliver(*streams)
    shown = tool.command(pair.host, "status").stdout
    assert all(each in shown for each in FIFTEEN)
    assert all(len(line) <= 80 for line in shown.splitlines())
    tool.detach(pair.host, name)


def test_created_name_of_fifteen_characters(pair: Duo, tool: Tool) -> None:
    """A master of ours as well; its lower end gets a name that fits, and one that
    would get the same is refused, naming it."""
    pair.plug(3)
    tool.create(pair.host, spec(FIFTEEN[0], standbys=()))
    assert "abcdefghijk-low" in pair.host.ip("link show")
    assert tool.status(pair.host, FIFTEEN[0]).health is Health.OK
    before = take(tool, pair.host)
    with pytest.raises(RefusedError, match="'abcdefghijk-low' already"):
        tool.create(pair.host, spec("abcdefghijk-two", None, ("eth3",)))
    assert_same(before, lambda: take(tool, pair.host), where="refused")
    tool.destroy(pair.host, FIFTEEN[0])
    assert "abcdefghijk" not in pair.host.ip("link show")


def ping(ns: Namespace, target: str, size: int) -> int:
    """Replies to 23 echo requests that must not be fragmented."""
    count = "23"
    said = ns.run(
        *("ping", "-q", "-M", "do", "-c", count, "-i", "0.002", "-W", "2"),
        *("-s", str(size), target),
        check=False,
    ).stdout
    return int(said.split(f"{count} packets transmitted, ")[1].split()[0])


def datagrams(sender: Namespace, receiver: Namespace, src: str, dst: str) -> int:
    """How many of 97 datagrams of 8,972 bytes arrive whole, DF set."""
    with ExitStack() as stack:
        with receiver.enter():
            inward = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        with sender.enter():
            outward = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        inward.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        inward.setblocking(False)
        inward.bind((dst, 9_800))
        outward.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: do
        outward.bind((src, 0))
        for number in range(97):
            outward.sendto(number.to_bytes(2, "big") * 4486, (dst, 9_800))
        arrived: list[bytes] = []

        def all_there() -> bool:
            while len(arrived) < 97:
                try:
                    arrived.append(inward.recv(65535))
                except BlockingIOError:
                    return False
            return True

        eventually(all_there, what="97 datagrams")
        return sum(d == n.to_bytes(2, "big") * 4486 for n, d in enumerate(arrived))


@WAYS
def test_jumbo_frames(lab: Lab, tool: Tool, tc: TcMode, side: Side) -> None:
    """MTU 9,000 from end to end: pings and datagrams as large, and TCP, both ways."""
    pair = duo(lab, mtu=9_000)
    tool.create(pair.host, spec(tc=tc, side=side))
    pair.address()
    for slave in ("eth1", "eth2"):
        tool.switch(pair.host, slave)
        assert ping(pair.host, FAR_V4, 8_972) == 23
        assert ping(pair.far, HOST_V6, 8_952) == 23
        assert datagrams(pair.host, pair.far, HOST_V4, FAR_V4) == 97
        assert datagrams(pair.far, pair.host, FAR_V4, HOST_V4) == 97
        for ends in (
            (pair.host, pair.far, HOST_V4, FAR_V4),
            (pair.far, pair.host, FAR_V6, HOST_V6),
        ):
            with TcpStream(*ends) as tcp:
                deliver(tcp, more=5_000_000)
                assert tcp.stop().intact


def test_mtu_of_a_master_reaches_its_slaves(pair: Duo, tool: Tool) -> None:
    """Slaves of 1,500 behind a master of 9,000 carry jumbo frames while attached."""
    pair.lab.veth(pair.host, "m0", pair.far, "m0-far", mac_a=MAC, mtu=9_000)
    pair.address("m0")
    for dev in ("p1", "p2", "br0"):
        pair.far.ip(f"link set {dev} mtu 9000")
    tool.attach(pair.host, spec("m0"))
    assert ping(pair.host, FAR_V4, 8_972) == 23
    tool.detach(pair.host, "m0")
    assert "mtu 1500" in pair.host.ip("link show eth1")


def test_eight_slaves(lab: Lab, tool: Tool) -> None:
    """Eight slaves carry the traffic in turn, each alone, and nothing is lost."""
    pair = duo(lab, slaves=MAX_SLAVES)
    primary, *standbys = pair.slaves
    tool.create(pair.host, spec(primary=primary, standbys=tuple(standbys)))
    pair.address()
    with exchange(pair.host, pair.far) as streams:
        for slave in (*standbys, primary):
            tool.switch(pair.host, slave)
            before = all_received(pair.far)
            deliver(*streams)
            now = all_received(pair.far)
            port = slave.replace("eth", "p")
            assert [p for p in now if p[0] == "p" and now[p] > before[p]] == [port]
        assert damage(*streams) == UNHARMED
    assert tool.status(pair.host).health is Health.OK


def test_ninth_slave(pair: Duo, tool: Tool) -> None:
    """A ninth slave is bad usage: exit code 2 and the limit named."""
    before = take(tool, pair.host)
    slaves = [f"--standby=eth{number}" for number in range(1, MAX_SLAVES + 2)]
    done = tool.command(pair.host, "create", "fo0", *slaves, code=2)
    assert "9 slaves behind 'fo0': a group has at most 8" in done.stderr
    assert_same(before, lambda: take(tool, pair.host), where="refused")


def test_no_room_for_another_group(pair: Duo, tool: Tool) -> None:
    """With --max-groups 1 a second group gets one clear error, and the first one
    carries its traffic on; once it is gone there is room."""
    tool.create(pair.host, spec(standbys=()), max_groups=1)
    pair.address()
    before = take(tool, pair.host)
    with exchange(pair.host, pair.far) as streams:
        done = tool.command(pair.host, "create", "fo1", "--standby=eth2", code=1)
        deliver(*streams)
        assert damage(*streams) == UNHARMED
    error, hint = done.stderr.splitlines()
    assert error.startswith("Error: cannot attach 'fo1': ")
    assert "loaded for 1 groups" in error
    assert "--max-groups" in hint
    assert_same(before, lambda: take(tool, pair.host), where="refused")
    tool.destroy(pair.host)
    tool.create(pair.host, spec("fo1", None, ("eth2",)))


def test_groups_side_by_side(lab: Lab, tool: Tool) -> None:
    """Two groups of one namespace switch, count and end apart from each other."""
    pair = duo(lab, slaves=4)
    tool.create(pair.host, spec(), max_groups=2)
    tool.create(pair.host, spec("fo1", "eth3", ("eth4",)))
    pair.address()
    with UdpStream(pair.host, pair.far, HOST_V6, FAR_V6, rate=4_000) as stream:
        tool.switch(pair.host, "eth4", "fo1")
        deliver(stream)
        assert tool.status(pair.host).active == "eth1"
        counted = tool.status(pair.host, "fo1").slaves
        assert sum(s.counters["rx_packets"] for s in counted) < 20
        tool.destroy(pair.host, "fo1")
        deliver(stream)
        assert damage(stream) == [(0, 0)]
