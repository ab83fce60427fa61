# SPDX-License-Identifier: GPL-2.0-or-later
"""The real main() of the command line, in this process."""

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pyfailover import cli

# No deadline: nothing here is judged by how long it took.
settings.register_profile("unit", max_examples=50, deadline=None)
settings.load_profile("unit")


@pytest.fixture
def bare_main(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., None]]:
    """main() over arguments, with roots of its own; what it sets is set back."""
    term = signal.getsignal(signal.SIGTERM)

    def run(*args: str) -> None:
        roots = [f"--pin-root={tmp_path / 'pins'}", f"--run-root={tmp_path / 'run'}"]
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
