# SPDX-License-Identifier: GPL-2.0-or-later
"""How a log line looks: one event, one line, as text or JSON, and not too often.

Everything goes through stdlib logging: event() for what has fields, the
methods of a logger for plain messages. What a field means is the caller's.
"""

import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from threading import Lock
from typing import TextIO

_BURST = 20
_WINDOW_S = 10.0
_MAX_KINDS = 1024  # beyond it the kind that was quiet the longest is forgotten

_Scalar = str | int | float | bool | None


class Style(StrEnum):
    """Who reads the log."""

    TEXT = "text"
    JSON = "json"


def configure(style: Style, level: int, stream: TextIO) -> None:
    """Have all loggers write to a stream, in place of where they wrote before."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Text() if style is Style.TEXT else _Json())
    handler.addFilter(RateLimit())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def event(logger: logging.Logger, level: int, what: str, /, **fields: object) -> None:
    """Log something that happened, with fields.

    Args:
        what: a constant, by which events are counted; what varies is a field.
    """
    logger.log(level, what, extra={"fields": fields}, stacklevel=2)


class RateLimit(logging.Filter):
    """Lets each `what` of a master (of a plain message: its template) pass so many
    times in a window; the next one that passes says how many did not."""

    def __init__(
        self,
        burst: int = _BURST,
        window_s: float = _WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._burst = burst
        self._window_s = window_s
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}  # the longest quiet first
        self._lock = Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record passes; marks the one that passes after others did not."""
        with self._lock:
            master = vars(record).get("fields", {}).get("master", "")
            kind = self._kind(f"{record.msg} {master}")
            now = self._clock()
            while kind.passed and now - kind.passed[0] >= self._window_s:
                kind.passed.popleft()
            if len(kind.passed) >= self._burst:
                kind.suppressed += 1
                return False
            kind.passed.append(now)
            if kind.suppressed:
                vars(record)["suppressed"] = kind.suppressed
                kind.suppressed = 0
            return True

    def _kind(self, what: str) -> "_Kind":
        kind = self._kinds.pop(what, None) or _Kind()
        self._kinds[what] = kind
        if len(self._kinds) > _MAX_KINDS:
            del self._kinds[next(iter(self._kinds))]
        return kind


@dataclass(slots=True)
class _Kind:
    """When records of one kind passed, and how many did not since."""

    passed: deque[float] = field(default_factory=deque)
    suppressed: int = 0


class _Text(logging.Formatter):
    """TIME LEVEL WHAT KEY=VALUE KEY="TWO WORDS"."""

    def format(self, record: logging.LogRecord) -> str:
        words = [*_head(record).values()]
        pairs = [f"{key}={_quoted(value)}" for key, value in _fields(record).items()]
        return " ".join([*map(_escaped, words), *pairs])


class _Json(logging.Formatter):
    """One object; its first keys are time, level and what."""

    def format(self, record: logging.LogRecord) -> str:
        head = _head(record)
        fields = {
            f"{key}_" if key in head else key: _finite(value)
            for key, value in _fields(record).items()
        }
        return json.dumps(head | fields)


def _head(record: logging.LogRecord) -> dict[str, str]:
    moment = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
    return {
        "time": f"{moment.isoformat(timespec='milliseconds')}Z",
        "level": record.levelname.lower(),
        "what": record.getMessage(),
    }


def _fields(record: logging.LogRecord) -> dict[str, _Scalar]:
    """All that is said beside the message."""
    given: Mapping[str, object] = vars(record).get("fields", {})
    found: dict[str, _Scalar] = {
        key: value if isinstance(value, _Scalar) else str(value)
        for key, value in given.items()
    }
    if "suppressed" in vars(record):
        found["suppressed"] = vars(record)["suppressed"]
    if record.exc_info:
        found["traceback"] = logging.Formatter().formatException(record.exc_info)
    if record.stack_info:
        found["stack"] = record.stack_info
    return found


def _finite(value: _Scalar) -> _Scalar:
    """JSON has no word for infinity."""
    bad = isinstance(value, float) and not math.isfinite(value)
    return str(value) if bad else value


def _quoted(value: _Scalar) -> str:
    """A value as one word."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    text = str(value)
    if text and text.isprintable() and not any(c in " \"'=\\" for c in text):
        return text
    return '"' + _escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _escaped(text: str) -> str:
    """A text without what moves a cursor, ends a line or is no character."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
