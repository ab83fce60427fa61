# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket, both ends: JSON lines over a unix stream socket.

A request is an object with a string `do`; its reply is {"ok": {...}} or
{"error": {...}}, one line each, in order; after {"do": "watch"} and its reply
lines come until the client leaves. What can be asked for, and of whom, is the
handler's.
"""

import asyncio
import json
import logging
import math
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from pyfailover.errors import (
    ConfigError,
    PyFailoverError,
    StateError,
    UnsupportedError,
)

log = logging.getLogger(__name__)

Request = Mapping[str, Any]
Reply = dict[str, Any]
Handler = Callable[[Request], Awaitable[Reply]]
Watcher = Callable[[], AbstractContextManager[asyncio.Queue[Reply]]]

# What the controller's own user may ask for, too: its exporter runs as that.
READING = ("status", "metrics", "watch")

_LINE_MAX = 256 << 10  # bytes of a request
_UNREAD_MAX = 1 << 20  # bytes that a watcher may be behind
_CLIENTS_MAX = 64
_PATIENCE_S = 30.0  # with a client that sends half a line, or reads no reply
_POLL_S = 0.01


def _path(run: Path) -> Path:
    return run / "control.sock"


def _encode(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, allow_nan=False).encode() + b"\n"


def _decode(line: bytes) -> dict[str, Any]:
    """The object in a line.

    Raises:
        ValueError: there is none.
    """
    try:
        data = json.loads(line.decode(), parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(data, dict):
        raise ValueError("not an object")
    return data


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a number")
    return number


# The server's end.


@asynccontextmanager
async def serve(run: Path, handle: Handler, subscribe: Watcher) -> AsyncIterator[None]:
    """Answer requests for the length of an `async with`.

    Args:
        handle: what answers all but `watch`. It is not interrupted when its
            client leaves, only when serving ends.
        subscribe: a queue of what watchers are told, for as long as it is entered.

    Raises:
        StateError: the socket cannot be made.
    """
    listener = _listen(_path(run))
    made = _path(run).stat()
    clients = _Clients(handle, subscribe)
    server = await asyncio.start_unix_server(
        clients.meet, sock=listener, limit=_LINE_MAX - 1
    )
    try:
        yield
    finally:
        server.close()
        await clients.dismiss()
        with suppress(FileNotFoundError):
            if os.path.samestat(_path(run).stat(), made):
                _path(run).unlink()


def _listen(path: Path) -> socket.socket:
    """A listening socket in place of what a killed controller left."""
    fresh = path.with_suffix(".new")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        os.fchmod(listener.fileno(), 0o600)  # the file gets it (unix_bind_bsd)
        listener.bind(str(fresh))
        listener.listen()
        fresh.replace(path)
    except OSError as exc:
        listener.close()
        raise StateError(f"cannot listen on '{path}': {exc.strerror or exc}") from exc
    return listener


def _peer_uid(client: socket.socket) -> int:
    """Who connected (SO_PEERCRED of unix(7))."""
    form = struct.Struct("iII")
    raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, form.size)
    _, uid, _ = form.unpack(raw)
    return int(uid)


class _Clients:
    """Who is connected; each has a task of its own, so none waits for another."""

    def __init__(self, handle: Handler, subscribe: Watcher) -> None:
        self._handle = handle
        self._subscribe = subscribe
        self._tasks: set[asyncio.Task[None]] = set()

    def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Start to serve a client."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def dismiss(self) -> None:
        """End all, whatever they are at."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await self._talk(reader, writer)
            writer.close()
            async with asyncio.timeout(_PATIENCE_S):
                await writer.wait_closed()
        except OSError:
            log.debug("a client of the control socket left, or was too slow")
        except Exception:
            log.exception("a client of the control socket is dropped")
        finally:
            writer.transport.abort()

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer a client until it leaves or must go."""
        try:
            may_change = self._admit(writer)
            while line := await _request_line(reader):
                await self._answer(line, reader, writer, may_change=may_change)
        except PyFailoverError as exc:
            writer.write(_encode(_error(exc)))

    def _admit(self, writer: asyncio.StreamWriter) -> bool:
        """Let a client in; whether it may change something."""
        uid = _peer_uid(writer.get_extra_info("socket"))
        if uid not in (0, os.geteuid()):
            log.warning("uid %d is refused at the control socket", uid)
            raise PyFailoverError(f"uid {uid} may not ask", hint="run as root")
        if len(self._tasks) > _CLIENTS_MAX:
            raise StateError(f"the controller has {_CLIENTS_MAX} clients already")
        return uid == 0

    async def _answer(
        self,
        line: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        may_change: bool,
    ) -> None:
        """Carry out one request."""
        try:
            request = _request(line)
            if not may_change and request["do"] not in READING:
                raise PyFailoverError(
                    f"only root may ask to {request['do']}", hint="run as root"
                )
            if request["do"] == "watch":
                return await self._watch(reader, writer)
            reply = _encode({"ok": await self._handle(request)})
        except PyFailoverError as exc:
            reply = _encode(_error(exc))
        except Exception:
            log.exception("a request failed: %.200r", line)
            reply = _encode(
                _error(PyFailoverError("the controller failed: see its log"))
            )
        writer.write(reply)
        async with asyncio.timeout(_PATIENCE_S):
            await writer.drain()

    async def _watch(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass on what is told until the client leaves or falls behind."""
        with self._subscribe() as queue:
            writer.write(_encode({"ok": {}}))  # nothing is missed from now on
            async with asyncio.TaskGroup() as tasks:
                teller = tasks.create_task(_tell(queue, writer))
                with suppress(OSError):
                    while await reader.read(_LINE_MAX):
                        pass  # nothing it says matters now
                teller.cancel()


