# SPDX-License-Identifier: GPL-2.0-or-later
"""A slave is the device that was seated, whatever becomes of its name, its ifindex, its
memory and its namespace: never is a frame sent to another."""

from collections.abc import Callable, Iterator

import pytest

from pyfailover.datapath import abi
from pyfailover.lab import Namespace
from pyfailover.model import Word
from tests.support import frames
from tests.support.progrun import (
    CARRIER_TEST_ALONE,
    GROUP,
    OURS,
    Bench,
    Verdict,
)

pytestmark = CARRIER_TEST_ALONE

IFINDEX = 98_001  # which no other namespace of ours has
TRIES = 300
OUT = frames.udp4(frames.PEER, src=OURS)
ACTIVE = Word(generation=97, active=0, approved=0b11)


def plug(bench: Bench) -> None:
    """Make the slave n0; it has the same ifindex each time."""
    bench.lab.veth(bench.host, "n0", bench.far, "n0p", mac_a=OURS, index_a=IFINDEX)


@pytest.fixture
def seated(bench: Bench) -> Iterator[Bench]:
    """n0 is the active slave of the group, the only one."""
    plug(bench)
    try:
        bench.arrange(ACTIVE, plugged=())
        bench.programs.seat(GROUP, 0, IFINDEX)
        assert carries(bench)
        yield bench
    finally:
        bench.far.ip("link del n0p")


@pytest.fixture
def elsewhere(bench: Bench) -> Namespace:
    """A third namespace; it lasts as long as the lab."""
    return bench.lab.namespace("bpf-else")


def carries(bench: Bench) -> bool:
    """Whether the seated slave gets a frame; if not, nobody does."""
    retval = bench.run("fo_stack_tx", OUT, bench.master).retval
    assert bench.programs.word(GROUP) == ACTIVE
    assert Verdict(retval) in (Verdict.REDIRECT, Verdict.SHOT)
    return Verdict(retval) is Verdict.REDIRECT


def learned(bench: Bench) -> abi.Seat:
    """What is learned of n0 now, by another group."""
    bench.programs.seat(GROUP - 1, 0, IFINDEX)
    return abi.Seat.from_buffer_copy(bytes(bench.seats(GROUP - 1).seat[0]))


def test_gone(seated: Bench) -> None:
    """A slave that is deleted is left with the next frame."""
    seated.programs.seat(GROUP, 1, seated.slave(1).ifindex)
    seated.host.ip("link del n0")
    plug(seated)  # for the fixture; it is not taken either
    assert seated.run("fo_stack_tx", OUT, seated.master).retval == Verdict.REDIRECT
    assert seated.programs.word(GROUP).active == 1
    assert seated.tally()[GROUP, 1]["tx_packets"] == 1


def test_made_anew(seated: Bench) -> None:
    """A new device of the same name and ifindex carries once it has been seated."""
    old = learned(seated)
    seated.host.ip("link del n0")
    assert not carries(seated)
    plug(seated)
    assert not carries(seated)
    seated.programs.seat(GROUP, 0, IFINDEX)
    assert carries(seated)
    new = learned(seated)
    assert (new.net, new.ifindex) == (old.net, old.ifindex)
    assert new.id != old.id


def test_another_in_its_memory(seated: Bench) -> None:
    """A new device at the very address of the old one, with its ifindex and in its
    namespace, is not taken for it. (The kernel gives the memory out again now and
    then: as many devices are made as that takes.)"""
    seats = seated.seats()
    before = {seats.seat[0].dev: bytes(seats.seat[0])}
    for _ in range(TRIES):
        seated.host.ip("link del n0")
        plug(seated)
        new = learned(seated)
        if new.dev in before:
            break
        before[new.dev] = bytes(new)
    else:
        pytest.fail(f"no memory was used again in {TRIES} tries")
    old = abi.Seat.from_buffer_copy(before[new.dev])
    assert (old.dev, old.net, old.ifindex) == (new.dev, new.net, new.ifindex)
    seats.seat[0] = old
    seated.put_seats(seats)
    assert not carries(seated)
    seated.programs.seat(GROUP, 0, IFINDEX)
    assert carries(seated)


