# SPDX-License-Identifier: GPL-2.0-or-later
"""Several hands on one word at once, on different CPUs: the accounts are exact.

Processes, not threads: nothing of Python's may put them one after another.
"""

import mmap
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, cycle

import pytest

from pyfailover import core
from pyfailover.model import Word
from tests.support import frames
from tests.support.progrun import CARRIER_TEST_ALONE, GROUP, OURS, Bench, Device, Link

OUT = frames.udp4(frames.PEER, src=OURS)
IN = frames.arp_request()
ROUNDS = 3_000
PATIENCE_S = 60  # a hang fails; nothing is measured by it

_fork = multiprocessing.get_context("fork")
Job = Callable[[], object]


def word(active: int, generation: int, *, left: int = 0) -> Word:
    """A word of the controller in which slots 0 and 1 are approved."""
    return Word(generation=generation, active=active, left=left, approved=0b11)


def pinned(job: Job, cpu: int) -> None:
    """Do a job on one CPU."""
    os.sched_setaffinity(0, {cpu})
    job()


@contextmanager
def at_once(*jobs: Job) -> Iterator[None]:
    """Do jobs in processes on CPUs of their own, beside the body of the `with`;
    wait for their good end. Forked, so they share the programs and the namespace.
    """
    cpus = cycle(sorted(os.sched_getaffinity(0), reverse=True))
    children = [
        _fork.Process(target=pinned, args=(job, cpu), daemon=True)
        for job, cpu in zip(jobs, cpus, strict=False)
    ]
    for child in children:
        child.start()
    try:
        yield
        for child in children:
            child.join(PATIENCE_S)
    finally:
        for child in children:
            child.kill()
            child.join()
    assert [child.exitcode for child in children] == [0] * len(children)


class Lockstep:
    """Numbers in shared memory by which processes keep step to a microsecond."""

    def __init__(self, followers: int) -> None:
        self._memory = memoryview(mmap.mmap(-1, 8 * (followers + 1))).cast("q")
        self._followers = range(1, followers + 1)

    def lead(self, number: int) -> None:
        """Begin a round."""
        self._memory[0] = number

    def follow(self, number: int) -> None:
        """Wait for the beginning of a round."""
        self._await(0, number)

    def done(self, me: int, number: int) -> None:
        """A follower has ended a round."""
        self._memory[me + 1] = number

    def all_done(self, number: int) -> None:
        """Wait for all followers' end of a round."""
        for place in self._followers:
            self._await(place, number)

    def _await(self, place: int, number: int) -> None:
        spins = 0
        deadline = time.monotonic() + PATIENCE_S
        while self._memory[place] < number:
            spins += 1
            if spins % 200 == 0:  # the other may want this very CPU
                os.sched_yield()
                assert time.monotonic() < deadline, "the others are stuck"


Hand = tuple[str, bytes, str]  # program, frame, device

HANDS: dict[str, Sequence[Hand]] = {
    "two senders": [("fo_stack_tx", OUT, "m0")] * 2,
    "sender and receiver": [("fo_wire_tx", OUT, "m0"), ("fo_wire_rx", IN, "s1")],
    "two receivers": [("fo_stack_rx", IN, "s1"), ("fo_stack_rx", IN, "s2")],
    "four of all": [
        ("fo_stack_tx", OUT, "m0"),
        ("fo_wire_tx", OUT, "m0"),
        ("fo_stack_rx", IN, "s1"),
        ("fo_stack_rx", IN, "s2"),
    ],
}


@pytest.mark.parametrize("hands", HANDS.values(), ids=HANDS)
def test_program_against_program(bench: Bench, hands: Sequence[Hand]) -> None:
    """However many programs find the slot empty at once, one step is made, and
    the slave is left once; thousands of times."""
    bench.arrange(word(0, 0), plugged=(1, 2))
    against_each_other(bench, hands)
    left = {key: seen["left"] for key, seen in bench.tally().items() if "left" in seen}
    assert left == {(GROUP, 0): ROUNDS}


def against_each_other(bench: Bench, hands: Sequence[Hand]) -> None:
    """Have programs run at once, for many rounds, each of which makes a step."""
    lockstep = Lockstep(len(hands) - 1)
    devices = [bench.devices[device] for _, _, device in hands]

    def follow(me: int) -> None:
        program, frame, _ = hands[me + 1]
        for number in range(1, ROUNDS + 1):
            lockstep.follow(number)
            bench.run(program, frame, devices[me + 1], repeat=2)
            lockstep.done(me, number)

    followers = [lambda me=me: follow(me) for me in range(len(hands) - 1)]
    with at_once(*followers):
        everywhere = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(everywhere)})
        try:
            lead(bench, lockstep, hands[0], devices[0])
        finally:
            os.sched_setaffinity(0, everywhere)


