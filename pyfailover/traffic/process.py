# SPDX-License-Identifier: GPL-2.0-or-later
"""Child processes at the two ends of a stream, which never outlive their use.

Its secret is how a child is started inside a namespace, says that it is ready,
gives its result back, and dies: with its parent, by a call, not by Ctrl-C.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from types import TracebackType
from typing import NoReturn, Self

from pyfailover.errors import PyFailoverError
from pyfailover.lab import INTERRUPTS, Namespace, interrupts_held

Report = Callable[[str], None]
Body = Callable[[Report], object]

READY, FLOWING, RESULT, ERROR = "ready", "flowing", "result", "error"

# The words that all processes of a stream see.
SENT, RECEIVED, PRIMED, STOP, DRAIN, LAST = range(6)
_WORDS = 6

_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29


class TrafficError(PyFailoverError):
    """A stream did not start, or one of its ends failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Where a stream goes from and to, and on which processors."""

    sender: Namespace
    receiver: Namespace
    src: str
    dst: str
    port: int
    sender_cpu: int | None = None
    receiver_cpu: int | None = None

    def new_socket(self, kind: socket.SocketKind) -> socket.socket:
        """A socket of the right family, in the namespace of the caller."""
        family = socket.AF_INET6 if ":" in self.dst else socket.AF_INET
        return socket.socket(family, kind)

    def source(self) -> tuple[object, ...]:
        """Where to bind the sender."""
        return _resolve(self.src, 0)

    def target(self) -> tuple[object, ...]:
        """Where to bind the receiver and connect the sender."""
        return _resolve(self.dst, self.port)


class Child:
    """A process in a namespace that runs `body` and gives its value back."""

    def __init__(
        self, name: str, body: Body, namespace: Namespace, cpu: int | None
    ) -> None:
        self.name = name
        parent = os.getpid()
        self.channel, theirs = Pipe(duplex=False)
        # A Ctrl-C right after the fork would unwind the parent's stack, its
        # clean-up included, a second time in the child; one in the middle, in
        # a hook of Python's own, would be swallowed.
        with interrupts_held():
            self._pid = os.fork()
            if self._pid == 0:
                _be_child(body, namespace, cpu, parent, theirs)
        theirs.close()

    def expect(self, word: str, timeout: float) -> object:
        """Wait until the child reports `word`; what it gave along with it.

        Raises:
            TrafficError: it failed, died, or said nothing in time.
        """
        if not self.channel.poll(timeout):
            raise TrafficError(f"the {self.name} is not {word} after {timeout:g} s")
        try:
            said, value = self.channel.recv()
        except (EOFError, OSError) as exc:
            raise TrafficError(f"the {self.name} died") from exc
        if said != word:
            raise TrafficError(f"the {self.name} failed: {value or said}")
        return value

    def kill(self) -> None:
        """End the process, whatever it does; harmless when it is gone."""
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = 0
            self.channel.close()


class Stream:
    """A sender and a receiver child: start together, stop, never left behind.

    A subclass gives the two bodies and makes its own result of theirs. The
    children end with the thread that called `start` (prctl(2)), be it the last
    of the process or not.
    """

    def __init__(self, ends: Ends, *, start_timeout: float) -> None:
        self.ends = ends
        self._start_timeout = start_timeout
        self._words = memoryview(mmap.mmap(-1, 8 * _WORDS)).cast("Q")
        self._children: list[Child] = []

    @property
    def sent(self) -> int:
        """Packets (TCP: bytes) sent up to now."""
        return self._words[SENT]

    @property
    def received(self) -> int:
        """Packets (TCP: bytes) received up to now."""
        return self._words[RECEIVED]

    def start(self) -> None:
        """Start both ends; return when the first packet has arrived.

        Raises:
            TrafficError: nothing arrived in time, or an end failed.
        """
        if self._children:
            raise TrafficError("the stream runs already")
        self._words[:] = memoryview(bytes(8 * _WORDS)).cast("Q")
        try:
            self._start()
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """End both ends at once and forget what they saw."""
        while self._children:
            self._children.pop().kill()

    def _start(self) -> None:
        ends, timeout = self.ends, self._start_timeout
        receiver = self._child("receiver", self._receive, ends.receiver)
        receiver.expect(READY, timeout)
        sender = self._child("sender", self._send, ends.sender)
        # The sender says something before the first arrival only if it fails.
        ready = wait([receiver.channel, sender.channel], timeout)
        if not ready:
            raise TrafficError(
                f"nothing from {ends.src} arrived at {ends.dst} port {ends.port} "
                f"within {timeout:g} s",
                hint="are both ends up, with a carrier and a route?",
            )
        (receiver if receiver.channel in ready else sender).expect(FLOWING, 0)

    def _child(self, name: str, body: Body, namespace: Namespace) -> Child:
        cpu = getattr(self.ends, f"{name}_cpu")
        self._children.append(child := Child(name, body, namespace, cpu))
        return child

    def _running(self) -> tuple[Child, Child]:
        """The receiver and the sender.

        Raises:
            TrafficError: there are none.
        """
        if not self._children:
            raise TrafficError("the stream does not run")
        receiver, sender = self._children
        return receiver, sender

    def _stopped(self) -> bool:
        return self._words[STOP] != 0

    def _send(self, report: Report) -> object:
        raise NotImplementedError

    def _receive(self, report: Report) -> object:
        raise NotImplementedError


def _resolve(address: str, port: int) -> tuple[object, ...]:
    """A socket address; in the namespace, for `fe80::1%eth0` names a device."""
    found = socket.getaddrinfo(address, port, flags=socket.AI_NUMERICHOST)
    return found[0][4]


def _be_child(
    body: Body,
    namespace: Namespace,
    cpu: int | None,
    parent: int,
    channel: Connection,
) -> NoReturn:
    """All of a child's life. It leaves by _exit: no clean-up of the parent's runs."""
    code = 1
    try:
        _detach_from_terminal_and_loop(parent)
        # Sockets and locks of the parent's that would else live on in here.
        os.closerange(3, channel.fileno())
        os.closerange(channel.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        namespace.join()
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        # A collection in mid-stream would look like a gap.
        gc.disable()
        channel.send((RESULT, body(lambda word: channel.send((word, None)))))
        code = 0
    except BaseException as exc:  # noqa: BLE001 - told to the parent, which raises
        with suppress(OSError):
            channel.send((ERROR, f"{type(exc).__name__}: {exc}"))
    finally:
        os._exit(code)


def _detach_from_terminal_and_loop(parent: int) -> None:
    """Die with the parent; leave Ctrl-C and its event loop's wake-ups to it."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
    libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
