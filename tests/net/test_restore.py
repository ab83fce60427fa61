# SPDX-License-Identifier: GPL-2.0-or-later
"""Slaves are set up when they join and get their own settings back (S0, S6, S7)."""

import json
from typing import Any

import pytest

from pyfailover.errors import PyFailoverError
from pyfailover.lab import Lab, eventually
from pyfailover.model import MacPolicy, Side, TcMode
from tests.support.capture import ethernet, received, send
from tests.support.scenes import SCENES, Kind, keep_programs, scene
from tests.support.snapshot import assert_same, take
from tests.support.tool import Tool, spec
from tests.support.topology import MAC, Duo, guest


def link(pair: Duo, dev: str) -> dict[str, Any]:
    """A device in the words of `ip -d -j link`."""
    found: list[dict[str, Any]] = json.loads(
        pair.host.ip("-d", "-j", "link", "show", "dev", dev)
    )
    return found[0]


@pytest.mark.parametrize(("kind", "tc"), SCENES)
def test_settings_are_made_and_restored(
    lab: Lab, tool: Tool, tc: TcMode, kind: Kind
) -> None:
    """Attached, each slave is up with the master's MTU and no link-local address;
    detached, everything is as it was."""
    stage = scene(lab, tool, kind, tc)
    before = stage.now()
    stage.attach()
    mtu = link(stage.pair, stage.wanted.name)["mtu"]
    for slave in ("eth1", "eth2"):
        now = link(stage.pair, slave)
        assert "UP" in now["flags"]
        assert now["mtu"] == mtu
        assert now["inet6_addr_gen_mode"] == "none"
        assert ("PROMISC" in now["flags"]) == (kind is Kind.WIRE)
        assert "fe80:" not in stage.pair.host.ip(f"addr show dev {slave}")
    stage.detach()
    stage.assert_as(before, "detached")


def test_mac_address_is_cloned_and_restored(pair: Duo, tool: Tool) -> None:
    """--mac clone gives slaves the master's address until detach; match none."""
    pair.host.ip("link set eth1 address 02:00:5e:10:00:99")
    pair.lab.veth(pair.host, "m0", pair.far, "m0-far", mac_a="02:00:5e:10:00:55")
    before = take(tool, pair.host)
    tool.attach(pair.host, spec("m0", mac=MacPolicy.CLONE))
    assert [pair.host.mac(d) for d in ("m0", "eth1", "eth2")] == [
        "02:00:5e:10:00:55"
    ] * 3
    tool.detach(pair.host, "m0")
    assert_same(before, lambda: take(tool, pair.host), where="detached")


def test_created_master_is_like_its_first_standby(pair: Duo, tool: Tool) -> None:
    """A master of ours has its first standby's MAC address and MTU, the primary
    gets the MTU too, and its lower end says nothing of its own."""
    pair.host.batch("link set eth1 mtu 1400", "link set eth2 mtu 1300")
    tool.create(pair.host, spec())
    assert pair.host.mac("fo0") == MAC
    assert [link(pair, dev)["mtu"] for dev in ("fo0", "fo0-low", "eth1")] == [1300] * 3
    low = link(pair, "fo0-low")
    assert {"UP", "NOARP"} <= set(low["flags"])
    assert low["inet6_addr_gen_mode"] == "none"
    assert link(pair, "fo0")["num_tx_queues"] == low["num_rx_queues"]


def test_settings_are_restored_one_by_one(pair: Duo, tool: Tool) -> None:
    """A setting that was as wanted before is left as the operator has it at detach."""
    pair.host.ip("link set eth1 up")
    tool.create(pair.host, spec())
    pair.host.batch("link set eth1 down", "link set eth2 txqueuelen 97")
    tool.destroy(pair.host)
    assert "UP" not in link(pair, "eth1")["flags"]
    assert "UP" not in link(pair, "eth2")["flags"]
    assert link(pair, "eth2")["txqlen"] == 97


def test_promiscuity_of_others_stays(pair: Duo, tool: Tool) -> None:
    """Behind a foreign wire master slaves take every address while attached; the
    one that the operator set promiscuous stays so."""
    behind = guest(pair)
    pair.host.ip("link set eth1 promisc on")
    tool.attach(pair.host, spec("tap0", side=Side.WIRE))
    frame = ethernet("02:00:00:00:00:97", pair.far.mac("br0"), 0x88B5)
    seen = received(behind, "eth0")
    send(pair.far, "p1", frame)
    eventually(lambda: received(behind, "eth0") > seen, what="a frame for the guest")
    for slave in ("eth1", "eth2"):
        assert "PROMISC" in link(pair, slave)["flags"]
    tool.detach(pair.host, "tap0")
    assert "PROMISC" in link(pair, "eth1")["flags"]
    assert "PROMISC" not in link(pair, "eth2")["flags"]


@pytest.fixture
def small(pair: Duo) -> str:
    """A device that refuses an MTU above 1500: a macvlan knows its lower device's."""
    pair.lab.veth(pair.host, "base7", pair.far, "base7-far")
    pair.host.batch(
        f"link add link base7 name small7 address {MAC} type macvlan mode bridge",
        "link set eth1 mtu 2000",
        "link set eth2 mtu 2000",
    )
    return "small7"


def test_mtu_that_a_slave_refuses(
    pair: Duo, tool: Tool, tc: TcMode, small: str
) -> None:
    """A slave that cannot have the master's MTU: all get theirs back, and the error
    names it."""
    keep_programs(pair, tool, tc)
    pair.host.ip("link set eth2 mtu 1400")
    pair.lab.veth(pair.host, "m0", pair.far, "m0-far", mac_a=MAC, mtu=2000)
    for wanted in (
        spec("m0", standbys=("eth2", small), tc=tc),
        spec("m0", small, ("eth1", "eth2"), tc=tc),
    ):
        before = take(tool, pair.host)
        with pytest.raises(PyFailoverError, match="mtu 2000") as caught:
            tool.attach(pair.host, wanted)
        assert_same(before, lambda: take(tool, pair.host), where="refused")
        assert f"'{small}'" in caught.value.message


def test_master_made_for_an_mtu_that_a_slave_refuses(
    pair: Duo, tool: Tool, small: str
) -> None:
    """A master of ours is gone again when a slave refuses its MTU."""
    before = take(tool, pair.host)
    wanted = spec(primary=small, standbys=("eth1",))
    with pytest.raises(PyFailoverError, match="mtu 2000"):
        tool.create(pair.host, wanted)
    assert_same(before, lambda: take(tool, pair.host), where="refused")
