# SPDX-License-Identifier: GPL-2.0-or-later
"""UDP between two namespaces: a numbered stream, and a flood to measure with.

A datagram begins with two words in the byte order of the host: its number,
and the time at which it was sent. Numbers begin with 1; datagrams with number
0 prime the path (ARP, ND, learning bridges) and are in no account.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path
from typing import cast

from pyfailover.lab import Namespace
from pyfailover.traffic.accounting import Received, Sent
from pyfailover.traffic.mmsg import Datagrams
from pyfailover.traffic.pace import Pacer
from pyfailover.traffic.process import (
    DRAIN,
    FLOWING,
    LAST,
    PRIMED,
    READY,
    RECEIVED,
    RESULT,
    SENT,
    STOP,
    Ends,
    Report,
    Stream,
)

PAYLOAD = 18  # a frame of 60 bytes over IPv4, the shortest that there is

_HEADER = 16
_BATCH = 64
_FLOOD_BATCH = 256
_SPIN_RATE = 50_000

# Not in the socket module.
_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_RECEIVE_BUFFER = 64 << 20
_TURN_S = 0.02
_SILENT_TURNS = 15  # 0.3 s
_SEND_TIMEOUT_S = 0.1
_PRIME_EVERY_S = 0.001
_RESULT_TIMEOUT_S = 10.0
_WARM_UP_S = 0.1
_NAP_S = 0.0001


class UdpStream(Stream):
    """Numbered datagrams at an even rate from one namespace to another.

    Works over IPv4 and IPv6. `rate` is in packets a second, None means as fast
    as possible; `payload` in bytes, at least 16. From 50,000 packets a second
    up the sender keeps its processor busy.

    `links` are interfaces of the sender's. It sends out of the first, and as soon
    as its stack refuses that out of the next, for good: a far end that leaves a
    dead link by itself, at a number that is known.
    """

    def __init__(
        self,
        sender: Namespace,
        receiver: Namespace,
        src: str,
        dst: str,
        *,
        port: int = 9000,
        rate: float | None = 10_000,
        payload: int = PAYLOAD,
        sender_cpu: int | None = None,
        receiver_cpu: int | None = None,
        start_timeout: float = 5.0,
        links: Sequence[str] = (),
    ) -> None:
        if payload < _HEADER:
            raise ValueError(f"no room for the number: payload {payload} < {_HEADER}")
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
        self._fast = rate is None or rate >= _SPIN_RATE
        self._payload = payload
        self._links = links

    def stop(self) -> tuple[Sent, Received]:
        """Stop sending, wait for what is still under way, and collect.

        The receiver ends when the last number is there and nothing more comes,
        or after 0.3 s of silence.

        Raises:
            TrafficError: the stream does not run, or an end failed.
        """
        receiver, sender = self._running()
        self._words[STOP] = 1
        try:
            sent = cast(Sent, sender.expect(RESULT, _RESULT_TIMEOUT_S))
            self._words[LAST] = self._words[SENT]
            self._words[DRAIN] = 1
            received = cast(Received, receiver.expect(RESULT, _RESULT_TIMEOUT_S))
        finally:
            self.kill()
        return sent, received

    def _send(self, report: Report) -> Sent:
        del report  # the first arrival says it all
        words = self._words
        firsts, counts, times = array("Q"), array("Q"), array("Q")
        number, refused = 1, 0
        moved_ns = None
        with ExitStack() as sockets:
            sock, *others = (
                sockets.enter_context(_sending_socket(self.ends, link))
                for link in self._links or (None,)
            )
            out = Datagrams(_BATCH, self._payload)
            self._prime(sock, out)
            pacer = Pacer(
                self._rate, most=_BATCH, stopped=self._stopped, spin=self._fast
            )
            while wanted := pacer.wait():
                while wanted and not words[STOP]:
                    now = time.monotonic_ns()
                    out.number(number, wanted, now)
                    done = _send_some(sock, out, wanted)
                    if not done and others:
                        sock = others.pop(0)
                        moved_ns = time.monotonic_ns()
                        continue
                    if not done:
                        # For its user a refused datagram is lost like any other.
                        refused += 1
                        done = 1
                    firsts.append(number)
                    counts.append(done)
                    times.append(now)
                    number += done
                    wanted -= done
                    words[SENT] = number - 1
        return Sent(
            first_seq=firsts,
            count=counts,
            t_ns=times,
            refused=refused,
            moved_ns=moved_ns,
        )

    def _prime(self, sock: socket.socket, out: Datagrams) -> None:
        """Send number 0 until one arrives: the path is open from end to end."""
        while not self._words[PRIMED] and not self._words[STOP]:
            out.number(0, 1, time.monotonic_ns())
            _send_some(sock, out, 1)
            time.sleep(_PRIME_EVERY_S)

    def _receive(self, report: Report) -> Received:
        words = self._words
        numbers, counts, times = array("Q"), array("Q"), array("Q")
        latest = turns = 0
        with _receiving_socket(self.ends) as sock:
            report(READY)
            into = Datagrams(_BATCH, _HEADER)
            take = _take_napping if self._fast else _take
            while True:
                count = take(sock, into)
                if not count:
                    turns += 1
                    complete = latest == words[LAST]
                    if words[DRAIN] and (complete or turns >= _SILENT_TURNS):
                        break
                    continue
                now = time.monotonic_ns()
                turns = 0
                fresh = into.numbers(count)
                if fresh[0] == 0:
                    words[PRIMED] = 1
                    fresh = array("Q", filter(None, fresh))
                    if not fresh:
                        continue
                if not numbers:
                    report(FLOWING)
                numbers.extend(fresh)
                counts.append(len(fresh))
                times.append(now)
                latest = fresh[-1]
                words[RECEIVED] = len(numbers)
            overflowed = _overflowed(sock)
        each = array("Q")
        for now, count in zip(times, counts, strict=True):
            each.extend(repeat(now, count))
        return Received(seq=numbers, t_ns=each, overflowed=overflowed)


def udp_flood(
    sender: Namespace,
    receiver: Namespace,
    src: str,
    dst: str,
    seconds: float,
    payload: int = PAYLOAD,
    cpus: tuple[int, int] = (0, 1),
    *,
    port: int = 9000,
) -> float:
    """Send as fast as possible; the packets a second that the receiver got.

    Both ends are pinned, the sender to `cpus[0]`, the receiver to `cpus[1]`.
    The first 0.1 s are not counted.
    """
    ends = Ends(
        sender=sender,
        receiver=receiver,
        src=src,
        dst=dst,
        port=port,
        sender_cpu=cpus[0],
        receiver_cpu=cpus[1],
    )
    with _Flood(ends, seconds, payload) as flood:
        return flood.stop()


class _Flood(Stream):
    """Datagrams without numbers, counted by the receiver."""

    def __init__(self, ends: Ends, seconds: float, payload: int) -> None:
        super().__init__(ends, start_timeout=5.0)
        self._seconds = seconds
        self._payload = payload

    def stop(self) -> float:
        """Wait for the end of the measurement; packets a second."""
        receiver, _ = self._running()
        timeout = self._seconds + _RESULT_TIMEOUT_S
        return cast(float, receiver.expect(RESULT, timeout))

    def _send(self, report: Report) -> None:
        del report
        with _sending_socket(self.ends) as sock:
            out = Datagrams(_FLOOD_BATCH, self._payload)
            fd = sock.fileno()
            while not self._words[STOP]:
                out.send(fd, _FLOOD_BATCH)

    def _receive(self, report: Report) -> float:
        with _receiving_socket(self.ends) as sock:
            report(READY)
            into = Datagrams(_FLOOD_BATCH, self._payload)
            while not _take(sock, into):
                pass
            report(FLOWING)
            _count_for(sock, into, _WARM_UP_S)
            rate = _count_for(sock, into, self._seconds)
            # While the socket is open: a closed port would answer by ICMP.
            self._words[STOP] = 1
            return rate


def _count_for(sock: socket.socket, into: Datagrams, seconds: float) -> float:
    """Packets a second taken from a socket over a time."""
    count = 0
    start = now = time.monotonic_ns()
    end = start + int(seconds * 1e9)
    while now < end:
        count += _take_napping(sock, into)
        now = time.monotonic_ns()
    return count / ((now - start) / 1e9)


def _take(sock: socket.socket, into: Datagrams) -> int:
    """Wait up to a turn for datagrams; how many, 0 if none came."""
    return into.receive(sock.fileno())


def _take_napping(sock: socket.socket, into: Datagrams) -> int:
    """The same for many datagrams a second: look, nap, look again.

    Who waits in the call must be woken by the sender, in whose time that
    goes, once for every few packets: it sends a tenth to a quarter fewer.
    """
    for _ in range(int(_TURN_S / _NAP_S)):
        if count := into.receive(sock.fileno(), socket.MSG_DONTWAIT):
            return count
        time.sleep(_NAP_S)
    return 0


def _sending_socket(ends: Ends, link: str | None = None) -> socket.socket:
    sock = ends.new_socket(socket.SOCK_DGRAM)
    if link is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(_SEND_TIMEOUT_S))
    sock.bind(ends.source())
    sock.connect(ends.target())
    return sock


def _receiving_socket(ends: Ends) -> socket.socket:
    sock = ends.new_socket(socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(_TURN_S))
    sock.bind(ends.target())
    return sock


def _overflowed(sock: socket.socket) -> int:
    """Datagrams for which a socket had no room."""
    meminfo = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
    drops: int = struct.unpack_from("@I", meminfo, 32)[0]
    return drops


def backlog_dropped() -> int:
    """Packets for which a CPU's backlog had no room, since boot: of a machine that is
    too slow, and nobody else's loss (/proc/net/softnet_stat)."""
    lines = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(line.split()[1], 16) for line in lines)


def _timeval(seconds: float) -> bytes:
    return struct.pack("@ll", 0, int(seconds * 1e6))


def _send_some(sock: socket.socket, out: Datagrams, count: int) -> int:
    """Send up to `count` datagrams; how many, 0 if the stack refuses the first.

    A connected socket may tell of an ICMP error that an earlier datagram met;
    that clears it, and the second attempt is about this one.
    """
    for _ in range(2):
        done = out.send(sock.fileno(), count)
        if done > 0:
            return done
        if -done in (errno.EBADF, errno.EINVAL, errno.EMSGSIZE):
            raise OSError(-done, os.strerror(-done), "sendmmsg")
    return 0
