# SPDX-License-Identifier: GPL-2.0-or-later
"""The attach command again: slaves that came back, programs that were taken off."""

import json
from collections.abc import Mapping
from itertools import pairwise

import pytest

from pyfailover.lab import Lab, eventually
from pyfailover.mending import Outcome
from pyfailover.model import Side, TcMode
from pyfailover.report import Health
from tests.support.faults import fail_at, kill_at, labels_of
from tests.support.scenes import Kind, Scene, keep_programs, scene
from tests.support.snapshot import Snapshot, assert_same, take
from tests.support.streams import damage, deliver, exchange
from tests.support.tool import WAYS, Tool, spec
from tests.support.topology import Duo, duo

SAME_INDEX = pytest.mark.parametrize("same_index", [False, True], ids=["new", "same"])
UNHARMED = [(0, 0)] * 4


def settings(pair: Duo, dev: str) -> dict[str, object]:
    """What S0 speaks of: whether it is up, MTU, how link-local addresses are made."""
    link = json.loads(pair.host.ip("-d", "-j", "link", "show", "dev", dev))[0]
    return {
        "up": "UP" in link["flags"],
        "mtu": link["mtu"],
        "addrgenmode": link["inet6_addr_gen_mode"],
    }


def replug(pair: Duo, number: int, *, same_index: bool = False) -> None:
    """Delete a slave and make it anew; its carrier is back, it is down."""
    index = pair.host.ifindex(f"eth{number}")
    pair.unplug(number)
    pair.plug(number, index=index if same_index else None)
    assert (pair.host.ifindex(f"eth{number}") == index) is same_index


def counters(tool: Tool, pair: Duo) -> Mapping[str, int]:
    """What the slot of eth2 has counted."""
    return tool.status(pair.host).slaves[1].counters


@SAME_INDEX
@WAYS
def test_slave_that_came_back_is_taken_in(
    pair: Duo, tool: Tool, tc: TcMode, side: Side, *, same_index: bool
) -> None:
    """A slave deleted and made anew carries traffic after one more attach, the
    streams over the other slave lose nothing in all that, and what the slot had
    counted is there and goes on from there (S12)."""
    wanted = spec(tc=tc, side=side)
    tool.create(pair.host, wanted)
    pair.address()
    with exchange(pair.host, pair.far) as streams:
        tool.switch(pair.host, "eth2")
        deliver(*streams)
        tool.switch(pair.host, "eth1")
        deliver(*streams)
        counted = [counters(tool, pair)]
        replug(pair, 2, same_index=same_index)
        deliver(*streams)
        counted.append(counters(tool, pair))
        assert tool.create(pair.host, wanted) is Outcome.MENDED
        deliver(*streams)
        counted.append(counters(tool, pair))
        assert tool.status(pair.host).active == "eth1"
        assert tool.status(pair.host).health is Health.OK
        tool.switch(pair.host, "eth2")
        deliver(*streams)
        counted.append(counters(tool, pair))
        assert damage(*streams) == UNHARMED
    assert settings(pair, "eth2") == {"up": True, "mtu": 1500, "addrgenmode": "none"}
    assert tool.create(pair.host, wanted) is Outcome.UNCHANGED
    assert counted[0]["tx_packets"] >= 2 * 199
    for earlier, later in pairwise(counted):
        assert all(later[name] >= earlier[name] for name in earlier)
    for name in ("tx_packets", "rx_packets"):
        assert counted[3][name] >= counted[2][name] + 2 * 199


@SAME_INDEX
def test_slave_that_came_back_has_its_own_settings(
    pair: Duo, tool: Tool, tc: TcMode, *, same_index: bool
) -> None:
    """The new device gets the group's settings, and at detach its own back: not
    those of the device that had its name."""
    pair.host.ip("link set eth1 up mtu 1400")
    eventually(lambda: "fe80:" in pair.host.ip("addr show eth1"), what="an address")
    tool.create(pair.host, spec(tc=tc))
    replug(pair, 1, same_index=same_index)
    before = take(tool, pair.host)
    tool.create(pair.host, spec(tc=tc))
    assert settings(pair, "eth1") == {"up": True, "mtu": 1500, "addrgenmode": "none"}
    assert "fe80:" not in pair.host.ip("addr show eth1")
    tool.destroy(pair.host)
    after = take(tool, pair.host)
    for key in ("link eth1", "addresses of eth1"):
        assert after[key] == before[key]


def test_program_that_was_taken_off_is_put_back(
    pair: Duo, tool: Tool, tc: TcMode
) -> None:
    """A pinned link removed, or a clsact qdisc deleted: one more attach mends it."""
    tool.create(pair.host, spec(tc=tc))
    pair.address()
    whole = take(tool, pair.host)
    for dev in ("eth1", "eth2", "fo0"):
        if tc is TcMode.TCX:
            (pin,) = tool.pins(pair.host).glob(f"links/{pair.host.ifindex(dev)}-*")
            pin.unlink()
        else:
            pair.host.run("tc", "qdisc", "del", "dev", dev, "clsact")
        expected = Health.DEGRADED if dev == "eth2" else Health.DOWN
        assert tool.status(pair.host).health is expected
        assert tool.create(pair.host, spec(tc=tc)) is Outcome.MENDED
        assert tool.status(pair.host).health is Health.OK
        now = take(tool, pair.host)
        assert now.keys() == whole.keys()
        assert now[f"link {dev}"] == whole[f"link {dev}"]
    with exchange(pair.host, pair.far) as streams:
        tool.switch(pair.host, "eth2")
        deliver(*streams)
        assert damage(*streams) == UNHARMED
    assert tool.create(pair.host, spec(tc=tc)) is Outcome.UNCHANGED


