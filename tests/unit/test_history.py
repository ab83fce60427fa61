# SPDX-License-Identifier: GPL-2.0-or-later
"""Events on disk: what was appended is read, by whomever, whatever happened."""

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfailover.errors import PyFailoverError, StateError
from pyfailover.history import Event, History, Kind, from_data, table, to_data

SWITCH = Event(
    time=1795590091.123,
    group="fo0",
    kind=Kind.SWITCH,
    before="eth1",
    after="eth2",
    reason="carrier_lost",
    by="controller",
    took_s=0.0003,
    generation=97,
)
MOMENTS = st.floats(0, 2.5e11)
EVENTS = st.builds(
    Event,
    time=MOMENTS | st.integers(0, 2**32),
    group=st.text(),
    kind=st.sampled_from(Kind),
    before=st.none() | st.text(),
    after=st.none() | st.text(),
    reason=st.text(),
    by=st.text(),
    took_s=st.none() | MOMENTS,
    generation=st.none() | st.integers(0, 2**32 - 1),
    detail=st.text(),
)


def numbered(n: int, **changes: Any) -> Event:
    """An event that is told from others by its generation."""
    return replace(SWITCH, generation=n, **changes)


LINE = len(json.dumps(to_data(numbered(0)))) + 1  # bytes of one with one digit


def files(run: Path) -> dict[str, int]:
    """Sizes of all that is in a directory."""
    return {path.name: path.stat().st_size for path in sorted(run.iterdir())}


@given(st.lists(EVENTS, max_size=5))
def test_round_trip(events: list[Event]) -> None:
    """Whatever was appended is read in its order, also by another process's object."""
    with TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        for event in events:
            History(run).append(event)
        assert History(run).read() == events


@given(EVENTS)
def test_event_through_json(event: Event) -> None:
    """An event is the same after a way through JSON, its kind too."""
    back = from_data(json.loads(json.dumps(to_data(event))))
    assert back == event
    assert type(back.kind) is Kind


WRONG: dict[str, list[Any]] = {
    "time": [None, "1", True, -1, 1e12, float("nan"), 10**400],
    "kind": [None, "SWITCH", "explosion", [], {}],
    "group reason by detail": [None, 1],
    "before after": [1, [], False],
    "took_s": ["1", True, float("inf")],
    "generation": ["1", 1.0, True],
}
NOT_EVENTS = [
    {name: bad}
    for names, values in WRONG.items()
    for name in names.split()
    for bad in values
]


@pytest.mark.parametrize("wrong", NOT_EVENTS, ids=str)
def test_wrong_value(wrong: dict[str, Any]) -> None:
    """A value of a wrong type or out of its range is named."""
    (name,) = wrong
    with pytest.raises(StateError, match=f"cannot read an event: its {name} is"):
        from_data({**to_data(SWITCH), **wrong})


@pytest.mark.parametrize("name", [*to_data(SWITCH)])
def test_missing_value(name: str) -> None:
    """All values must be there but the detail; unknown ones are of a later version."""
    data = {key: value for key, value in to_data(SWITCH).items() if key != name}
    data["colour"] = "blue"
    if name == "detail":
        assert from_data(data) == SWITCH
        return
    with pytest.raises(StateError, match=f"cannot read an event: it has no {name}"):
        from_data(data)


def test_nothing_yet(tmp_path: Path) -> None:
    """Where nothing happened there is nothing, and reading makes nothing."""
    history = History(tmp_path / "never")
    assert history.read() == []
    assert history.degraded() == {}
    assert not (tmp_path / "never").exists()


def test_private(tmp_path: Path) -> None:
    """Only root reads the story, whatever the umask."""
    old = os.umask(0)
    try:
        History(tmp_path / "run").append(SWITCH)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    mode = (tmp_path / "run" / "events.jsonl").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


@pytest.mark.parametrize(
    ("group", "last", "found"),
    [
        (None, None, [0, 1, 2, 3, 4]),
        (None, 2, [3, 4]),
        (None, 0, []),
        (None, 97, [0, 1, 2, 3, 4]),
        ("fo0", None, [0, 2, 4]),
        ("fo1", 1, [3]),
        ("fo2", None, []),
    ],
)
def test_choice(
    tmp_path: Path, group: str | None, last: int | None, found: list[int]
) -> None:
    """Events of one group are read, and of those the last so many."""
    history = History(tmp_path)
    for n in range(5):
        history.append(numbered(n, group=f"fo{n % 2}"))
    assert [event.generation for event in history.read(group, last)] == found


