# SPDX-License-Identifier: GPL-2.0-or-later
"""Traffic without a controller, and controllers that follow each other (C14, S15);
what somebody else removes while one runs is put back."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyfailover.datapath import libbpf
from pyfailover.history import Kind
from pyfailover.lab import Namespace
from pyfailover.model import Policy, Side, TcMode
from pyfailover.report import Health
from pyfailover.transaction import open_programs
from tests.support.daemon import USER, Run, controller, under_traffic
from tests.support.streams import damage
from tests.support.tool import WAYS, Tool, spec
from tests.support.topology import Duo

UNHARMED = [(0, 0)] * 4
RATE = 5_000  # of each of four streams
# A far end that is told of a carrier takes a moment to forward (see Duo.settle).
UP_DELAY_MS = 200


# --- one after the other ------------------------------------------------------


@WAYS
def test_killed_at_20000_packets_a_second(
    pair: Duo, tool: Tool, tc: TcMode, side: Side
) -> None:
    """Neither the death of a controller nor the start of the next one costs a packet,
    or moves the traffic from where it is (C14)."""
    wanted = spec(tc=tc, side=side, policy=Policy.FAILURE)
    tool.create(pair.host, wanted)
    tool.switch(pair.host, "eth2")
    tool.command(pair.host, "switch", "fo0", "auto")
    with under_traffic(pair, tool, wanted, rate=RATE) as run:
        run.carries("eth2")
        generation = tool.status(pair.host).generation
        run.daemon.kill()
        run.flow(more=RATE // 2)
        with controller(tool, pair.host, reconcile=0.2) as second:
            run.flow(more=RATE // 2)
            run.wait(lambda: second.status()["counts"]["resyncs"] > 2, "resyncs")
            status = tool.status(pair.host)
            assert (status.active, status.generation) == ("eth2", generation)
            assert second.switches() == [("eth1", "eth2", "operator")]
            assert damage(*run.streams) == UNHARMED


@WAYS
def test_stopped(pair: Duo, tool: Tool, tc: TcMode, side: Side) -> None:
    """SIGTERM ends a controller with exit code 0 and leaves the traffic running."""
    with under_traffic(pair, tool, spec(tc=tc, side=side), rate=RATE) as run:
        run.flow()
        assert run.daemon.stop() == 0
        assert run.daemon.log().splitlines()[-1].endswith("info stopped groups=1")
        run.flow(more=RATE // 2)
        assert damage(*run.streams) == UNHARMED
    said = tool.command(pair.host, "status")
    assert "warning: no controller: nothing will be brought back" in said.stderr


def test_primary_lost_while_no_controller_runs(pair: Duo, tool: Tool) -> None:
    """The next controller moves the traffic before it says that it is ready."""
    with under_traffic(pair, tool, spec()) as run:
        run.daemon.kill()
        pair.cut(1)
        with controller(tool, pair.host) as second:
            assert tool.status(pair.host).active == "eth2"
            run.flow()
            assert second.switches() == [("eth1", "eth2", "carrier_lost")]


@pytest.mark.parametrize("same_index", [False, True], ids=["new", "same"])
def test_slave_made_again_while_no_controller_runs(
    pair: Duo, tool: Tool, tc: TcMode, *, same_index: bool
) -> None:
    """The next controller has it join, whatever its ifindex, and the traffic over the
    other slave loses nothing."""
    wanted = spec(tc=tc, policy=Policy.FAILURE)
    with under_traffic(pair, tool, wanted) as run:
        run.command("switch", "fo0", "eth2")
        run.carries("eth2")
        run.daemon.kill()
        old = pair.host.ifindex("eth1")
        pair.unplug(1)
        pair.plug(1, index=old if same_index else None)
        assert (pair.host.ifindex("eth1") == old) is same_index
        with controller(tool, pair.host):
            run.wait(lambda: tool.status(pair.host).health is Health.OK, "health")
            pair.settle()
            run.command("switch", "fo0", "eth1")
            run.carries("eth1")
            assert damage(*run.streams) == UNHARMED


def test_second_controller_is_refused(pair: Duo, tool: Tool) -> None:
    """It ends at once, with exit code 1 and the process of the first; one of another
    namespace is none of its business."""
    with controller(tool, pair.host) as first:
        done = tool.process(pair.host, "run", f"--user={USER}", code=1)
        assert f"a controller runs here already: process {first.pid}" in done.stderr
        assert first.running
        with controller(tool, pair.far) as other:
            assert other.status()["pid"] == other.pid
        assert first.status()["pid"] == first.pid


# --- what somebody else does --------------------------------------------------


@dataclass(frozen=True)
class Damage:
    """What somebody does to a group, and how its repair is told."""

    do: Callable[[Tool, Namespace], object]
    told: str


def pin_of(tool: Tool, ns: Namespace, dev: str) -> Path:
    """The pinned tcx link of an interface."""
    (pin,) = tool.pins(ns).glob(f"links/{ns.ifindex(dev)}-*")
    return pin


def detach_link(tool: Tool, ns: Namespace) -> None:
    """Detach a tcx link and leave its pin."""
    with libbpf.opened(pin_of(tool, ns, "eth1")) as link:
        libbpf.link_detach(link)


def empty_slots(tool: Tool, ns: Namespace) -> None:
    """Overwrite what the maps know of a group's slaves."""
    with tool.locked(ns) as locked:
        for slot in (0, 1):
            locked.host.loaded.unseat(0, slot)


