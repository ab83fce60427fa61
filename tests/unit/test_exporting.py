# SPDX-License-Identifier: GPL-2.0-or-later
"""The child of a controller: how it is started, again and again, and how it ends.

The children are real processes, of a line of Python.
"""

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pyfailover import exporting
from pyfailover.exporting import command, keep_exporting
from pyfailover.lab import eventually
from pyfailover.place import Roots

_PATIENCE_S = 20.0
# Says that it is there, and ends with its standard input.
GOOD = "import sys; open(sys.argv[1], 'a').write('x'); sys.stdin.read()"
# The same, and does not end.
STUBBORN = f"{GOOD}; import time; time.sleep(97)"
# The same, and ends at once.
BAD = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(7)"


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where children say that they are there; nobody waits long for them."""
    monkeypatch.setattr(exporting, "_PAUSE_S", 0.001)
    monkeypatch.setattr(exporting, "_PAUSE_MAX_S", 0.004)
    path = tmp_path / "mark"
    path.touch()
    return path


async def until(done: Callable[[], bool]) -> None:
    """Wait for something."""
    await asyncio.to_thread(eventually, done, timeout=_PATIENCE_S, what="children")


def follow(program: str, mark: Path, starts: int) -> None:
    """Keep a child until so many were started; then no more."""

    async def act() -> None:
        argv = [sys.executable, "-c", program, str(mark)]
        kept = asyncio.create_task(keep_exporting(argv, ()))
        await until(lambda: len(mark.read_text()) >= starts)
        kept.cancel()
        await asyncio.wait([kept], timeout=_PATIENCE_S)
        assert kept.cancelled()

    asyncio.run(act())


def test_command() -> None:
    """It has the roots of the controller, and is in its namespace already."""
    roots = Roots(pins=Path("/p"), run=Path("/r"), etc=Path("/e"), cache=Path("/c"))
    assert command(roots, ["--listen=x:97"]) == [
        *(sys.executable, "-P", "-m", "pyfailover"),
        *("--pin-root=/p", "--run-root=/r", "--config-root=/e", "--cache-root=/c"),
        *("export", "--until-eof", "--listen=x:97"),
    ]


def test_it_is_started_again(mark: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each end is told, with a pause that doubles up to a limit."""
    follow(BAD, mark, 5)
    said = [entry.__dict__ for entry in caplog.records]
    assert {entry["levelno"] for entry in said} == {logging.ERROR}
    pauses = [pause_of(entry) for entry in said[:4]]
    assert pauses == ["0.001", "0.002", "0.004", "0.004"]
    assert all("code=7" in text_of(entry) for entry in said)


def text_of(entry: dict[str, Any]) -> str:
    """What a line of the log has."""
    fields = entry.get("fields") or {}
    return " ".join([str(entry["msg"]), *(f"{k}={v}" for k, v in fields.items())])


def pause_of(entry: dict[str, Any]) -> str:
    """The time that it says to wait."""
    return text_of(entry).rpartition("again_in_s=")[2]


def test_one_that_ran_well(
    mark: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After one that ran for long the pause is the shortest again."""
    monkeypatch.setattr(exporting, "_WELL_S", 0.0)
    follow(BAD, mark, 4)
    assert {pause_of(entry.__dict__) for entry in caplog.records} == {"0.001"}


def test_it_ends_with_its_input(mark: Path) -> None:
    """When the controller ends the child is told to, and started no more."""
    follow(GOOD, mark, 1)
    assert mark.read_text() == "x"


def test_one_that_does_not_end(mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed."""
    monkeypatch.setattr(exporting, "_END_WITHIN_S", 0.05)
    follow(STUBBORN, mark, 1)


def test_one_that_cannot_be_started(
    mark: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The controller goes on, and tries again."""
    tries = []

    async def fail(*argv: str, **_: object) -> NoReturn:
        tries.append(argv)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fail)

    async def act() -> None:
        kept = asyncio.create_task(keep_exporting(["x"], ()))
        await until(lambda: len(tries) > 2)
        kept.cancel()
        await asyncio.wait([kept])

    asyncio.run(act())
    assert "Resource temporarily unavailable" in text_of(caplog.records[0].__dict__)


def test_no_namespace_is_entered(mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that names one is not handed on."""
    monkeypatch.setenv("PYFAILOVER_NETNS", "lab")
    monkeypatch.setenv("PYFAILOVER_DEBUG", "1")
    look = "import os; names = [n[11:] for n in os.environ if n[:11] == 'PYFAILOVER_']"
    follow(f"{look}; import sys; open(sys.argv[1], 'a').write(*names)", mark, 5)
    assert mark.read_text().startswith("DEBUG")
