# SPDX-License-Identifier: GPL-2.0-or-later
"""The real main() of the command line, in this process; a time zone."""

import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pyfailover import cli
from pyfailover.place import Roots

# No deadline: nothing here is judged by how long it took.
settings.register_profile("unit", max_examples=50, deadline=None)
settings.load_profile("unit")


@pytest.fixture
def summer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local time that is not UTC."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def scratch(tmp_path: Path) -> Roots:
    """Where main() has its things, empty."""
    return Roots(
        pins=tmp_path / "pins",
        run=tmp_path / "run",
        etc=tmp_path / "etc",
        cache=tmp_path / "cache",
    )


@pytest.fixture
def bare_main(
    monkeypatch: pytest.MonkeyPatch, scratch: Roots
) -> Iterator[Callable[..., None]]:
    """main() over arguments, with roots of its own; what it sets is set back."""
    term = signal.getsignal(signal.SIGTERM)

    def run(*args: str) -> None:
        roots = [
            f"--pin-root={scratch.pins}",
            f"--run-root={scratch.run}",
            f"--config-root={scratch.etc}",
            f"--cache-root={scratch.cache}",
        ]
        with monkeypatch.context() as patched:
            patched.setattr(sys, "argv", ["pyfailover", *roots, *args])
            root = logging.getLogger()
            patched.setattr(root, "handlers", [])  # nor pytest's own
            patched.setattr(root, "level", root.level)
            cli.main()

    yield run
    signal.signal(signal.SIGTERM, term)


@pytest.fixture
def main(
    bare_main: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """main() that ends by exit: its code, what it printed, what it complained of."""

    def run(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            bare_main(*args)
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return run
