# SPDX-License-Identifier: GPL-2.0-or-later
"""What happened to the groups of a namespace, on disk beyond any one process.

JSON lines in two files, of which the older one goes when the younger is full.
Several processes may append at once; none of them waits for another, and none
fails because its story cannot be written.
"""

import errno
import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pyfailover.errors import PyFailoverError, StateError

log = logging.getLogger(__name__)

_LAST_MOMENT = 253_370_764_800.0  # the year 9999


class Kind(StrEnum):
    """What an event is about."""

    SWITCH = "switch"
    JOIN = "join"
    LEAVE = "leave"
    DEGRADED = "degraded"
    WHOLE = "whole"
    REPAIR = "repair"
    DAMPED = "damped"
    PIN = "pin"
    CARRIER = "carrier"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to one group."""

    time: float  # seconds since 1970
    group: str
    kind: Kind
    before: str | None  # what it changed from: for a switch the slave
    after: str | None
    reason: str
    by: str
    took_s: float | None
    generation: int | None  # of the word
    detail: str = ""


EventData = dict[str, Any]  # of an Event


def to_data(event: Event) -> EventData:
    """An event as it is kept and sent."""
    return {name: getattr(event, name) for name in _GOOD}  # asdict() copies deeply


def from_data(data: EventData) -> Event:
    """The event that to_data() made it of; what else is in there is ignored.

    Raises:
        StateError: it is none.
    """
    values = {"detail": "", **data}
    for name, good in _GOOD.items():
        if name not in values:
            raise StateError(f"cannot read an event: it has no {name}")
        if not good(values[name]):
            raise StateError(f"cannot read an event: its {name} is {values[name]!r}")
    kind = Kind(values["kind"])
    return Event(**{**{name: values[name] for name in _GOOD}, "kind": kind})


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return numeric and abs(value) < _LAST_MOMENT


def _or_none(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or good(value)


_GOOD: Mapping[str, Callable[[Any], bool]] = {
    "time": lambda value: _number(value) and value >= 0,
    "group": _text,
    "kind": lambda value: _text(value) and value in list(Kind),
    "before": _or_none(_text),
    "after": _or_none(_text),
    "reason": _text,
    "by": _text,
    "took_s": _or_none(_number),
    "generation": _or_none(lambda value: type(value) is int),
    "detail": _text,
}


class History:
    """The events of one namespace.

    Args:
        limit: bytes of a file beyond which it becomes the older one.
    """

    def __init__(self, run: Path, limit: int = 1 << 20) -> None:
        self._path = run / "events.jsonl"
        self._older = run / "events.jsonl.1"
        self._limit = limit
        self._complained = False

    def append(self, *events: Event) -> None:
        """Write events down; where that fails, log it, once."""
        lines = (json.dumps(to_data(event)).encode() + b"\n" for event in events)
        try:
            self._write(b"".join(lines))
            self._complained = False
        except OSError as exc:
            if not self._complained:
                log.warning("cannot write '%s': %s", self._path, exc.strerror)
            self._complained = True

    def _write(self, line: bytes) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = self._open()
        try:
            if os.fstat(fd).st_size + len(line) > self._limit and self._rotate(fd):
                os.close(fd)
                fd = self._open()
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                line = b"\n" + line  # somebody was killed, or the disk full
            if os.write(fd, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path, flags, 0o600)

    def _rotate(self, fd: int) -> bool:
        """Make the open file the older one, unless it is, or another does it now.

        Its lock is held for that, so two that find it full do not also rename
        the fresh one that the first of them leaves.
        """
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), self._path.stat()):
                self._path.replace(self._older)
        return True

    def read(self, group: str | None = None, last: int | None = None) -> list[Event]:
        """The events, oldest first; lines that are broken are skipped.

        Args:
            group: only its events.
            last: only so many, the youngest.

        Raises:
            PyFailoverError: they may not be read.
        """
        try:
            lines = self._lines()
        except PermissionError as exc:
            raise PyFailoverError(
                f"cannot read '{self._path}': {exc.strerror}", hint="run as root"
            ) from exc
        found = [event for event in map(_parsed, lines) if event is not None]
        if group is not None:
            found = [event for event in found if event.group == group]
        return found if last is None else found[max(0, len(found) - last) :]

    def _lines(self) -> list[bytes]:
        while True:
            with ExitStack() as stack:
                opened = []
                for path in (self._path, self._older):
                    with suppress(FileNotFoundError):
                        opened.append(stack.enter_context(path.open("rb")))
                inodes = {os.fstat(file.fileno()).st_ino for file in opened}
                if len(inodes) == len(opened):
                    return [line for file in reversed(opened) for line in file]
            # one file twice: renamed in between, so the fresh one was missed

    def degraded(self) -> dict[str, float]:
        """The groups that are degraded, and since when.

        Raises:
            PyFailoverError: the events may not be read.
        """
        since = {}
        for event in self.read():
            if event.kind is Kind.DEGRADED:
                since[event.group] = event.time
            elif event.kind is Kind.WHOLE:
                since.pop(event.group, None)
        return since


def _parsed(line: bytes) -> Event | None:
    try:
        data = json.loads(line.decode())
        return from_data(data) if isinstance(data, dict) else None
    except (RecursionError, StateError, ValueError):
        return None


def table(events: Iterable[Event]) -> Iterator[str]:
    """Events in lines, of at most 80 columns where the names are short."""
    rows = [("TIME", "MASTER", "WHAT", "FROM", "TO", "REASON", "BY", "TOOK")]
    rows += map(_row, events)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield " ".join(cells).rstrip()


def _row(event: Event) -> tuple[str, str, str, str, str, str, str, str]:
    moment = datetime.fromtimestamp(event.time, UTC).astimezone()
    return (
        moment.replace(tzinfo=None).isoformat(timespec="milliseconds"),
        _shown(event.group),
        event.kind,
        _shown(event.before),
        _shown(event.after),
        _shown(event.reason if event.kind is Kind.SWITCH else event.detail),
        _shown(event.by),
        _duration(event.took_s),
    )


def _shown(text: str | None) -> str:
    """A name may hold what a terminal obeys."""
    return "".join(c if c.isprintable() else "?" for c in text or "-")


def _duration(took_s: float | None) -> str:
    if took_s is None:
        return "-"
    return f"{took_s * 1e3:.1f} ms" if took_s < 1 else f"{took_s:.1f} s"