@pytest.mark.parametrize(
    ("story", "since"),
    [
        ([], None),
        ([Kind.DEGRADED], 0),
        ([Kind.DEGRADED, Kind.WHOLE], None),
        ([Kind.DEGRADED, Kind.SWITCH, Kind.LEAVE], 0),
        ([Kind.DEGRADED, Kind.WHOLE, Kind.DEGRADED, Kind.JOIN], 2),
        ([Kind.DEGRADED, Kind.DEGRADED], 1),
        ([Kind.WHOLE, Kind.SWITCH], None),
    ],
)
def test_degraded_since(tmp_path: Path, story: list[Kind], since: int | None) -> None:
    """A group is degraded since the last event that says so, until it is whole."""
    history = History(tmp_path)
    for n, kind in enumerate(story):
        history.append(numbered(n, kind=kind, time=n))
        other = Kind.WHOLE if kind is Kind.DEGRADED else Kind.DEGRADED
        history.append(numbered(n, kind=other, time=97, group="fo1"))
    assert history.degraded().get("fo0") == since


def test_rotation(tmp_path: Path) -> None:
    """A full file becomes the older one; the two never hold more than twice as much."""
    limit = 2000
    history = History(tmp_path, limit)
    for n in range(97):
        history.append(numbered(n))
        assert all(size <= limit for size in files(tmp_path).values())
        found = [event.generation for event in history.read()]
        assert found == list(range(n + 1))[-len(found) :]
    assert files(tmp_path).keys() == {"events.jsonl", "events.jsonl.1"}
    assert len(found) > limit // (LINE + 1)
    assert all(b"\n\n" not in b"\n" + path.read_bytes() for path in tmp_path.iterdir())


def test_an_event_larger_than_a_file(tmp_path: Path) -> None:
    """What is larger than the limit is written all the same, and alone."""
    history = History(tmp_path, 100)
    for n in range(3):
        history.append(numbered(n, detail="x" * 200))
        assert history.read()[-1].generation == n
    assert [event.generation for event in history.read()] == [1, 2]


BROKEN: dict[str, bytes] = {
    "cut short": json.dumps(to_data(SWITCH)).encode()[:-9],
    "no JSON": b"pyfailover",
    "a list": b"[]",
    "another object": b"{}",
    "no text": b"\xff\xfe\0",
    "deep": b"[" * 100_000,
    "a number too long": b'{"time": ' + b"9" * 10_000 + b"}",
    "of a later version": json.dumps({**to_data(SWITCH), "kind": "x"}).encode(),
    "empty": b"",
}


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["torn", "whole line"])
@pytest.mark.parametrize("line", BROKEN.values(), ids=BROKEN)
def test_broken_line(tmp_path: Path, line: bytes, end: bytes) -> None:
    """A line that is no event costs no other one, before it or after it."""
    history = History(tmp_path)
    history.append(numbered(1))
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(line + end)
    assert history.read() == [numbered(1)]
    history.append(numbered(2))
    assert history.read() == [numbered(1), numbered(2)]


@pytest.mark.parametrize("room", [0, 9], ids=["nothing fits", "half a line fits"])
def test_full_disk(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    room: int,
) -> None:
    """A full disk stops nobody and is said once, and again if it is full again."""
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data[:room])

    history = History(tmp_path)
    for n in (0, 10):
        history.append(numbered(n))
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            history.append(numbered(n + 1))
            history.append(numbered(n + 2))
        history.append(numbered(n + 3))
    path = tmp_path / "events.jsonl"
    said = f"cannot write '{path}': No space left on device"
    assert caplog.messages == [said] * 2
    assert [event.generation for event in history.read()] == [0, 3, 10, 13]


@pytest.mark.parametrize("kind", ["directory", "symlink"])
def test_something_else_in_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """What is not a file of ours is not written through."""
    path, other = tmp_path / "events.jsonl", tmp_path / "other"
    other.touch()
    if kind == "symlink":
        path.symlink_to(other)
    else:
        path.mkdir()
    History(tmp_path).append(SWITCH)
    assert caplog.messages[0].startswith(f"cannot write '{path}': ")
    assert other.read_bytes() == b""


def test_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may not read it is told to be root."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PyFailoverError, match=r"cannot read .*Permission") as refused:
        History(tmp_path).read()
    assert refused.value.hint == "run as root"


def test_found_full_by_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes that find a file full one makes it the older, and the fresh
    one that it leaves is not lost to the other's rename."""
    slow, quick = History(tmp_path, 4 * LINE), History(tmp_path, 4 * LINE)
    for n in range(4):
        slow.append(numbered(n))
    assert files(tmp_path).keys() == {"events.jsonl"}
    opened = slow._open

    def overtaken() -> int:
        fd = opened()
        monkeypatch.setattr(slow, "_open", opened)
        quick.append(numbered(4))
        return fd

    monkeypatch.setattr(slow, "_open", overtaken)
    slow.append(numbered(5))
    assert files(tmp_path).keys() == {"events.jsonl", "events.jsonl.1"}
    assert [event.generation for event in slow.read()] == [0, 1, 2, 3, 4, 5]


