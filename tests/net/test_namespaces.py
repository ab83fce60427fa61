# SPDX-License-Identifier: GPL-2.0-or-later
"""Namespaces whose interfaces have equal indexes know nothing of each other."""

from dataclasses import dataclass

import pytest

from pyfailover.lab import Lab, Namespace
from pyfailover.model import TcMode
from pyfailover.report import Health
from tests.support.capture import EXPERIMENTAL, capture, ethernet, received, send
from tests.support.snapshot import assert_same, take
from tests.support.streams import damage, deliver, exchange
from tests.support.tool import Tool, spec
from tests.support.topology import FAR_V4, FAR_V6, HOST_V4, HOST_V6, MAC

FIRST = 101


@dataclass(frozen=True)
class Site:
    """A host with its far end, complete in itself."""

    host: Namespace
    far: Namespace


def site(lab: Lab) -> Site:
    """A host whose fo0, eth1, eth2 have the indexes 100, 101, 102 in every site.

    host                      far
    fo0 . eth1 ------------ p1 \\
        . eth2 ------------ p2 - br0
    """
    host, far = lab.namespace("host"), lab.namespace("far")
    lab.bridge(far, "br0")
    lab.veth(host, "fo0", far, "fo0-far", mac_a=MAC, index_a=FIRST - 1)
    for number in (1, 2):
        lab.veth(
            host,
            f"eth{number}",
            far,
            f"p{number}",
            mac_a=MAC,
            index_a=FIRST + number - 1,
            up=False,
        )
        far.ip(f"link set p{number} master br0 up")
    lab.address(far, "br0", f"{FAR_V4}/24", f"{FAR_V6}/64")
    lab.address(host, "fo0", f"{HOST_V4}/24", f"{HOST_V6}/64")
    return Site(host, far)


@pytest.fixture
def sites(lab: Lab) -> tuple[Site, Site]:
    """Two of them."""
    one, two = site(lab), site(lab)
    for dev in ("fo0", "eth1", "eth2"):
        assert one.host.ifindex(dev) == two.host.ifindex(dev)
    return one, two


def carried(tool: Tool, ns: Namespace) -> int:
    """Packets of a group up to now, both ways and by all slaves."""
    counters = [slave.counters for slave in tool.status(ns).slaves]
    return sum(c["tx_packets"] + c["rx_packets"] for c in counters)


def test_equal_indexes_do_not_meet(
    sites: tuple[Site, Site], tool: Tool, tc: TcMode
) -> None:
    """Groups over equal indexes: traffic, active slave and counters are separate,
    and the detach of one costs the other nothing."""
    one, two = sites
    idle = take(tool, two.host)
    for each in sites:
        tool.attach(each.host, spec(tc=tc))
    assert tool.pins(one.host) != tool.pins(two.host)
    before = carried(tool, two.host)
    with exchange(one.host, one.far) as streams:
        tool.switch(one.host, "eth2")
        deliver(*streams)
        # Not a packet of the streams; a report of multicast groups may be late.
        assert carried(tool, two.host) - before < 20
        assert tool.status(two.host).active == "eth1"
        assert received(two.far, "p2") == 0
        with exchange(two.host, two.far) as others:
            deliver(*others)
            assert damage(*others) == [(0, 0)] * 4
        tool.detach(two.host)
        deliver(*streams)
        assert damage(*streams) == [(0, 0)] * 4
    assert tool.status(one.host).health is Health.OK
    kinds = ("tcx ", "qdisc ", "filters ", "link ")
    assert_same(
        {key: idle[key] for key in idle if key.startswith(kinds)},
        lambda: {k: v for k, v in take(tool, two.host).items() if k.startswith(kinds)},
        where="detached",
    )
    frame = ethernet(MAC, two.far.mac("br0"), EXPERIMENTAL)
    last = ethernet(MAC, two.far.mac("br0"), EXPERIMENTAL + 1)
    two.host.ip("link set eth1 up")
    with (
        capture(two.host, "fo0", EXPERIMENTAL) as master,
        capture(two.host, "eth1", EXPERIMENTAL) as slave,
    ):
        send(two.far, "p1", frame, last)
        slave.wait_for(frame)
        assert master.frames() == []


def test_detach_of_one_leaves_the_other_whole(
    sites: tuple[Site, Site], tool: Tool, tc: TcMode
) -> None:
    """Not even `detach --force` in one namespace touches what is in another."""
    one, two = sites
    idle = take(tool, one.host)
    for each in sites:
        tool.attach(each.host, spec(tc=tc))
    whole = take(tool, two.host)
    tool.command(one.host, "detach", "fo0", "--force")
    now = take(tool, two.host)
    for key in whole.keys() - {"pins", "records"}:
        assert now[key] == whole[key]
    only = [p for p in whole["pins"] if str(tool.pins(two.host)) in p]  # type: ignore[attr-defined]
    assert [p for p in now["pins"] if str(tool.pins(two.host)) in p] == only  # type: ignore[attr-defined]
    assert not tool.pins(one.host).exists()
    tool.detach(two.host)
    assert_same(idle, lambda: take(tool, one.host), where="both detached")
