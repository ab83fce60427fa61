# SPDX-License-Identifier: GPL-2.0-or-later
"""The main job: traffic through a master, moved from slave to slave, none lost."""

import pytest

from pyfailover.model import MacPolicy, Side, TcMode
from pyfailover.report import Health
from pyfailover.traffic import TcpStream, UdpStream, account
from tests.support.tool import Tool, spec
from tests.support.topology import FAR_V4, FAR_V6, HOST_V4, HOST_V6, Duo, guest

FAMILIES = pytest.mark.parametrize(
    ("host", "far"), [(HOST_V4, FAR_V4), (HOST_V6, FAR_V6)], ids=["v4", "v6"]
)


@FAMILIES
@pytest.mark.parametrize("side", list(Side))
def test_switch_loses_nothing(
    pair: Duo, tool: Tool, tc: TcMode, side: Side, host: str, far: str
) -> None:
    """Streams both ways cross six switches without loss or duplicate."""
    tool.create(pair.host, spec(tc=tc, side=side))
    pair.address()
    out = UdpStream(pair.host, pair.far, host, far, port=9001, rate=5_000)
    back = UdpStream(pair.far, pair.host, far, host, port=9002, rate=5_000)
    with out, back, TcpStream(pair.host, pair.far, host, far, rate=5e6) as tcp:
        for slave in ("eth2", "eth1") * 3:
            assert tool.switch(pair.host, slave) is not None
            before = back.received
            while back.received < before + 500:
                pass
        results = [out.stop(), back.stop()]
        stream = tcp.stop()
    for sent, received in results:
        outcome = account(sent, received)
        assert (outcome.lost, outcome.duplicated) == (0, 0)
    assert stream.intact
    assert tool.status(pair.host).health is Health.OK


def test_wire_side_serves_a_guest(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """A guest behind a foreign master talks through both slaves in turn."""
    behind = guest(pair)
    tool.attach(pair.host, spec("tap0", side=Side.WIRE, tc=tc))
    for slave in ("eth2", "eth1"):
        tool.switch(pair.host, slave, "tap0")
        with TcpStream(behind, pair.far, HOST_V4, FAR_V4, rate=5e6) as tcp:
            outcome = tcp.stop()
        assert outcome.intact
    assert tool.status(pair.host, "tap0").slaves[0].counters["tx_packets"] > 0


def test_unequal_macs_are_cloned(lab: object, tool: Tool, pair: Duo) -> None:
    """--mac clone gives slaves the master's address and detach theirs back."""
    pair.host.ip("link set eth2 address 02:00:5e:10:00:99")
    tool.create(pair.host, spec(mac=MacPolicy.CLONE))
    assert pair.host.mac("eth1") == pair.host.mac("fo0") == "02:00:5e:10:00:99"
    tool.destroy(pair.host)
    assert pair.host.mac("eth1") == "02:00:5e:10:00:01"