def test_another_is_rotating(tmp_path: Path) -> None:
    """Who finds another at it does not wait, and writes what it has to write."""
    history = History(tmp_path, LINE)
    history.append(numbered(0))
    with (tmp_path / "events.jsonl").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        history.append(numbered(1))
    assert files(tmp_path).keys() == {"events.jsonl"}
    history.append(numbered(2))
    assert files(tmp_path).keys() == {"events.jsonl", "events.jsonl.1"}
    assert [event.generation for event in history.read()] == [0, 1, 2]


def test_rotated_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader misses nothing and sees nothing twice if the files change meanwhile."""
    history = History(tmp_path)
    history.append(numbered(0))
    young, older = tmp_path / "events.jsonl", tmp_path / "events.jsonl.1"
    real = Path.open

    def overtaken(path: Path, mode: str) -> Any:
        if path == older and not older.exists():
            young.rename(older)
            history.append(numbered(1))
        return real(path, mode)

    monkeypatch.setattr(Path, "open", overtaken)
    assert history.read() == [numbered(0), numbered(1)]


WRITER = """
import sys
from pathlib import Path
from pyfailover.history import Event, History, Kind

run, group, limit = sys.argv[1:]
history = History(Path(run), int(limit))
sys.stdin.readline()
for n in range(500):
    history.append(Event(time=n, group=group, kind=Kind.CARRIER, before=None,
        after=None, reason="x" * (n % 97), by="", took_s=None, generation=n))
"""


def write_together(run: Path, limit: int) -> None:
    """Have two processes append 500 events each at the same time."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(run), group, str(limit)],
            stdin=subprocess.PIPE,
        )
        for group in ("fo0", "fo1")
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0


def test_two_processes(tmp_path: Path) -> None:
    """Two processes that append at once lose and mingle nothing."""
    write_together(tmp_path, 1 << 20)
    history = History(tmp_path)
    for group in ("fo0", "fo1"):
        found = [event.generation for event in history.read(group)]
        assert found == list(range(500))
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines()
    assert len([line for line in lines if line]) == 1000


def test_two_processes_rotate(tmp_path: Path) -> None:
    """Two processes that rotate under each other never throw a fresh file away."""
    limit = 5000
    write_together(tmp_path, limit)
    assert files(tmp_path)["events.jsonl.1"] > limit - 300
    history = History(tmp_path)
    lines = b"".join(path.read_bytes() for path in tmp_path.iterdir()).splitlines()
    assert len(history.read()) == len([line for line in lines if line])
    assert history.read()[-1].generation == 499
    for group in ("fo0", "fo1"):
        found = [event.generation or 0 for event in history.read(group)]
        assert found == sorted(set(found))


TABLE = """\
TIME                    MASTER WHAT   FROM TO   REASON       BY         TOOK
2026-11-25T08:01:31.123 fo0    switch eth1 eth2 carrier_lost controller 0.3 ms
2026-07-14T05:33:20.000 fo0    switch -    eth2 carrier_lost kernel     12.3 s
2026-11-25T08:01:31.123 fo0    switch eth1 eth2 -            controller -"""


@pytest.mark.usefixtures("summer")
def test_table() -> None:
    """Events are a line each, in local time, their columns as wide as they must be."""
    july = numbered(98, time=1784000000.0005, before=None, took_s=12.34, by="kernel")
    events = [SWITCH, july, replace(SWITCH, took_s=None, reason="")]
    assert "\n".join(table(events)) == TABLE


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.SWITCH])
def test_table_of_other_events(kind: Kind) -> None:
    """What is no switch has its detail for a reason: that it is of its kind is said."""
    event = replace(SWITCH, kind=kind, reason=kind, detail="1 of 2 usable", took_s=None)
    _, told, bare = table([event, replace(event, detail="")])
    assert told.split()[2:] == f"{kind} eth1 eth2 1 of 2 usable controller -".split()
    assert bare.split()[-3:] == ["-", "controller", "-"]


def test_table_of_nothing() -> None:
    """Without events there is the heading alone."""
    assert list(table([])) == ["TIME MASTER WHAT FROM TO REASON BY TOOK"]


def test_table_is_narrow() -> None:
    """With everyday names and the longest words no line has more than 80 columns."""
    event = replace(SWITCH, took_s=0.9994)
    assert max(map(len, table([event, event]))) == 80


@given(st.lists(EVENTS, max_size=5))
def test_a_line_for_each(events: list[Event]) -> None:
    """Whatever is in the names, an event is one line, harmless to a terminal."""
    lines = list(table(events))
    assert len(lines) == 1 + len(events)
    assert all(line.isprintable() for line in lines)
