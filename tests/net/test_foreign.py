# SPDX-License-Identifier: GPL-2.0-or-later
"""What is not ours is neither touched nor bypassed unasked (C16, S13)."""

import pytest

from pyfailover.datapath import libbpf
from pyfailover.errors import RefusedError
from pyfailover.lab import eventually
from pyfailover.model import Side, TcMode
from tests.support.capture import EXPERIMENTAL, capture, ethernet, received, send
from tests.support.foreign import (
    clsact,
    filter_dropping,
    filters,
    tcx_dropper,
    xdp_passer,
)
from tests.support.snapshot import Snapshot, assert_same, take
from tests.support.tool import Tool, spec
from tests.support.topology import MAC, Duo, guest

UNWANTED, WANTED = EXPERIMENTAL, EXPERIMENTAL + 1


def arriving(pair: Duo) -> tuple[int, int]:
    """How many of an unwanted and a wanted frame from the far end reach fo0."""
    unwanted, wanted = (
        ethernet(MAC, pair.far.mac("br0"), proto) for proto in (UNWANTED, WANTED)
    )
    with (
        capture(pair.host, "fo0", UNWANTED) as drops,
        capture(pair.host, "fo0", WANTED) as passes,
    ):
        send(pair.far, "p1", *[unwanted] * 23, *[wanted] * 23)
        eventually(lambda: passes.count(wanted) == 23, what="wanted frames")
        return drops.count(unwanted), passes.count(wanted)


def leaving(pair: Duo, dev: str = "fo0") -> tuple[int, int]:
    """How many of an unwanted and a wanted frame sent on the master leave by eth1."""
    unwanted, wanted = (
        ethernet(pair.far.mac("br0"), MAC, proto) for proto in (UNWANTED, WANTED)
    )
    with capture(pair.far, "p1") as seen:
        send(pair.host, dev, *[unwanted] * 23, *[wanted] * 23)
        eventually(lambda: seen.count(wanted) == 23, what="wanted frames")
        return seen.count(unwanted), seen.count(wanted)


def foreign(found: Snapshot) -> Snapshot:
    """Qdiscs and filters in a snapshot."""
    return {k: v for k, v in found.items() if k.startswith(("qdisc ", "filters "))}


# --- clsact filters ---------------------------------------------------------


def test_filter_that_would_be_bypassed(pair: Duo, tool: Tool) -> None:
    """A clsact filter on a slave that tcx runs ahead of is refused by name;
    --bypass-filters accepts it, and it survives attach and detach."""
    clsact(pair.host, "eth1")
    filter_dropping(pair.host, "eth1", "ingress", UNWANTED)
    before = take(tool, pair.host)
    asked = ("create", "fo0", "--primary=eth1", "--standby=eth2", "--tc=tcx")
    done = tool.process(pair.host, *asked, code=1)
    assert "'eth1' as a slave: bpf filter (pref 49152) on ingress" in done.stderr
    assert "hint: --bypass-filters accepts that; --tc clsact" in done.stderr
    assert_same(before, lambda: take(tool, pair.host), where="refused")
    tool.command(pair.host, *asked, "--bypass-filters")
    assert arriving(pair) == (23, 23)
    assert foreign(take(tool, pair.host)) == foreign(before)
    tool.destroy(pair.host)
    assert_same(before, lambda: take(tool, pair.host), where="destroyed")


def test_clsact_attaches_behind_a_filter(pair: Duo, tool: Tool) -> None:
    """--tc clsact attaches behind a filter of somebody else's, which still drops
    what it did, while attached and after."""
    clsact(pair.host, "eth1")
    filter_dropping(pair.host, "eth1", "ingress", UNWANTED)
    before = take(tool, pair.host)
    tool.create(pair.host, spec(tc=TcMode.CLSACT))
    assert arriving(pair) == (0, 23)
    shown = filters(pair.host, "eth1", "ingress")
    assert shown.index("bytecode") < shown.index("fo_stack_rx")
    tool.destroy(pair.host)
    assert_same(before, lambda: take(tool, pair.host), where="destroyed")
    pair.host.ip("link set eth1 up")
    unwanted, last = (ethernet(MAC, MAC, proto) for proto in (UNWANTED, WANTED))
    with (
        capture(pair.host, "eth1", UNWANTED) as drops,
        capture(pair.host, "eth1", WANTED) as passes,
    ):
        send(pair.far, "p1", unwanted, last)
        passes.wait_for(last)
        assert drops.frames() == []


