# SPDX-License-Identifier: GPL-2.0-or-later
"""fo_seat and what ProgramSet makes of it: a slave in its slot."""

import ctypes as ct
import multiprocessing
import subprocess

import pytest

from pyfailover.datapath import abi, libbpf
from pyfailover.datapath.abi import SeatVerdict
from pyfailover.errors import BpfError
from pyfailover.model import MAX_SLAVES
from tests.support.progrun import (
    CARRIER_TEST_ALONE,
    GROUP,
    MAX_GROUPS,
    Bench,
    Kind,
    context,
)

_fork = multiprocessing.get_context("fork")


def ask(bench: Bench, request: bytes) -> SeatVerdict:
    """Hand a request for slave 0 to the program as it is."""
    fd = bench.programs.program("fo_seat")
    ctx = context(bench.slave(0).ifindex)
    return SeatVerdict(libbpf.run(fd, request, ctx=ctx).retval)


def request(*, group: int = GROUP, slot: int = 0) -> bytes:
    """A struct fo_seat_request."""
    return bytes(abi.SeatRequest(group=group, slot=slot))


def every_group(bench: Bench) -> list[bytes]:
    """All of the map, raw."""
    return [bytes(bench.seats(group)) for group in range(MAX_GROUPS)]


@pytest.mark.parametrize("slot", range(MAX_SLAVES))
def test_taken(bench: Bench, slot: int) -> None:
    """The slot has the slave, with what the programs must know of it, or nothing of
    that where they do not look; no other slot and no other group changes."""
    before = every_group(bench)
    assert ask(bench, request(slot=slot)) is SeatVerdict.TAKEN
    seats = bench.seats()
    seat = seats.seat[slot]
    assert seat.ifindex == bench.slave(0).ifindex
    seen = bench.kind is Kind.CARRIER_TEST
    assert [bool(mark) for mark in (seat.dev, seat.net, seat.id)] == [seen] * 3
    seats.seat[slot] = abi.Seat()
    after = every_group(bench)
    after[GROUP] = bytes(seats)
    assert after == before


@CARRIER_TEST_ALONE
def test_marks_of_devices(bench: Bench) -> None:
    """Devices of a namespace differ in all but that; the id is the inode of a device's
    directory in sysfs."""
    for slot in range(MAX_SLAVES):
        bench.programs.seat(GROUP, slot, bench.slave(slot).ifindex)
    seats = bench.seats().seat
    assert len({seat.dev for seat in seats}) == MAX_SLAVES
    assert len({seat.net for seat in seats}) == 1
    paths = [f"/sys/class/net/s{slot}" for slot in range(MAX_SLAVES)]
    # ip gives the command a sysfs of the namespace.
    command = ["ip", "netns", "exec", bench.host.name, "stat", "-Lc", "%i", *paths]
    inodes = subprocess.run(command, check=True, capture_output=True, text=True)
    assert [seat.id for seat in seats] == [int(i) for i in inodes.stdout.split()]


@pytest.mark.parametrize("length", [14, 16, 20, 23])
def test_short_request(bench: Bench, length: int) -> None:
    """A request that is cut short is refused as bad, and changes nothing."""
    before = every_group(bench)
    assert ask(bench, request()[:length]) is SeatVerdict.BAD_REQUEST
    assert every_group(bench) == before


@pytest.mark.parametrize(
    ("group", "slot"),
    [(MAX_GROUPS, 0), (2**32 - 1, 0), (GROUP, MAX_SLAVES), (GROUP, 2**32 - 1)],
)
def test_no_such_place(bench: Bench, group: int, slot: int) -> None:
    """A group or slot that there is no room for is refused, and changes nothing."""
    before = every_group(bench)
    assert ask(bench, request(group=group, slot=slot)) is SeatVerdict.NO_SUCH
    assert every_group(bench) == before