async def _tell(queue: asyncio.Queue[Reply], writer: asyncio.StreamWriter) -> None:
    while writer.transport.get_write_buffer_size() <= _UNREAD_MAX:
        writer.write(_encode(await queue.get()))
    log.warning("a watcher that does not read is dropped")
    writer.transport.abort()


async def _request_line(reader: asyncio.StreamReader) -> bytes:
    """The next line; empty where the client left, be it in the middle of one.

    Raises:
        ConfigError: it is too long to be read.
        TimeoutError: it does not end.
    """
    try:
        first = await reader.readexactly(1)
        if first == b"\n":
            return first
        async with asyncio.timeout(_PATIENCE_S):
            return first + await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return b""
    except asyncio.LimitOverrunError:
        raise ConfigError(f"a request of more than {_LINE_MAX} bytes") from None


def _request(line: bytes) -> Request:
    try:
        request = _decode(line)
    except ValueError as exc:
        raise ConfigError(f"cannot read a request: {exc}") from exc
    if not isinstance(request.get("do"), str):
        raise ConfigError("cannot read a request: it has no string 'do'")
    return request


def _error(exc: PyFailoverError) -> Mapping[str, Any]:
    said = {"message": exc.message, "hint": exc.hint, "exit_code": exc.exit_code}
    return {"error": said}


# The client's end.

_ERRORS = {cls.exit_code: cls for cls in (ConfigError, UnsupportedError)}


def ask(
    run: Path, do: str, *, timeout_s: float = 60.0, **arguments: Any
) -> Reply | None:
    """Have the controller do something; None if there is no controller.

    Raises:
        PyFailoverError: what the controller says, in the class of its exit code;
            or it does not answer.
    """
    request = _encode({"do": do, **arguments})
    deadline = time.monotonic() + timeout_s
    try:
        client = _connect(run, deadline)
        if client is None:
            return None
        with client:
            with suppress(BrokenPipeError):  # it may have said why
                client.sendall(request)
            return _reply(_lines(client, deadline))
    except (OSError, ValueError) as exc:
        raise _silent(exc) from exc


def watch(run: Path) -> Iterator[dict[str, Any]]:
    """What the controller tells from now on, as it happens, until it ends.

    Raises:
        StateError: there is no controller.
        PyFailoverError: it refuses, or what it says is broken.
    """
    told = _told(run)
    next(told)
    return told


def _told(run: Path) -> Iterator[dict[str, Any]]:
    """First that it listens to us, then what happens."""
    try:
        client = _connect(run, None)
        if client is None:
            raise StateError("no controller runs here", hint="pyfailover run")
        with client:
            with suppress(BrokenPipeError):
                client.sendall(_encode({"do": "watch"}))
            lines = _lines(client, None)
            yield _reply(lines)
            with suppress(ConnectionResetError):  # it was killed
                yield from map(_answer_of, lines)
    except (OSError, ValueError) as exc:
        raise _silent(exc) from exc


def _connect(run: Path, deadline: float | None) -> socket.socket | None:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.settimeout(_remaining(deadline))
        while True:
            try:
                client.connect(str(_path(run)))
                return client
            except BlockingIOError:  # its queue is full, and we have a timeout
                client.settimeout(_remaining(deadline))
                time.sleep(_POLL_S)
    except (FileNotFoundError, ConnectionRefusedError):
        client.close()
        return None
    except PermissionError as exc:
        client.close()
        raise PyFailoverError(
            f"cannot ask the controller: {exc.strerror}", hint="run as root"
        ) from exc
    except OSError:
        client.close()
        raise


def _remaining(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _lines(client: socket.socket, deadline: float | None) -> Iterator[bytes]:
    """Whole lines, until the other side closes."""
    unread = bytearray()
    while True:
        client.settimeout(_remaining(deadline))
        chunk = client.recv(1 << 16)
        if not chunk:
            return
        unread += chunk
        if b"\n" in chunk:
            *lines, rest = unread.split(b"\n")
            unread = rest
            yield from map(bytes, lines)


def _reply(lines: Iterator[bytes]) -> Reply:
    """What the first line says was done.

    Raises:
        ValueError: there is none, or it says neither ok nor error.
    """
    line = next(lines, None)
    if line is None:
        raise ValueError("it hung up")
    match _answer_of(line):
        case {"ok": dict(done)}:
            return done
    raise ValueError("it says neither ok nor error")


def _answer_of(line: bytes) -> dict[str, Any]:
    """What a line says, unless it is an error: that is raised.

    Raises:
        ValueError: it is neither.
    """
    answer = _decode(line)
    if answer.keys() != {"error"}:
        return answer
    match answer["error"]:
        case {
            "message": str(message),
            "hint": str() | None as hint,
            "exit_code": int(code),
        }:
            raise _ERRORS.get(code, PyFailoverError)(message, hint=hint)
    raise ValueError("it reports an error without saying which")


def _silent(exc: OSError | ValueError) -> PyFailoverError:
    cause = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
    return PyFailoverError(
        f"the controller does not answer: {cause}", hint="see its log, or restart it"
    )
