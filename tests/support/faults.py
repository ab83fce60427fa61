# SPDX-License-Identifier: GPL-2.0-or-later
"""Failures at every single step of a change: exceptions, and death by SIGKILL."""

import os
import signal
import traceback
from collections.abc import Callable

import pytest

Checkpoint = Callable[[str], None]
Action = Callable[[Checkpoint], object]


class InjectedError(Exception):
    """Raised at a checkpoint; the product knows nothing of it."""


class _Nth:
    """A checkpoint that acts when it is passed for the n-th time (0: the first)."""

    def __init__(self, position: int, act: Callable[[str], None]) -> None:
        self._left = position
        self._act = act

    def __call__(self, label: str) -> None:
        self._left -= 1
        if self._left == -1:
            self._act(label)


def labels_of(action: Action) -> list[str]:
    """The labels that are passed when nothing goes wrong."""
    seen: list[str] = []
    action(seen.append)
    return seen


def fail_at(
    position: int,
    action: Action,
    error: type[Exception] = InjectedError,
    *,
    match: str | None = None,
) -> None:
    """Do `action` with an exception at a checkpoint.

    Raises:
        AssertionError: such an exception did not come out again.
    """

    def fail(label: str) -> None:
        raise error(label)

    with pytest.raises(error, match=match):
        action(_Nth(position, fail))


def kill_at(position: int, action: Action) -> None:
    """Do `action` in a process that is killed at a checkpoint, SIGKILL.

    Raises:
        AssertionError: it ended otherwise.
    """

    def die(label: str) -> None:
        del label
        os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        # No clean-up of the parent's runs in here, whatever happens.
        try:
            action(_Nth(position, die))
        except BaseException:  # noqa: BLE001 - shown, and the exit code tells
            traceback.print_exc()
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        raise AssertionError(f"not killed at position {position}: status {status:#x}")
