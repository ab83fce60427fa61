# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbered streams between the ends of a topology, and waiting for them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pyfailover.lab import Namespace, eventually
from pyfailover.traffic import Outcome, UdpStream, account
from pyfailover.traffic.process import Stream
from tests.support.topology import FAR_V4, FAR_V6, HOST_V4, HOST_V6

_FIRST_PORT = 9001


def deliver(*streams: Stream, more: int = 199) -> None:
    """Wait until each stream has delivered some more packets (TCP: bytes)."""
    for stream in streams:
        _deliver(stream, stream.received + more)


def _deliver(stream: Stream, goal: int) -> None:
    eventually(lambda: stream.received >= goal, what=f"{goal} received")


@contextmanager
def exchange(
    host: Namespace, far: Namespace, *, rate: float = 4_000
) -> Iterator[list[UdpStream]]:
    """Four streams: out and back, over IPv4 and IPv6."""
    ends = []
    for here, there in ((HOST_V4, FAR_V4), (HOST_V6, FAR_V6)):
        ends += [(host, far, here, there), (far, host, there, here)]
    with ExitStack() as stack:
        yield [
            stack.enter_context(UdpStream(*end, port=port, rate=rate))
            for port, end in enumerate(ends, _FIRST_PORT)
        ]


def outcomes(*streams: UdpStream) -> list[Outcome]:
    """Stop streams; what became of each."""
    return [account(*stream.stop()) for stream in streams]


def damage(*streams: UdpStream) -> list[tuple[int, int]]:
    """Stop streams; how many packets each lost and got twice."""
    return [(o.lost, o.duplicated) for o in outcomes(*streams)]