def test_filter_behind_ours_is_bypassed_by_clsact_too(pair: Duo, tool: Tool) -> None:
    """A filter of a later preference than ours is refused for clsact as well."""
    clsact(pair.host, "eth2")
    filter_dropping(pair.host, "eth2", "ingress", UNWANTED, "pref", "65281")
    before = take(tool, pair.host)
    with pytest.raises(RefusedError, match=r"'eth2'.*\(pref 65281\) on ingress"):
        tool.create(pair.host, spec(tc=TcMode.CLSACT))
    assert_same(before, lambda: take(tool, pair.host), where="refused")
    tool.create(pair.host, spec(tc=TcMode.CLSACT, bypass_filters=True))
    tool.destroy(pair.host)
    assert_same(before, lambda: take(tool, pair.host), where="destroyed")


def test_our_place_is_taken(pair: Duo, tool: Tool) -> None:
    """A filter at our very preference and handle is refused, never replaced."""
    clsact(pair.host, "eth2")
    filter_dropping(
        pair.host, "eth2", "ingress", UNWANTED, "pref", "65280", "handle", "0xf0"
    )
    before = take(tool, pair.host)
    with pytest.raises(RefusedError, match="preference 0xff00 is taken"):
        tool.create(pair.host, spec(tc=TcMode.CLSACT))
    assert_same(before, lambda: take(tool, pair.host), where="refused")


def test_filter_on_a_master(pair: Duo, tool: Tool) -> None:
    """A filter on the egress of a stack master is treated like one on a slave."""
    pair.lab.veth(pair.host, "m0", pair.far, "m0-far", mac_a=MAC)
    clsact(pair.host, "m0")
    filter_dropping(pair.host, "m0", "egress", UNWANTED)
    before = take(tool, pair.host)
    with pytest.raises(
        RefusedError, match=r"'m0' as a master: bpf filter .* on egress"
    ):
        tool.attach(pair.host, spec("m0", tc=TcMode.TCX))
    assert_same(before, lambda: take(tool, pair.host), where="refused")
    tool.attach(pair.host, spec("m0", tc=TcMode.TCX, bypass_filters=True))
    assert leaving(pair, "m0") == (23, 23)
    tool.detach(pair.host, "m0")
    tool.attach(pair.host, spec("m0", tc=TcMode.CLSACT))
    assert leaving(pair, "m0") == (0, 23)
    tool.detach(pair.host, "m0")
    assert_same(before, lambda: take(tool, pair.host), where="detached")


