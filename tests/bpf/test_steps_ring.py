# SPDX-License-Identifier: GPL-2.0-or-later
"""Each step of a program is told through the ring: when, where, from whom to whom."""

import errno
import select
import time
from collections.abc import Callable, Iterator

import pytest

from pyfailover.datapath import abi, libbpf
from pyfailover.datapath.ring import Ring
from pyfailover.model import Word
from tests.support import frames
from tests.support.progrun import GROUP, OURS, Bench, Device

OUT = frames.udp4(frames.PEER, src=OURS)
IN = frames.arp_request()
BEFORE = Word(generation=97, active=0, approved=0b111)
# Each record has a head of 8 bytes, and one byte at least stays free.
ROOM = (abi.STEPS_BYTES - 1) // (8 + 24)


@pytest.fixture
def ring(bench: Bench) -> Iterator[Ring]:
    """The ring of the steps, with nothing in it."""
    with libbpf.opened(bench.pins / "maps" / "fo_steps") as fd, Ring(fd) as opened:
        opened.take()
        yield opened


def readable(ring: Ring) -> bool:
    """Whether an event loop would call the reader."""
    return bool(select.select([ring.fd], [], [], 0)[0])


def send(bench: Bench, device: Device | None = None) -> None:
    """A frame out of the master, or of another one."""
    bench.run("fo_stack_tx", OUT, device or bench.master)


def receive(bench: Bench) -> None:
    """A frame that comes to slave 1."""
    bench.run("fo_wire_rx", IN, bench.slave(1))


def records(ring: Ring) -> list[abi.Step]:
    """The records, which are taken."""
    return [abi.Step.from_buffer_copy(record) for record in ring.take()]


def brief(step: abi.Step) -> tuple[int, int, int, int]:
    """Its group, generation, before and after."""
    return step.group, step.generation, step.before, step.after


def steps(ring: Ring) -> list[tuple[int, int, int, int]]:
    """The records in brief, which are taken."""
    return [brief(step) for step in records(ring)]


@pytest.mark.parametrize("hand", [send, receive])
def test_a_step(bench: Bench, ring: Ring, hand: Callable[[Bench], None]) -> None:
    """A record has all of the step and nothing else, and its time is the group's."""
    bench.arrange(BEFORE, plugged=(0, 1))
    assert (bench.state().stepped_ns, readable(ring)) == (0, False)
    bench.programs.unseat(GROUP, 0)
    begun = time.monotonic_ns()
    hand(bench)
    ended = time.monotonic_ns()
    stepped_ns = bench.state().stepped_ns
    assert begun <= stepped_ns <= ended
    assert readable(ring)
    step = abi.Step(ns=stepped_ns, group=GROUP, generation=98, before=0, after=1)
    assert ring.take() == [bytes(step)]
    assert not readable(ring)
    assert ring.take() == []


def test_from_nobody(bench: Bench, ring: Ring) -> None:
    """Before the first slave nobody was active."""
    bench.arrange(Word(generation=2**32 - 1, active=None, approved=0b100), plugged=(2,))
    send(bench)
    assert steps(ring) == [(GROUP, 0, abi.NO_SLOT, 2)]


def test_without_a_step(bench: Bench, ring: Ring) -> None:
    """Frames that move nothing and changes of the controller are not in the ring, and
    have no time."""
    bench.arrange(BEFORE, plugged=(0, 1))
    send(bench)
    receive(bench)
    bench.plug(())
    send(bench)
    receive(bench)
    assert bench.programs.swap(GROUP, BEFORE, Word(generation=98, active=1))
    assert steps(ring) == []
    assert bench.state().stepped_ns == 0


def test_in_order(bench: Bench, ring: Ring) -> None:
    """Steps of all groups come in the order in which they happened."""
    other = bench.devices["x0"]
    slaves = {n: bench.slave(n + 4) for n in range(3)}
    bench.arrange(BEFORE, plugged=(1,), group=0, master=other, slaves=slaves)
    bench.arrange(BEFORE, plugged=(2,))
    send(bench)
    send(bench, other)
    bench.programs.unseat(GROUP, 2)
    bench.programs.seat(GROUP, 1, bench.slave(1).ifindex)
    send(bench)
    found = records(ring)
    times = [step.ns for step in found]
    assert times == sorted(set(times))
    assert [brief(step) for step in found] == [
        (GROUP, 98, 0, 2),
        (0, 98, 0, 1),
        (GROUP, 99, 2, 1),
    ]


def test_a_full_ring(bench: Bench, ring: Ring) -> None:
    """Where nobody reads, the first steps stay and later ones are not told, but made,
    stamped and counted like all others; there is room again once they are taken."""
    bench.arrange(BEFORE, plugged=(1,))
    now, number = BEFORE, ROOM + 97
    for count in range(number):
        now = bench.programs.word(GROUP)
        assert bench.programs.swap(
            GROUP, now, Word(generation=count, active=0, approved=0b10)
        )
        last_ns = bench.state().stepped_ns
        send(bench)
        assert bench.state().stepped_ns > last_ns
    assert bench.tally()[GROUP, 0] == {"left": number}
    assert bench.tally()[GROUP, 1]["tx_packets"] == number
    assert steps(ring) == [(GROUP, count + 1, 0, 1) for count in range(ROOM)]
    bench.arrange(BEFORE, plugged=(1,))
    send(bench)
    assert steps(ring) == [(GROUP, 98, 0, 1)]


def test_a_reader_that_comes_later(bench: Bench, ring: Ring) -> None:
    """What happened while nobody had the ring open is there for the next one."""
    bench.arrange(BEFORE, plugged=(1,))
    ring.close()
    send(bench)
    with libbpf.opened(bench.pins / "maps" / "fo_steps") as fd:
        again = Ring(fd)
    assert readable(again)
    assert steps(again) == [(GROUP, 98, 0, 1)]
    again.close()
    again.close()


def test_what_is_no_ring(bench: Bench) -> None:
    """Another map is refused."""
    with (
        libbpf.opened(bench.pins / "maps" / "fo_states") as fd,
        pytest.raises(OSError, match="ring buffer") as no,
    ):
        Ring(fd)
    assert no.value.errno == errno.EINVAL
