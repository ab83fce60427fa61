# SPDX-License-Identifier: GPL-2.0-or-later
"""Which slave is listened to: rx_grace after a switch, --rx all, --rx kernel (S2)."""

from pyfailover.lab import eventually
from pyfailover.model import RxMode, Side, TcMode
from pyfailover.traffic import UdpStream
from tests.support.capture import (
    BROADCAST,
    EXPERIMENTAL,
    capture,
    ethernet,
    send,
)
from tests.support.scenes import keep_programs
from tests.support.streams import damage, deliver
from tests.support.tool import WAYS, Tool, spec
from tests.support.topology import (
    FAR_V4,
    FAR_V6,
    HOST_V4,
    HOST_V6,
    MAC,
    Duo,
    guest,
)

LONG_MS = 60_000


def taken(pair: Duo, port: str, dst: str = MAC, *, times: int = 23) -> int:
    """How many copies of frames from a far port reach fo0.

    Those that do not are seen to be dropped: a control frame sent after them by
    the same way has reached the slave.
    """
    slave = port.replace("p", "eth")
    frame = ethernet(dst, pair.far.mac("br0"), EXPERIMENTAL, port.encode())
    last = ethernet("01:80:c2:00:00:0e", pair.far.mac(port), 0x88CC, port.encode())
    with (
        capture(pair.host, "fo0", EXPERIMENTAL) as master,
        capture(pair.host, slave, 0x88CC) as end,
    ):
        send(pair.far, port, *[frame] * times, last)
        end.wait_for(last)
        # By way of `fo0-low` a frame is one softirq longer on its way.
        before = -1
        while before != master.count(frame):
            before = master.count(frame)
            end.forget()
            send(pair.far, port, last)
            end.wait_for(last)
        return master.count(frame)


@WAYS
def test_one_way_streams_lose_nothing_by_a_switch(
    pair: Duo, tool: Tool, tc: TcMode, side: Side
) -> None:
    """Two streams in, one of each family, and nothing out that would tell the far
    bridge the way: six switches with the default grace lose nothing."""
    tool.create(pair.host, spec(tc=tc, side=side))
    pair.address()
    one = UdpStream(pair.far, pair.host, FAR_V4, HOST_V4, port=9001, rate=5_000)
    two = UdpStream(pair.far, pair.host, FAR_V6, HOST_V6, port=9002, rate=5_000)
    with one, two:
        for slave in ("eth2", "eth1") * 3:
            tool.switch(pair.host, slave)
            deliver(one, two, more=499)
        assert damage(one, two) == [(0, 0), (0, 0)]
    status = tool.status(pair.host)
    assert all(slave.counters["rx_packets"] > 0 for slave in status.slaves)


@WAYS
def test_grace_is_for_unicast_from_the_slave_just_left(
    pair: Duo, tool: Tool, tc: TcMode, side: Side
) -> None:
    """Within it unicast from the old slave is taken and counted apart; flooded
    frames never are, nor anything from a slave that was not left."""
    tool.create(pair.host, spec(tc=tc, side=side, rx_grace_ms=LONG_MS))
    assert taken(pair, "p2") == 0
    tool.switch(pair.host, "eth2")
    assert (taken(pair, "p1"), taken(pair, "p2")) == (23, 23)
    for dst in (BROADCAST, "01:00:5e:00:00:01", "33:33:00:00:00:01"):
        assert taken(pair, "p1", dst) == 0
        assert taken(pair, "p2", dst) == 23
    counters = tool.status(pair.host).slaves[0].counters
    assert counters["rx_grace"] == 23
    assert counters["rx_drop_inactive"] >= 3 * 23
    tool.switch(pair.host, "eth1")
    assert (taken(pair, "p1"), taken(pair, "p2")) == (23, 23)


def test_grace_of_a_guest(pair: Duo, tool: Tool) -> None:
    """Behind a wire master a unicast frame for the guest, whose address no slave
    has, is taken within the grace."""
    behind = guest(pair)
    tool.attach(pair.host, spec("tap0", side=Side.WIRE, rx_grace_ms=LONG_MS))
    frame = ethernet(behind.mac("eth0"), pair.far.mac("br0"), EXPERIMENTAL)
    with capture(behind, "eth0", EXPERIMENTAL) as seen:
        tool.switch(pair.host, "eth2", "tap0")
        send(pair.far, "p1", frame)
        seen.wait_for(frame)


def test_grace_ends(pair: Duo, tool: Tool) -> None:
    """After its time nothing more is taken from the old slave; with a grace of 0
    nothing is at once."""
    keep_programs(pair, tool, TcMode.AUTO)
    tool.create(pair.host, spec(rx_grace_ms=30))
    tool.switch(pair.host, "eth2")
    eventually(lambda: taken(pair, "p1", times=1) == 0, what="the end of the grace")
    assert taken(pair, "p1") == 0
    tool.destroy(pair.host)
    tool.create(pair.host, spec(rx_grace_ms=0))
    tool.switch(pair.host, "eth2")
    assert taken(pair, "p1") == 0
    assert tool.status(pair.host).slaves[0].counters["rx_grace"] == 0


@WAYS
def test_rx_all(pair: Duo, tool: Tool, tc: TcMode, side: Side) -> None:
    """--rx all takes every slave's frames, flooded ones twice."""
    tool.create(pair.host, spec(tc=tc, side=side, rx=RxMode.ALL))
    pair.settle()
    for slave in ("eth1", "eth2"):
        tool.switch(pair.host, slave)
        for port in ("p1", "p2"):
            assert taken(pair, port) == 23
            assert taken(pair, port, BROADCAST) == 23
    counters = [slave.counters for slave in tool.status(pair.host).slaves]
    assert [c["rx_drop_inactive"] for c in counters] == [0, 0]
    assert [c["rx_grace"] for c in counters] == [0, 0]
    frame = ethernet(BROADCAST, pair.far.mac("br0"), EXPERIMENTAL, b"flooded")
    with capture(pair.host, "fo0", EXPERIMENTAL) as seen:
        send(pair.far, "br0", frame)
        eventually(lambda: seen.count(frame) == 2, what="both copies")


@WAYS
def test_rx_kernel(pair: Duo, tool: Tool, tc: TcMode, side: Side) -> None:
    """--rx kernel is net_failover_handle_frame(): with a primary plugged its frames
    are taken whoever is active, and a standby's never, grace or not."""
    tool.create(
        pair.host, spec(tc=tc, side=side, rx=RxMode.KERNEL, rx_grace_ms=LONG_MS)
    )
    for slave in ("eth1", "eth2", "eth1"):
        tool.switch(pair.host, slave)
        for dst in (MAC, BROADCAST):
            assert taken(pair, "p1", dst) == 23
            assert taken(pair, "p2", dst) == 0


def test_rx_kernel_without_a_primary(pair: Duo, tool: Tool) -> None:
    """In a group that has no primary a standby's frames are taken."""
    tool.create(
        pair.host, spec(primary=None, standbys=("eth1", "eth2"), rx=RxMode.KERNEL)
    )
    assert (taken(pair, "p1"), taken(pair, "p2")) == (23, 0)
    tool.switch(pair.host, "eth2")
    assert taken(pair, "p2", BROADCAST) == 23
    assert taken(pair, "p1", BROADCAST) == 0


def test_rx_kernel_with_the_primary_unplugged(pair: Duo, tool: Tool) -> None:
    """Nor is there a primary plugged once it is deleted: the standby's are taken."""
    tool.create(pair.host, spec(rx=RxMode.KERNEL))
    pair.unplug(1)
    tool.switch(pair.host, "eth2")
    assert taken(pair, "p2") == 23
