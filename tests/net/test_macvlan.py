# SPDX-License-Identifier: GPL-2.0-or-later
"""Interfaces on the master: a macvlan with an address of its own (C17)."""

from pyfailover.lab import Namespace
from pyfailover.model import Side, TcMode
from pyfailover.report import Health
from pyfailover.traffic import TcpStream
from tests.support.streams import damage, deliver, exchange
from tests.support.tool import WAYS, Tool, spec
from tests.support.topology import HOST_V4, HOST_V6, Duo


def box(pair: Duo, kind: str = "macvlan") -> Namespace:
    """A container whose eth0 is a macvlan on fo0, with the host's addresses."""
    ns = pair.lab.namespace("box")
    pair.host.batch(
        f"link add link fo0 name mv0 type {kind} mode bridge",
        f"link set mv0 netns {ns.name} name eth0",
    )
    pair.address("eth0", ns)
    ns.ip("link set eth0 up")
    return ns


@WAYS
def test_macvlan_follows_a_switch(
    pair: Duo, tool: Tool, tc: TcMode, side: Side
) -> None:
    """Unicast of a macvlan's own address goes both ways before and after a switch,
    and TCP goes on across it."""
    tool.create(pair.host, spec(tc=tc, side=side))
    inside = box(pair)
    assert inside.mac("eth0") != pair.host.mac("fo0")
    with TcpStream(inside, pair.far, HOST_V4, "192.0.2.2", rate=5e6) as tcp:
        for slave in ("eth2", "eth1"):
            tool.switch(pair.host, slave)
            deliver(tcp, more=1_000_000)
            with exchange(inside, pair.far) as streams:
                deliver(*streams)
                assert damage(*streams) == [(0, 0)] * 4
        assert tcp.stop().intact
    assert tool.status(pair.host).health is Health.OK


def test_macvlan_and_its_host(pair: Duo, tool: Tool) -> None:
    """Host and macvlan each get what is theirs."""
    tool.create(pair.host, spec())
    inside = box(pair)
    pair.lab.address(pair.host, "fo0", "192.0.2.5/24", "2001:db8::5/64")
    ends = (pair.host, pair.far, "192.0.2.5", "192.0.2.2")
    with TcpStream(*ends, rate=5e6) as tcp, exchange(inside, pair.far) as streams:
        deliver(*streams)
        tool.switch(pair.host, "eth2")
        deliver(*streams)
        deliver(tcp, more=1_000_000)
        assert tcp.stop().intact


def test_macvlan_is_gone_with_its_master(pair: Duo, tool: Tool) -> None:
    """Detach leaves it; destroy takes it away with the master that it sits on."""
    tool.create(pair.host, spec())
    inside = box(pair)
    tool.detach(pair.host)
    assert HOST_V6 in inside.ip("addr show dev eth0")
    tool.destroy(pair.host)
    assert "eth0" not in inside.ip("link show")