def drop_port(tool: Tool, ns: Namespace) -> None:
    """Drop what the maps know of an interface."""
    with tool.locked(ns) as locked:
        locked.host.loaded.drop_port(ns.ifindex("eth1"))


IN_MAPS = [Damage(empty_slots, "slot 0 in the maps"), Damage(drop_port, "slot 0")]
BY_TCX = [
    Damage(lambda tool, ns: pin_of(tool, ns, "eth1").unlink(), "fo_stack_rx on ing"),
    Damage(lambda tool, ns: pin_of(tool, ns, "fo0").unlink(), "fo_stack_tx on egr"),
    Damage(detach_link, "fo_stack_rx on ing"),
]
BY_CLSACT = [
    Damage(
        lambda _, ns: ns.run("tc", "filter", "del", "dev", "eth1", "ingress"),
        "fo_stack_rx on ing",
    ),
    Damage(
        lambda _, ns: ns.run("tc", "qdisc", "del", "dev", "eth1", "clsact"),
        "fo_stack_rx on ing",
    ),
    Damage(
        lambda _, ns: ns.run("tc", "qdisc", "del", "dev", "fo0", "clsact"),
        "fo_stack_tx on egr",
    ),
]


def test_what_was_removed_is_put_back(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """Programs taken off their hooks and entries of maps that say something else are
    put right within the reconcile interval; traffic flows again, and each repair is
    counted and told."""
    damages = (BY_TCX if tc is TcMode.TCX else BY_CLSACT) + IN_MAPS
    with under_traffic(pair, tool, spec(tc=tc), reconcile=0.2) as run:
        for each in damages:
            before = repairs(run)
            each.do(tool, pair.host)
            mended(run, before, each.told)
            run.carries("eth1")
        assert run.daemon.status()["troubles"] == {}
        assert " repair " in run.daemon.log()


def mended(run: Run, before: int, told: str) -> None:
    """Wait for a repair, and see that it is told."""
    run.wait(lambda: repairs(run) > before, told)
    assert run.tool.status(run.pair.host).health is Health.OK
    run.wait(
        lambda: len(run.daemon.events(Kind.REPAIR)) == repairs(run),
        "events of all repairs",
    )
    events = run.daemon.events(Kind.REPAIR)
    assert any(told in event.detail for event in events[before:])


def repairs(run: Run) -> int:
    """How many the controller has counted."""
    return int(run.daemon.status()["counts"]["repairs"])


def test_all_pins_removed(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """With all that is pinned gone the group is attached anew, and traffic flows."""
    with under_traffic(pair, tool, spec(tc=tc), reconcile=0.2) as run:
        for pin in sorted(tool.pins(pair.host).rglob("*"), reverse=True):
            pin.rmdir() if pin.is_dir() else pin.unlink()
        tool.pins(pair.host).rmdir()
        run.wait(lambda: repairs(run) > 0, "a repair")
        run.carries("eth1")
        assert tool.status(pair.host).health is Health.OK
        with pair.host.enter():
            programs = open_programs(tool.pins(pair.host))
        assert programs is not None
        programs.close()