def test_another_device_of_its_ifindex(seated: Bench) -> None:
    """One of another kind neither."""
    seated.host.ip("link del n0")
    seated.host.ip(f"link add n0 index {IFINDEX} type bridge")
    try:
        seated.host.ip("link set n0 up")
        assert not carries(seated)
    finally:
        seated.host.ip("link del n0")
        plug(seated)


def test_moved_away_and_set_up_there(seated: Bench, elsewhere: Namespace) -> None:
    """A slave in another namespace is not ready, though it has its memory, its ifindex,
    its id and a carrier: an ifindex means another device here. Back again it is, with
    no one to seat it."""
    here = learned(seated)
    seated.host.ip(f"link set n0 netns {elsewhere.name}")
    assert not carries(seated)
    elsewhere.ip("link set n0 up")
    assert elsewhere.ifindex("n0") == IFINDEX
    assert not carries(seated)
    with elsewhere.enter():
        there = learned(seated)
    assert (there.dev, there.id, there.ifindex) == (here.dev, here.id, here.ifindex)
    assert there.net != here.net
    elsewhere.ip(f"link set n0 netns {seated.host.name}")
    assert not carries(seated)  # a move sets it down
    seated.host.ip("link set n0 up")
    assert carries(seated)
    assert bytes(learned(seated)) == bytes(here)


def test_seated_from_the_other_namespace(seated: Bench, elsewhere: Namespace) -> None:
    """A seat is of the namespace of who seats; frames leave in that of the program."""
    seated.host.ip(f"link set n0 netns {elsewhere.name}")
    elsewhere.ip("link set n0 up")
    with pytest.raises(Exception, match=f"interface {IFINDEX}"):
        seated.programs.seat(GROUP, 0, IFINDEX)
    elsewhere.ip(f"link set n0 netns {seated.host.name}")


def test_renamed(seated: Bench) -> None:
    """A new name changes nothing, and the slave is seated as it was."""
    before = bytes(learned(seated))
    seated.host.ip("link set n0 down")
    seated.host.ip("link set n0 name n1")
    assert not carries(seated)
    seated.host.ip("link set n1 up")
    assert carries(seated)
    assert bytes(learned(seated)) == before


def other_device(bench: Bench, seat: abi.Seat) -> None:
    bench.programs.seat(GROUP - 1, 1, bench.slave(1).ifindex)
    seat.dev = bench.seats(GROUP - 1).seat[1].dev


def no_device(_: Bench, seat: abi.Seat) -> None:
    seat.dev = 0


def other_net(_: Bench, seat: abi.Seat) -> None:
    seat.net ^= 1 << 12


def other_id(_: Bench, seat: abi.Seat) -> None:
    seat.id += 1


def other_generation_of_ids(_: Bench, seat: abi.Seat) -> None:
    seat.id += 1 << 32


def other_ifindex(bench: Bench, seat: abi.Seat) -> None:
    seat.ifindex = bench.slave(1).ifindex


def no_ifindex(_: Bench, seat: abi.Seat) -> None:
    seat.ifindex = 0


FORGERIES = [
    other_device,
    no_device,
    other_net,
    other_id,
    other_generation_of_ids,
    other_ifindex,
    no_ifindex,
]


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_every_mark_counts(
    seated: Bench, forge: Callable[[Bench, abi.Seat], None]
) -> None:
    """A seat that differs from the device in a single mark is nobody's."""
    seats = seated.seats()
    forge(seated, seats.seat[0])
    seated.put_seats(seats)
    assert not carries(seated)


@pytest.mark.parametrize("address", [8, 2**47, 2**63, 2**64 - 8])
def test_an_address_of_nothing(seated: Bench, address: int) -> None:
    """Whatever address is there, looking at it is safe."""
    seats = seated.seats()
    seats.seat[0].dev = address
    seated.put_seats(seats)
    assert not carries(seated)