def test_filter_on_the_other_hook(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """A filter on a hook that we do not use is no obstacle, and goes on working."""
    clsact(pair.host, "eth1")
    filter_dropping(pair.host, "eth1", "egress", UNWANTED)
    before = take(tool, pair.host)
    tool.create(pair.host, spec(tc=tc))
    assert leaving(pair) == (0, 23)
    tool.destroy(pair.host)
    assert_same(before, lambda: take(tool, pair.host), where="destroyed")


# --- tcx and XDP programs ---------------------------------------------------


def test_foreign_tcx_program(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """A tcx program that was there before runs before ours, drops what it did, and
    is there after detach; one that came later is as well."""
    slave = pair.host.ifindex("eth1")

    def programs() -> list[int]:
        with pair.host.enter():
            return libbpf.tcx_progs(slave, libbpf.TCX_INGRESS)

    with tcx_dropper(pair.host, "eth1", libbpf.TCX_INGRESS, UNWANTED) as first:
        before = take(tool, pair.host)
        tool.create(pair.host, spec(tc=tc))
        assert programs()[0] == first
        assert arriving(pair) == (0, 23)
        with tcx_dropper(pair.host, "eth1", libbpf.TCX_INGRESS, WANTED) as last:
            assert programs()[-1] == last
            tool.destroy(pair.host)
            assert programs() == [first, last]
        assert_same(before, lambda: take(tool, pair.host), where="destroyed")


def test_foreign_xdp_program(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """An XDP program on a slave is refused by name; --bypass-filters accepts it, and
    it stays."""
    with xdp_passer(pair.host, "eth2") as number:
        before = take(tool, pair.host)
        said = rf"'eth2' as a slave: XDP program 'stranger_xdp' \(id {number}\)"
        with pytest.raises(RefusedError, match=said) as caught:
            tool.create(pair.host, spec(tc=tc))
        assert "ip link set dev eth2 xdp off" in str(caught.value.hint)
        assert_same(before, lambda: take(tool, pair.host), where="refused")
        tool.create(pair.host, spec(tc=tc, bypass_filters=True))
        assert f'"id":{number}' in pair.host.ip("-d -j link show dev eth2")
        tool.destroy(pair.host)
        assert_same(before, lambda: take(tool, pair.host), where="destroyed")


def test_foreign_xdp_program_on_a_wire_master(pair: Duo, tool: Tool) -> None:
    """On a wire master XDP takes frames before us too: refused likewise."""
    guest(pair)
    with (
        xdp_passer(pair.host, "tap0"),
        pytest.raises(RefusedError, match="'tap0' as a master: XDP program"),
    ):
        tool.attach(pair.host, spec("tap0", side=Side.WIRE))


# --- qdiscs -----------------------------------------------------------------


def test_root_qdisc_of_a_master(pair: Duo, tool: Tool) -> None:
    """A root qdisc that a stack master's frames would no longer pass is refused by
    name, accepted with --bypass-filters, and stays."""
    pair.lab.veth(pair.host, "m0", pair.far, "m0-far", mac_a=MAC)
    pair.host.run("tc", "qdisc", "add", "dev", "m0", "root", "pfifo", "limit", "97")
    before = take(tool, pair.host)
    with pytest.raises(RefusedError, match="'m0' as a master: its pfifo qdisc"):
        tool.attach(pair.host, spec("m0"))
    assert_same(before, lambda: take(tool, pair.host), where="refused")
    tool.attach(pair.host, spec("m0", bypass_filters=True))
    tool.detach(pair.host, "m0")
    assert_same(before, lambda: take(tool, pair.host), where="detached")


def test_root_qdisc_of_a_slave(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """A slave's root qdisc is passed by the traffic, and stays."""
    tbf = "tbf rate 8mbit burst 1600 limit 1"  # a queue too small for any frame
    pair.host.run("tc", "qdisc", "add", "dev", "eth1", "root", *tbf.split())
    before = take(tool, pair.host)
    tool.create(pair.host, spec(tc=tc))
    frame = ethernet(pair.far.mac("br0"), MAC, WANTED).ljust(1500, b"\0")
    send(pair.host, "fo0", *[frame] * 97)
    shown = pair.host.run("tc", "-s", "qdisc", "show", "dev", "eth1", "root").stdout
    sent = received(pair.far, "p1")
    assert "dropped 0" not in shown
    assert sent < 97
    tool.destroy(pair.host)
    assert_same(before, lambda: take(tool, pair.host), where="destroyed")


@pytest.mark.parametrize(
    ("tc", "kind"), [(TcMode.TCX, "clsact"), (TcMode.CLSACT, "ingress")]
)
def test_existing_qdisc_is_used(pair: Duo, tool: Tool, tc: TcMode, kind: str) -> None:
    """An ingress or clsact qdisc that was there is used, and stays, empty or not."""
    clsact(pair.host, "eth1", kind)
    clsact(pair.host, "eth2", kind)
    filter_dropping(pair.host, "eth2", "ingress", UNWANTED)
    before = take(tool, pair.host)
    tool.create(pair.host, spec(tc=tc, bypass_filters=True))
    assert arriving(pair) == (23, 23)
    tool.destroy(pair.host)
    assert_same(before, lambda: take(tool, pair.host), where="destroyed")


def test_ingress_qdisc_of_a_stack_master(pair: Duo, tool: Tool) -> None:
    """It leaves no room for a filter on egress: refused, with the way out."""
    pair.lab.veth(pair.host, "m0", pair.far, "m0-far", mac_a=MAC)
    clsact(pair.host, "m0", "ingress")
    before = take(tool, pair.host)
    with pytest.raises(RefusedError, match=r"'m0' .* ingress qdisc") as caught:
        tool.attach(pair.host, spec("m0", tc=TcMode.CLSACT))
    assert_same(before, lambda: take(tool, pair.host), where="refused")
    pair.host.run(*str(caught.value.hint).partition(": ")[2].split())
    tool.attach(pair.host, spec("m0", tc=TcMode.CLSACT))
    assert leaving(pair, "m0") == (23, 23)


def test_our_qdisc_stays_with_a_filter_on_it(pair: Duo, tool: Tool) -> None:
    """A clsact qdisc of ours on which somebody put a filter meanwhile stays with
    it; an empty one is removed."""
    idle = take(tool, pair.host)
    tool.create(pair.host, spec(tc=TcMode.CLSACT))
    filter_dropping(pair.host, "eth1", "egress", UNWANTED, "pref", "97")
    tool.destroy(pair.host)
    now = take(tool, pair.host)
    assert "bytecode" in str(now.pop("filters of eth1 egress"))
    assert now.pop("filters of eth1 ingress") == ""
    assert now.pop("qdisc clsact of eth1")
    assert_same(idle, lambda: now, where="but for eth1's")