def lead(bench: Bench, lockstep: Lockstep, hand: Hand, device: Device) -> None:
    """Begin each round, take part, look at the word and put it back."""
    program, frame, _ = hand
    for number in range(1, ROUNDS + 1):
        lockstep.lead(number)
        for _ in range(number % 97):  # the others may need that much longer
            pass
        bench.run(program, frame, device, repeat=2)
        lockstep.all_done(number)
        stepped = replace(word(1, 2 * number - 1, left=0b1), by_kernel=True)
        assert bench.programs.swap(GROUP, stepped, word(0, 2 * number))


def test_program_against_controller(bench: Bench) -> None:
    """Programs step while the controller changes the word: each of them is in the
    generation once, and none is lost."""
    bench.arrange(word(0, 0), plugged=(0, 1))
    results = _fork.SimpleQueue()
    enough = _fork.Event()

    def control() -> None:
        """Move to and fro until often enough somebody else was faster."""
        changes = tries = 0

        def move_and_count(now: Word) -> Word:
            nonlocal tries
            tries += 1
            return move(now)

        while tries - changes < 97:
            bench.programs.change(GROUP, move_and_count)
            changes += 1
        enough.set()
        results.put(changes)

    given_back = 0
    with at_once(control):
        deadline = time.monotonic() + PATIENCE_S
        while not enough.is_set() and time.monotonic() < deadline:
            bench.plug((1 - (bench.programs.word(GROUP).active or 0),))
            bench.run("fo_stack_tx", OUT, bench.master, repeat=3)
            bench.plug((0, 1))
            bench.programs.change(GROUP, give_back)
            given_back += 1
        assert enough.is_set(), "the two never met"
        changes = results.get()
    tally = bench.tally()
    steps = sum(seen.get("left", 0) for seen in tally.values())
    assert steps > 0
    assert bench.programs.word(GROUP).generation == changes + given_back + steps


def move(now: Word) -> Word:
    """The controller's wish: the other of slots 0 and 1."""
    return core.switched(now, 1 - (now.active or 0))


def give_back(now: Word) -> Word:
    """Let the programs step again to what they left."""
    return replace(now, generation=now.generation + 1, left=0)


@pytest.mark.parametrize("controllers", [2, 4])
def test_controller_against_controller(bench: Bench, controllers: int) -> None:
    """Changes of several processes all happen, each upon the one before it."""
    bench.arrange(word(0, 0))
    each = 2_000
    results = _fork.SimpleQueue()
    together = _fork.Barrier(controllers)

    def control() -> None:
        together.wait(PATIENCE_S)
        mine = []
        for _ in range(each):
            before, _ = bench.programs.change(GROUP, move)
            mine.append(before.generation)
        results.put(mine)

    with at_once(*[control] * controllers):
        found = [results.get() for _ in range(controllers)]
    changes = controllers * each
    assert sorted(chain.from_iterable(found)) == list(range(changes))
    assert bench.programs.word(GROUP).generation == changes


@CARRIER_TEST_ALONE
@pytest.mark.parametrize("hands", HANDS.values(), ids=HANDS)
def test_burst_over_a_lost_carrier(bench: Bench, hands: Sequence[Hand]) -> None:
    """The same if it is the carrier that is lost: one step each time."""
    bench.arrange(word(0, 0), plugged=(0, 1, 2))
    bench.set_link(bench.slave(0), Link.NO_CARRIER)
    against_each_other(bench, hands)
    left = {key: seen["left"] for key, seen in bench.tally().items() if "left" in seen}
    assert left == {(GROUP, 0): ROUNDS}


@CARRIER_TEST_ALONE
def test_down_delay_on_two_cpus(bench: Bench) -> None:
    """Two senders that find the carrier lost at once both wait, each time."""
    bench.arrange(word(0, 0), plugged=(0, 1))
    bench.programs.set_down_delay(GROUP, 3_600_000)
    bench.set_link(bench.slave(0), Link.NO_CARRIER)
    lockstep = Lockstep(1)

    def follow() -> None:
        for number in range(1, ROUNDS + 1):
            lockstep.follow(number)
            bench.run("fo_stack_tx", OUT, bench.master, repeat=2)
            lockstep.done(0, number)

    with at_once(follow):
        for number in range(1, ROUNDS + 1):
            lockstep.lead(number)
            bench.run("fo_stack_tx", OUT, bench.master, repeat=2)
            lockstep.all_done(number)
            # Another active slave, and back: the loss is to be seen anew.
            now = bench.programs.word(GROUP)
            assert now == word(0, 2 * number - 2)
            assert bench.programs.swap(GROUP, now, word(1, 2 * number - 1))
            back = word(0, 2 * number)
            assert bench.programs.swap(GROUP, word(1, 2 * number - 1), back)
    assert bench.counters().slaves[0]["left"] == 0
