# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of interfaces: user space puts a port where the programs look."""

from collections.abc import Iterator
from itertools import count, islice

import pytest

from pyfailover.datapath import abi
from pyfailover.datapath.abi import RxRule
from pyfailover.errors import StateError
from pyfailover.model import MAX_SLAVES, Word
from tests.support import frames
from tests.support.progrun import GROUP, MAX_GROUPS, OURS, Bench, Device, Verdict

BITS = abi.port_bits(MAX_GROUPS)
LAST = (1 << BITS) - 1
OUT = frames.udp4(frames.PEER, src=OURS)


def placed_at(place: int, start: int = 100_000) -> Iterator[int]:
    """ifindexes whose first place is this one."""
    return (i for i in count(start) if abi.port_places(i, BITS)[0] == place)


@pytest.fixture
def newcomer(bench: Bench) -> Iterator[Device]:
    """A device whose first place in the table is the last one."""
    ifindex = next(placed_at(LAST))
    bench.lab.veth(bench.host, "n0", bench.far, "n0p", index_a=ifindex)
    try:
        yield Device("n0", ifindex, "n0p")
    finally:
        bench.host.ip("link del n0")


def sends(bench: Bench, device: Device) -> bool:
    """Whether the programs take a device for a master."""
    verdict = Verdict(bench.run("fo_stack_tx", OUT, device).retval)
    assert verdict in (Verdict.REDIRECT, Verdict.UNSPEC)
    return verdict is Verdict.REDIRECT


@pytest.mark.parametrize("taken", range(abi.PORT_PROBES))
def test_a_taken_place(bench: Bench, newcomer: Device, taken: int) -> None:
    """A port whose first places are taken is found behind them, round the end."""
    bench.arrange(Word(generation=1, active=0))
    for ifindex in islice(placed_at(LAST, newcomer.ifindex + 1), taken):
        bench.programs.set_master(GROUP, ifindex)
    assert not sends(bench, newcomer)
    bench.programs.set_master(GROUP, newcomer.ifindex)
    assert sends(bench, newcomer)
    assert newcomer.ifindex in bench.programs.ports()


def test_no_place_left(bench: Bench, newcomer: Device) -> None:
    """A port that the programs would not find is refused, the others stay."""
    others = list(islice(placed_at(LAST, newcomer.ifindex + 1), abi.PORT_PROBES))
    for ifindex in others:
        bench.programs.set_master(GROUP, ifindex)
    with pytest.raises(
        StateError, match=f"interface {newcomer.ifindex}: .* full"
    ) as no:
        bench.programs.set_master(GROUP, newcomer.ifindex)
    assert no.value.hint is not None
    assert "--max-groups" in no.value.hint
    assert set(bench.programs.ports()) == set(others)


def test_a_place_that_falls_free(bench: Bench, newcomer: Device) -> None:
    """A port behind one that is dropped is still found, and never there twice."""
    other = next(placed_at(LAST, newcomer.ifindex + 1))
    bench.arrange(Word(generation=1, active=0))
    before = set(bench.programs.ports())
    bench.programs.set_master(GROUP, other)
    bench.programs.set_master(GROUP, newcomer.ifindex)
    bench.programs.drop_port(other)
    assert sends(bench, newcomer)
    bench.programs.set_master(GROUP, newcomer.ifindex)
    bench.programs.drop_port(newcomer.ifindex)
    assert not sends(bench, newcomer)
    assert set(bench.programs.ports()) == before


def test_room_for_every_group(bench: Bench) -> None:
    """All groups with all their slaves have their ports, ifindexes as they come."""
    width = MAX_SLAVES + 1
    everybody = range(1, MAX_GROUPS * width + 1)
    for ifindex in everybody:
        group, slot = divmod(ifindex - 1, width)
        bench.programs.set_slave(
            group, ifindex, slot=slot, master=9, rule=RxRule.ALWAYS
        )
    ports = bench.programs.ports()
    assert {
        (port.group, port.slot, port.master, port.rx_rule) for port in ports.values()
    } == {
        (group, slot, 9, RxRule.ALWAYS)
        for group in range(MAX_GROUPS)
        for slot in range(width)
    }
    assert sorted(ports) == list(everybody)


def test_a_port_is_what_was_written(bench: Bench) -> None:
    """Master and slave are read back as written; what was not, is None."""
    bench.programs.set_master(3, 2**31 - 1)
    bench.programs.set_slave(4, 98, slot=7, master=97, rule=RxRule.NO_PRIMARY)
    master, slave = bench.programs.port(2**31 - 1), bench.programs.port(98)
    assert bench.programs.port(96) is None
    assert master is not None
    assert slave is not None
    assert (master.group, master.slot) == (3, abi.NO_SLOT)
    assert (slave.group, slave.slot, slave.master) == (4, 7, 97)
    assert slave.rx_rule == RxRule.NO_PRIMARY


def test_a_dropped_port_is_let_through(bench: Bench) -> None:
    """A master that was dropped is an unknown interface; dropping twice is fine."""
    bench.arrange(Word(generation=1, active=0))
    assert sends(bench, bench.master)
    for _ in range(2):
        bench.programs.drop_port(bench.master.ifindex)
        assert not sends(bench, bench.master)


def test_close_group_drops_its_ports(bench: Bench) -> None:
    """A closed group has no port, no slave and nobody active; others have."""
    bench.arrange(Word(generation=97, active=1, approved=0xFF), group=5)
    high = bench.devices["high"]
    bench.programs.set_master(6, high.ifindex)
    bench.programs.close_group(5)
    assert {i: port.group for i, port in bench.programs.ports().items()} == {
        high.ifindex: 6
    }
    assert bench.programs.slaves(5) == {}
    assert bench.programs.word(5) == Word(generation=0, active=None)
    assert not sends(bench, bench.master)
