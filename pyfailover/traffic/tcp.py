# SPDX-License-Identifier: GPL-2.0-or-later
"""A bulk TCP stream between two namespaces whose every byte is checked.

Its secret is the pattern: it rolls with a period that is prime, so that a
piece lost, doubled or moved by any power of two cannot look right.
"""

from __future__ import annotations

import random
import socket
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from pyfailover.lab import Namespace
from pyfailover.traffic.accounting import FIRST_NS, LAST_NS, longest_gap_s
from pyfailover.traffic.pace import Pacer
from pyfailover.traffic.process import (
    DRAIN,
    FLOWING,
    READY,
    RECEIVED,
    RESULT,
    SENT,
    STOP,
    Ends,
    Report,
    Stream,
)

_PERIOD = 65521  # a prime
_PATTERN = random.Random(_PERIOD).randbytes(_PERIOD)
# Twice, so that a piece of up to one period begins anywhere and is in one part.
_TWICE = _PATTERN * 2

_MARK_NS = 1_000_000
_TURN_S = 0.05
# After an outage of seconds the retransmission timer may be that far off.
_SILENT_TURNS = 100  # 5 s
_RESULT_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpOutcome:
    """What became of a TCP stream.

    `intact`: all bytes sent have arrived, each in its place. `t_ns` are the
    times of arrivals, thinned out to about one a millisecond; both ends of a
    pause are always among them.
    """

    sent: int
    received: int
    intact: bool
    began_ns: int
    ended_ns: int
    t_ns: Sequence[int]

    def gap_s(self, start_ns: int = FIRST_NS, end_ns: int = LAST_NS) -> float:
        """The longest pause between arrivals that touches the window."""
        start_ns = max(start_ns, self.began_ns)
        return longest_gap_s(self.t_ns, start_ns, min(end_ns, self.ended_ns))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    count: int
    began_ns: int
    ended_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    count: int
    right: bool
    t_ns: Sequence[int]


class TcpStream(Stream):
    """Bulk data over TCP from one namespace to another, checked on arrival.

    `rate` is in bytes a second, None means no limit. `sent` counts the bytes
    that the sender's stack has taken.
    """

    def __init__(
        self,
        sender: Namespace,
        receiver: Namespace,
        src: str,
        dst: str,
        *,
        port: int = 9001,
        rate: float | None = None,
        sender_cpu: int | None = None,
        receiver_cpu: int | None = None,
        start_timeout: float = 5.0,
    ) -> None:
        ends = Ends(
            sender=sender,
            receiver=receiver,
            src=src,
            dst=dst,
            port=port,
            sender_cpu=sender_cpu,
            receiver_cpu=receiver_cpu,
        )
        super().__init__(ends, start_timeout=start_timeout)
        self._rate = rate

    def stop(self) -> TcpOutcome:
        """Stop sending, wait for what is still under way (5 s of silence at most).

        Raises:
            TrafficError: the connection broke, or an end failed.
        """
        receiver, sender = self._running()
        self._words[STOP] = 1
        try:
            written = cast(_Written, sender.expect(RESULT, _RESULT_TIMEOUT_S))
            self._words[DRAIN] = 1
            read = cast(_Read, receiver.expect(RESULT, _RESULT_TIMEOUT_S))
        finally:
            self.kill()
        return TcpOutcome(
            sent=written.count,
            received=read.count,
            intact=read.right and read.count == written.count,
            began_ns=written.began_ns,
            ended_ns=written.ended_ns,
            t_ns=read.t_ns,
        )

    def _send(self, report: Report) -> _Written:
        del report  # the first arrival says it all
        words = self._words
        data = memoryview(_TWICE)
        position = 0
        with self.ends.new_socket(socket.SOCK_STREAM) as sock:
            sock.bind(self.ends.source())
            sock.connect(self.ends.target())
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A stalled connection must not make it deaf to a call to stop.
            sock.settimeout(_TURN_S)
            pacer = Pacer(self._rate, most=_PERIOD, stopped=self._stopped)
            began_ns = time.monotonic_ns()
            while wanted := pacer.wait():
                while wanted and not words[STOP]:
                    offset = position % _PERIOD
                    try:
                        done = sock.send(data[offset : offset + wanted])
                    except TimeoutError:
                        continue
                    position += done
                    wanted -= done
                    words[SENT] = position
            ended_ns = time.monotonic_ns()
        return _Written(count=position, began_ns=began_ns, ended_ns=ended_ns)

    def _receive(self, report: Report) -> _Read:
        with self.ends.new_socket(socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(self.ends.target())
            listener.listen(1)
            report(READY)
            sock, _ = listener.accept()
        sock.settimeout(_TURN_S)
        with sock:
            return self._check(sock, report)

    def _check(self, sock: socket.socket, report: Report) -> _Read:
        words = self._words
        times = array("Q")
        position = turns = last = 0
        right = True
        while turns < _SILENT_TURNS:
            try:
                piece = sock.recv(_PERIOD)
            except TimeoutError:
                turns = turns + 1 if words[DRAIN] else 0
                continue
            if not piece:
                break
            now = time.monotonic_ns()
            turns = 0
            if not position:
                report(FLOWING)
            right = right and _TWICE.startswith(piece, position % _PERIOD)
            position += len(piece)
            words[RECEIVED] = position
            if not times or now - times[-1] >= _MARK_NS:
                if times and last > times[-1]:
                    times.append(last)
                times.append(now)
            last = now
        if times and last > times[-1]:
            times.append(last)
        return _Read(count=position, right=right, t_ns=times)
