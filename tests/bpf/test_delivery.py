# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs attached to real hooks: a frame comes out where it should, as it was.

A test run does not carry out a redirect; these tests do, with whole frames on
packet sockets, and so see the target and the direction of it.
"""

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from pyfailover.datapath import hooks
from pyfailover.datapath.hooks import Attachment
from pyfailover.model import Hook, Side, TcMode, Word
from tests.support import frames
from tests.support.progrun import GROUP, OURS, Bench, Device

SLAVES = ("s0", "s1", "s2", "high")
ACTIVE_1 = Word(generation=97, active=1, approved=0b111)
JUMBO = 9014
_PACKET_HOST = 0


@dataclass(frozen=True)
class Wire:
    """All frames of our own type: those that come to a device (`m0`) or to the
    far end of one (`m0p`), and those that are sent from there."""

    host: socket.socket
    far: socket.socket

    def send(self, where: str, frame: bytes) -> None:
        """Send a frame out of a device or a far end."""
        end = self.far if where.endswith("p") else self.host
        assert end.sendto(frame, (where, frames.EXPERIMENTAL)) == len(frame)

    def hear(self) -> tuple[str, bytes, int]:
        """Wait for a frame: where it came in, itself, its packet type."""
        ready, _, _ = select.select([self.host, self.far], [], [], 10)
        assert ready, "nothing came anywhere"
        frame, (where, _, kind, *_) = ready[0].recvfrom(16_384)
        return where, frame, kind

    def silent(self) -> bool:
        """Whether nothing (more) has come anywhere."""
        return not select.select([self.host, self.far], [], [], 0)[0]


@contextmanager
def listening(bench: Bench) -> Iterator[Wire]:
    """Ears in both namespaces; they do not hear what goes out there."""
    with packet_socket() as host, ExitStack() as stack:
        with bench.far.enter():
            far = stack.enter_context(packet_socket())
        yield Wire(host, far)


def packet_socket() -> socket.socket:
    """On every device of the namespace."""
    kind = socket.htons(frames.EXPERIMENTAL)
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, kind)


@contextmanager
def attached(bench: Bench, side: Side, mode: TcMode) -> Iterator[None]:
    """The programs of a side on the master and the slaves."""
    places: list[tuple[Device, Hook, str]] = [
        (bench.devices[name], Hook.INGRESS, f"fo_{side}_rx") for name in SLAVES
    ]
    hook = Hook.EGRESS if side is Side.STACK else Hook.INGRESS
    places.append((bench.master, hook, f"fo_{side}_tx"))
    ours = set(bench.programs.program_ids().values())
    with ExitStack() as stack:
        for device, where, program in places:
            if mode is TcMode.CLSACT:
                assert hooks.make_clsact(device.ifindex)
                stack.callback(hooks.drop_clsact, device.ifindex)
            made = Attachment(bench.pins, device.ifindex, where, mode)
            made.attach(bench.programs.program(program))
            stack.callback(made.detach, ours)
            assert made.attached(ours)
        yield


@dataclass(frozen=True, kw_only=True)
class Case:
    """Where a frame goes in, and where it comes out."""

    description: str
    side: Side
    sent: str
    heard: str
    frame: Callable[[int], bytes]
    counted: tuple[int, str]  # slot, direction


def outward(size: int) -> bytes:
    """From the user of the master."""
    return frames.ethernet(frames.PEER, frames.EXPERIMENTAL, src=OURS, size=size)


def inward(size: int) -> bytes:
    """To the user of the master."""
    return frames.ethernet(OURS, frames.EXPERIMENTAL, b"97" * 20, size=size)


CASES = [
    Case(
        description="stack out",
        side=Side.STACK,
        sent="m0",
        heard="s1p",
        frame=outward,
        counted=(1, "tx"),
    ),
    Case(
        description="stack in",
        side=Side.STACK,
        sent="s1p",
        heard="m0",
        frame=inward,
        counted=(1, "rx"),
    ),
    Case(
        description="wire out",
        side=Side.WIRE,
        sent="m0p",
        heard="s1p",
        frame=outward,
        counted=(1, "tx"),
    ),
    Case(
        description="wire in",
        side=Side.WIRE,
        sent="s1p",
        heard="m0p",
        frame=inward,
        counted=(1, "rx"),
    ),
]
MODES = pytest.mark.parametrize("mode", [TcMode.TCX, TcMode.CLSACT])


@MODES
@pytest.mark.parametrize("size", [frames.MIN_FRAME, JUMBO])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.description)
def test_delivery(bench: Bench, case: Case, size: int, mode: TcMode) -> None:
    """A frame comes out at one place, byte for byte, counted once with its length."""
    frame = case.frame(size)
    bench.arrange(ACTIVE_1, plugged=(0, 1, 2))
    with attached(bench, case.side, mode), listening(bench) as wire:
        wire.send(case.sent, frame)
        where, heard, kind = wire.hear()
        assert (where, heard) == (case.heard, frame)
        assert wire.silent()
    if case.heard == "m0":
        assert kind == _PACKET_HOST
    slot, way = case.counted
    counters = bench.tally()[GROUP, slot]
    assert (counters[f"{way}_packets"], counters[f"{way}_bytes"]) == (1, size)


@MODES
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.description)
def test_delivery_over_a_high_ifindex(bench: Bench, case: Case, mode: TcMode) -> None:
    """A slave whose ifindex has more than 16 bits carries both ways."""
    frame = case.frame(frames.MIN_FRAME)
    high = bench.devices["high"]
    bench.arrange(ACTIVE_1, plugged=(1,), slaves={1: high})
    sent = case.sent.replace("s1p", high.peer)
    with attached(bench, case.side, mode), listening(bench) as wire:
        wire.send(sent, frame)
        assert wire.hear()[:2] == (case.heard.replace("s1p", high.peer), frame)
        assert wire.silent()


@MODES
@pytest.mark.parametrize("side", list(Side))
def test_link_local_stays_on_its_slave(bench: Bench, side: Side, mode: TcMode) -> None:
    """A link-local frame is heard on the inactive slave that it arrived on alone."""
    frame = frames.control("01:80:c2:00:00:0e", frames.EXPERIMENTAL)
    bench.arrange(ACTIVE_1, plugged=(0, 1, 2))
    with attached(bench, side, mode), listening(bench) as wire:
        wire.send("s2p", frame)
        assert wire.hear()[:2] == ("s2", frame)
        assert wire.silent()
    assert bench.tally()[GROUP, 2] == {"rx_link_local": 1}


@MODES
@pytest.mark.parametrize("side", list(Side))
def test_a_flood_arrives_once(bench: Bench, side: Side, mode: TcMode) -> None:
    """Of a broadcast on every slave the master gets the active slave's, last one
    sent though it is, and nobody gets another."""
    frame = frames.ethernet(frames.BROADCAST, frames.EXPERIMENTAL, size=97)
    user = "m0" if side is Side.STACK else "m0p"
    bench.arrange(ACTIVE_1, plugged=(0, 1, 2))
    with attached(bench, side, mode), listening(bench) as wire:
        for port in ("s0p", "s2p", "s1p"):
            wire.send(port, frame)
        assert wire.hear()[:2] == (user, frame)
        assert wire.silent()
    tally = bench.tally()
    assert tally[GROUP, 1]["rx_packets"] == 1
    assert tally[GROUP, 0] == tally[GROUP, 2] == {"rx_drop_inactive": 1}


@MODES
def test_a_step_carries_its_frame(bench: Bench, mode: TcMode) -> None:
    """The very frame that finds its slave gone comes out of the next one."""
    frame = outward(97)
    bench.arrange(ACTIVE_1, plugged=(0, 2))
    with attached(bench, Side.STACK, mode), listening(bench) as wire:
        wire.send("m0", frame)
        assert wire.hear()[:2] == ("s0p", frame)
        assert wire.silent()
    assert bench.programs.word(GROUP).active == 0


@MODES
def test_replacing_a_program_leaves_one(bench: Bench, mode: TcMode) -> None:
    """Attached once more, a program runs once for a frame."""
    frame = outward(97)
    bench.arrange(ACTIVE_1, plugged=(0, 1, 2))
    with attached(bench, Side.STACK, mode), listening(bench) as wire:
        again = Attachment(bench.pins, bench.master.ifindex, Hook.EGRESS, mode)
        for _ in range(23):
            again.attach(bench.programs.program("fo_stack_tx"))
        wire.send("m0", frame)
        assert wire.hear()[:2] == ("s1p", frame)
        assert wire.silent()
    assert bench.tally()[GROUP, 1]["tx_packets"] == 1


@MODES
def test_detached_is_detached(bench: Bench, mode: TcMode) -> None:
    """After detach() no frame meets the program, and it can be attached anew."""
    ours = set(bench.programs.program_ids().values())
    ifindex = bench.master.ifindex
    place = Attachment(bench.pins, ifindex, Hook.EGRESS, mode)
    bench.arrange(ACTIVE_1)
    with ExitStack() as stack:
        if mode is TcMode.CLSACT:
            hooks.make_clsact(ifindex)
            stack.callback(hooks.drop_clsact, ifindex)
        stack.callback(place.detach, ours)
        wire = stack.enter_context(listening(bench))
        for _ in range(23):
            place.attach(bench.programs.program("fo_stack_tx"))
            place.detach(ours)
            wire.send("m0", outward(97))
            assert wire.hear()[0] == "m0p"
    assert bench.tally() == {}