def test_another_takes_the_slot(bench: Bench) -> None:
    """The slot has the new slave, and nothing of the old one."""
    bench.programs.seat(GROUP, 2, bench.slave(0).ifindex)
    old = bytes(bench.seats().seat[2])
    bench.programs.seat(GROUP, 2, bench.slave(1).ifindex)
    bench.programs.seat(GROUP, 3, bench.slave(1).ifindex)
    two, three = bench.seats().seat[2:4]
    assert bytes(two) == bytes(three) != old
    assert bench.programs.slaves(GROUP) == dict.fromkeys((2, 3), bench.slave(1).ifindex)


@pytest.mark.parametrize("field", ["ifindex", "dev", "net", "id"])
def test_what_is_wrong_is_put_right(bench: Bench, field: str) -> None:
    """A seat that is another's in a single mark is learned anew."""
    bench.programs.seat(GROUP, 2, bench.slave(0).ifindex)
    right = bytes(bench.seats())
    seats = bench.seats()
    setattr(seats.seat[2], field, getattr(seats.seat[2], field) ^ 1 << 20)
    bench.put_seats(seats)
    bench.programs.seat(GROUP, 2, bench.slave(0).ifindex)
    assert bytes(bench.seats()) == right


def test_seated_again_it_never_rises(bench: Bench) -> None:
    """A slave that sits there already is there all the time, as it was: whoever looks
    meanwhile never finds the seat another."""
    bench.programs.seat(GROUP, 2, bench.slave(0).ifindex)
    before = bytes(bench.seats())
    begun = _fork.Event()

    def seat_again() -> None:
        for number in range(20_000):
            bench.programs.seat(GROUP, 2, bench.slave(0).ifindex)
            if number == 97:
                begun.set()

    child = _fork.Process(target=seat_again, daemon=True)
    child.start()
    assert begun.wait(60)
    size = ct.sizeof(abi.Group)
    looks = 0
    with libbpf.opened(bench.pins / "maps" / "fo_groups") as fd:
        while child.is_alive():
            assert libbpf.map_lookup(fd, GROUP, size) == before
            looks += 1
    assert (child.exitcode, looks > 97) == (0, True)


@pytest.mark.parametrize("ifindex", [96, 2**31 - 1])
def test_no_such_interface(bench: Bench, ifindex: int) -> None:
    """The error says which interface there is not, and the slot stays as it was."""
    bench.programs.seat(GROUP, 0, bench.slave(0).ifindex)
    before = every_group(bench)
    with pytest.raises(BpfError, match=f"cannot seat interface {ifindex} in group"):
        bench.programs.seat(GROUP, 0, ifindex)
    assert every_group(bench) == before


def test_no_such_slot(bench: Bench) -> None:
    """The error says which slot there is not."""
    with pytest.raises(BpfError, match=f"in slot {MAX_SLAVES} of group {GROUP}"):
        bench.programs.seat(GROUP, MAX_SLAVES, bench.slave(0).ifindex)


def test_unseat(bench: Bench) -> None:
    """An emptied slot has no mark of anybody, the others stay; twice is fine."""
    for slot in range(MAX_SLAVES):
        bench.programs.seat(GROUP, slot, bench.slave(slot).ifindex)
    expected = bench.seats()
    expected.seat[5] = abi.Seat()
    for _ in range(2):
        bench.programs.unseat(GROUP, 5)
        assert bytes(bench.seats()) == bytes(expected)


def test_seated(bench: Bench) -> None:
    """To look changes nothing: who is in a slot, and who is not."""
    slave, other = bench.slave(3), bench.slave(4)
    assert not bench.programs.seated(GROUP, 3, slave.ifindex)
    assert bench.programs.slaves(GROUP) == {}
    bench.programs.seat(GROUP, 3, slave.ifindex)
    assert bench.programs.seated(GROUP, 3, slave.ifindex)
    assert not bench.programs.seated(GROUP, 3, other.ifindex)
    assert not bench.programs.seated(GROUP, 4, slave.ifindex)
    assert not bench.programs.seated(GROUP, 3, 99_999)
    assert bench.programs.slaves(GROUP) == {3: slave.ifindex}
