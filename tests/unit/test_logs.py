# SPDX-License-Identifier: GPL-2.0-or-later
"""Log lines: their shape, one for each event, and not more than are bearable."""

import json
import logging
import re
import shlex
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfailover import logs
from pyfailover.logs import RateLimit, Style, configure, event

MOMENT = 1795590091.1239  # 2026-11-25T07:01:31 UTC
LONGEST = 1024  # kinds that are remembered

Written = Callable[[Style], StringIO]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    """Configure the root logger for this test alone; gives what it writes."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])  # basicConfig would close pytest's
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr("time.time", lambda: MOMENT)

    def start(style: Style) -> StringIO:
        stream = StringIO()
        configure(style, logging.INFO, stream)
        return stream

    yield start
    for handler in root.handlers:
        handler.close()


log = logging.getLogger("pyfailover.some.where")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("eth1", "eth1"),
        (97, "97"),
        (0.25, "0.25"),
        (None, "null"),
        (True, "true"),
        (Style.JSON, "json"),
        (Path("/run/x"), "/run/x"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "x"', '"say \\"x\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("two\nlines", '"two\\nlines"'),
        ("\x1b[2J", '"\\u001b[2J"'),
        ("\u2028\x85\ud800", '"\\u2028\\u0085\\ud800"'),
        ("é🦆", "é🦆"),
        (OSError("full disk"), '"full disk"'),
    ],
)
def test_text(written: Written, value: object, text: str) -> None:
    """A text line is time, level, what, and fields that are one word each."""
    stream = written(Style.TEXT)
    event(log, logging.INFO, "switch", group="fo0", x=value)
    line = f"2026-11-25T07:01:31.123Z info switch group=fo0 x={text}\n"
    assert stream.getvalue() == line


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("two\nlines\x1b\u2028", "two\nlines\x1b\u2028"),
        (97, 97),
        (None, None),
        (True, True),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
        (Path("/run/x"), "/run/x"),
        ([1], "[1]"),
    ],
)
def test_json(written: Written, value: object, read: object) -> None:
    """A JSON line is an object that every parser takes, its fields beside it."""
    stream = written(Style.JSON)
    event(log, logging.WARNING, "switch", x=value)
    assert json.loads(stream.getvalue(), parse_constant=pytest.fail) == {
        "time": "2026-11-25T07:01:31.123Z",
        "level": "warning",
        "what": "switch",
        "x": read,
    }


def test_json_keeps_its_own_keys(written: Written) -> None:
    """A field that is called as a key of the line is neither lost nor in its place."""
    stream = written(Style.JSON)
    event(log, logging.INFO, "carrier", level=1, what=2, time=3, logger=4)
    assert list(json.loads(stream.getvalue()).items()) == [
        ("time", "2026-11-25T07:01:31.123Z"),
        ("level", "info"),
        ("what", "carrier"),
        ("level_", 1),
        ("what_", 2),
        ("time_", 3),
        ("logger", 4),
    ]


@pytest.mark.parametrize(
    ("style", "line"),
    [
        (
            Style.TEXT,
            "2026-11-25T07:01:31.123Z error cannot mend 'fo0': a\\u001bb\\n100%\n",
        ),
        (
            Style.JSON,
            '{"time": "2026-11-25T07:01:31.123Z", "level": "error", '
            '"what": "cannot mend \'fo0\': a\\u001bb\\n100%"}\n',
        ),
    ],
)
def test_plain_messages(written: Written, style: Style, line: str) -> None:
    """A plain message is the `what` of its line, whatever is in it."""
    stream = written(style)
    log.error("cannot mend '%s': %s", "fo0", "a\x1bb\n100%")
    assert stream.getvalue() == line


@pytest.mark.parametrize("style", Style)
def test_a_traceback_is_in_the_line(written: Written, style: Style) -> None:
    """An exception does not break the rule of one line, and is there in whole."""
    stream = written(style)
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        log.exception("unexpected")
    (line,) = stream.getvalue().splitlines()
    assert re.search(r"traceback.*Traceback \(most .*ValueError: first\\nsecond", line)


def test_levels(written: Written) -> None:
    """What is below the level is not written."""
    stream = written(Style.TEXT)
    event(log, logging.DEBUG, "detail")
    log.debug("detail")
    assert stream.getvalue() == ""


def test_configured_twice(written: Written) -> None:
    """A second configuration takes the first one's place."""
    first, second = written(Style.TEXT), written(Style.JSON)
    event(log, logging.INFO, "x")
    assert first.getvalue() == ""
    assert json.loads(second.getvalue())["what"] == "x"