def test_slave_set_down_by_the_operator_stays_down(
    pair: Duo, tool: Tool, tc: TcMode
) -> None:
    """Neither one more attach nor a mended program sets it up again (S0)."""
    tool.create(pair.host, spec(tc=tc))
    pair.host.ip("link set eth2 down")
    assert tool.create(pair.host, spec(tc=tc)) is Outcome.UNCHANGED
    assert not settings(pair, "eth2")["up"]
    replug(pair, 1)
    assert tool.create(pair.host, spec(tc=tc)) is Outcome.MENDED
    assert not settings(pair, "eth2")["up"]


def test_what_is_back_is_mended_while_a_slave_is_missing(
    lab: Lab, tool: Tool, caplog: pytest.LogCaptureFixture
) -> None:
    """A slave that is still away is named and does not keep another one waiting."""
    trio = duo(lab, slaves=3)
    wanted = spec(standbys=("eth2", "eth3"))
    tool.create(trio.host, wanted)
    trio.unplug(2)
    replug(trio, 3)
    assert tool.create(trio.host, wanted) is Outcome.MENDED
    assert "slave 'eth2' of 'fo0' is still missing" in caplog.text
    assert [s.link for s in tool.status(trio.host).slaves] == ["up", "unplugged", "up"]
    assert tool.create(trio.host, wanted) is Outcome.UNCHANGED
    trio.plug(2)
    assert tool.create(trio.host, wanted) is Outcome.MENDED
    assert tool.status(trio.host).health is Health.OK


def test_slave_that_is_gone_is_in_no_map(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """After one more attach nothing in the maps speaks of a slave that was deleted."""
    tool.create(pair.host, spec(tc=tc))
    master, slave = pair.host.ifindex("fo0"), pair.host.ifindex("eth1")
    pair.unplug(2)
    assert tool.create(pair.host, spec(tc=tc)) is Outcome.MENDED
    with tool.locked(pair.host) as locked:
        programs = locked.host.loaded
        assert programs.slaves(0) == {0: slave}
        assert sorted(programs.ports()) == sorted([master, slave])


def replugged(stage: Scene) -> Snapshot:
    """Attach, and make eth2 anew; what should be there after a detach."""
    idle = lasting(stage)
    stage.attach()
    replug(stage.pair, 2)
    fresh = {k: v for k, v in lasting(stage).items() if "eth2" in k}
    return {k: v for k, v in idle.items() if "eth2" not in k} | fresh


def lasting(stage: Scene) -> Snapshot:
    """What there is, but for routes: those of the former eth2 went with it."""
    return {k: v for k, v in stage.now().items() if not k.startswith("routes ")}


VISIBLE = ("link ", "addresses ", "routes ", "qdisc ", "filters ", "tcx ")


def visible(found: Snapshot) -> Snapshot:
    """What there is but for our own books, in which the dead slave may go."""
    return {k: v for k, v in found.items() if k.startswith(VISIBLE)}


def test_mend_that_fails_anywhere_changes_nothing(lab: Lab, tool: Tool) -> None:
    """An exception at any of its steps leaves interfaces as they were, and after
    it one more attach mends all the same."""
    stage = scene(lab, tool, Kind.CREATE, TcMode.CLSACT)
    keep_programs(stage.pair, tool, TcMode.CLSACT)
    stage.attach()
    replug(stage.pair, 2)
    labels = labels_of(stage.attach)
    assert len(labels) > 8
    for position, label in enumerate(labels[:-1]):
        replug(stage.pair, 2)
        before = visible(stage.now())
        where = f"failed at {position}, '{label}'"
        fail_at(position, stage.attach)
        assert_same(before, lambda: visible(stage.now()), where=where)
        stage.attach()
        assert tool.status(stage.pair.host).health is Health.OK, where


def test_mend_killed_anywhere(lab: Lab, tool: Tool, tc: TcMode) -> None:
    """Killed at any of its steps: a later attach mends, a later detach restores."""
    stage = scene(lab, tool, Kind.CREATE, tc)
    keep_programs(stage.pair, tool, tc)
    expected = replugged(stage)
    labels = labels_of(stage.attach)
    for position, label in enumerate(labels):
        stage.detach()
        expected = replugged(stage)
        where = f"killed at {position}, '{label}'"
        kill_at(position, stage.attach)
        if position % 2:
            stage.attach()
            assert tool.status(stage.pair.host).health is Health.OK, where
        stage.detach()
        assert_same(expected, lambda: lasting(stage), where=where)