def test_where_it_was_said(caplog: pytest.LogCaptureFixture) -> None:
    """A record names the caller's place, not that of event()."""
    event(log, logging.WARNING, "x")
    assert caplog.records[0].funcName == "test_where_it_was_said"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.text(), st.dictionaries(st.sampled_from(["a", "b", "time"]), SCALARS))
def test_always_one_line(what: str, given_fields: dict[str, Any]) -> None:
    """Whatever is said, an event is one line; as JSON it is read back."""
    record = logging.makeLogRecord(
        {"msg": what, "levelname": "INFO", "fields": given_fields}
    )
    text = logs._Text().format(record)
    assert text.isprintable()
    as_json = logs._Json().format(record)
    assert as_json.isprintable()
    assert json.loads(as_json)["what"] == what


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_a_text_line_is_split_again(value: str) -> None:
    """Quoting is such that a shell's splitter gives the value back."""
    record = logging.makeLogRecord(
        {"msg": "x", "levelname": "INFO", "fields": {"key": value, "next": 1}}
    )
    line = logs._Text().format(record)
    assert shlex.split(line)[3:] == [f"key={value}", "next=1"]


class Limited:
    """A rate limit, with a clock that the test sets."""

    def __init__(self, burst: int = 20) -> None:
        self.now = 1000.0
        self.limit = RateLimit(burst, 10.0, lambda: self.now)

    def passes(self, what: object = "x", **values: object) -> tuple[bool, int | None]:
        """Whether a record passes, and how many it says did not."""
        record = logging.makeLogRecord({"msg": what, **values})
        passed = self.limit.filter(record)
        return passed, vars(record).get("suppressed")


def test_a_burst_passes_and_no_more() -> None:
    """Twenty of a kind pass; other kinds have their own twenty."""
    limited = Limited()
    assert [limited.passes() for _ in range(20)] == [(True, None)] * 20
    assert [limited.passes() for _ in range(77)] == [(False, None)] * 77
    assert limited.passes("y") == (True, None)


def test_each_master_has_its_own() -> None:
    """In a storm one group's lines take no other's place, nor do those of none; a
    slave, or whatever else varies, has no burst of its own."""
    limited = Limited(burst=2)
    for fields in ({"master": "fo0"}, {"master": "fo1"}, {}):
        said = [limited.passes(fields={**fields, "slave": n}) for n in range(3)]
        assert said == [(True, None), (True, None), (False, None)]
    assert limited.passes("y", fields={"master": "fo0"}) == (True, None)
    limited.now += 10
    assert limited.passes(fields={"master": "fo1"}) == (True, 1)
    assert limited.passes(fields={"master": "fo2"}) == (True, None)


def test_it_opens_again_and_tells() -> None:
    """After the window the next line says how many were lost, once."""
    limited = Limited()
    for _ in range(97):
        limited.passes()
    limited.now += 9.99
    assert limited.passes() == (False, None)
    limited.now += 0.01
    assert limited.passes() == (True, 78)
    assert limited.passes() == (True, None)


def test_no_window_has_more_than_its_burst() -> None:
    """Also across the moment of opening no ten seconds have more than twenty."""
    limited = Limited()
    passed = []
    for _ in range(1000):
        if limited.passes()[0]:
            passed.append(limited.now)
        limited.now += 0.125
    for first in passed:
        assert sum(first <= other < first + 10 for other in passed) <= 20
    assert len(passed) > 200


def test_templates_are_counted_not_messages() -> None:
    """A plain message counts by its template, whatever is put into it."""
    limited = Limited(burst=1)
    assert limited.passes("no %s", args=("a",)) == (True, None)
    assert limited.passes("no %s", args=("b",)) == (False, None)
    assert limited.passes(ValueError("no a")) == (True, None)


def test_memory_is_bounded() -> None:
    """However many kinds there are, some of the last ones are kept."""
    limited = Limited(burst=1)
    limited.passes("often")
    for n in range(3 * LONGEST):
        limited.passes(f"kind {n}")
        assert limited.passes("often") == (False, None)
    assert len(limited.limit._kinds) == LONGEST
    assert limited.passes(f"kind {3 * LONGEST - 1}") == (False, None)
    assert limited.passes("kind 0") == (True, None)


def test_a_storm_is_limited_in_the_log(written: Written) -> None:
    """What configure() sets up has the limit in it."""
    stream = written(Style.TEXT)
    for n in range(97):
        event(log, logging.INFO, "carrier", n=n)
        log.info("plain %d", n)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 40
    assert lines[-1].endswith("plain 19")


def test_suppressed_is_a_field() -> None:
    """The number of lines that are missing stands in the line, in both styles."""
    record = logging.makeLogRecord({"msg": "x", "levelname": "INFO", "suppressed": 97})
    assert logs._Text().format(record).endswith(" x suppressed=97")
    assert json.loads(logs._Json().format(record))["suppressed"] == 97
