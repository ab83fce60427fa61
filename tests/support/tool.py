# SPDX-License-Identifier: GPL-2.0-or-later
"""The product as tests use it: calls in a namespace, or the real command."""

import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NoReturn

import pytest

from pyfailover import cli, lifecycle, report, switching
from pyfailover.lab import Namespace
from pyfailover.mending import Outcome
from pyfailover.model import GroupSpec, Side, TcMode
from pyfailover.place import Roots
from pyfailover.report import GroupStatus
from pyfailover.transaction import Namespace as Locked
from pyfailover.transaction import locked_namespace, paths

# Each way to attach and each side, for what takes both but not all four.
WAYS = pytest.mark.parametrize(
    ("tc", "side"),
    [(TcMode.TCX, Side.STACK), (TcMode.CLSACT, Side.WIRE)],
    ids=["tcx-stack", "clsact-wire"],
)


def spec(
    name: str = "fo0",
    primary: str | None = "eth1",
    standbys: tuple[str, ...] = ("eth2",),
    **settings: Any,
) -> GroupSpec:
    """A group over the slaves of tests.support.topology.Duo.

    Args:
        settings: fields of GroupSpec that are not at their defaults.
    """
    return GroupSpec(name=name, primary=primary, standbys=standbys, **settings)


class Tool:
    """Calls in this process; `command` for the real thing."""

    def __init__(self, roots: Roots) -> None:
        self.roots = roots

    @contextmanager
    def locked(
        self, ns: Namespace, checkpoint: Callable[[str], None] = lambda _: None
    ) -> Iterator[Locked]:
        """The locked namespace, for calls of several."""
        with ns.enter(), locked_namespace(self.roots, checkpoint=checkpoint) as locked:
            yield locked

    def create(self, ns: Namespace, wanted: GroupSpec, **options: Any) -> Outcome:
        """`pyfailover create`."""
        with self.locked(ns) as locked:
            return lifecycle.create(locked, wanted, **options)

    def attach(self, ns: Namespace, wanted: GroupSpec, **options: Any) -> Outcome:
        """`pyfailover attach`."""
        with self.locked(ns) as locked:
            return lifecycle.attach(locked, wanted, **options)

    def detach(self, ns: Namespace, name: str = "fo0") -> Outcome:
        """`pyfailover detach`."""
        with self.locked(ns) as locked:
            return lifecycle.detach(locked, name)

    def destroy(self, ns: Namespace, name: str = "fo0") -> Outcome:
        """`pyfailover destroy`."""
        with self.locked(ns) as locked:
            return lifecycle.destroy(locked, name)

    def switch(
        self, ns: Namespace, slave: str, name: str = "fo0"
    ) -> switching.Change | None:
        """`pyfailover switch`."""
        with self.locked(ns) as locked:
            return switching.switch(locked, name, slave)

    def status(self, ns: Namespace, name: str = "fo0") -> GroupStatus:
        """`pyfailover status NAME`."""
        with ns.enter():
            (group,) = report.groups(self.roots, name)
        return group

    def pins(self, ns: Namespace) -> Path:
        """Where this namespace's pins are, or would be."""
        with ns.enter():
            return paths(self.roots)[0]

    def argv(self, ns: Namespace, *args: str) -> list[str]:
        """The command line of the real command, in a namespace."""
        return [
            str(Path(sys.executable).with_name("pyfailover")),
            f"--netns={ns.name}",
            f"--pin-root={self.roots.pins}",
            f"--run-root={self.roots.run}",
            f"--config-root={self.roots.etc}",
            f"--cache-root={self.roots.cache}",
            *args,
        ]

    def command(
        self, ns: Namespace, *args: str, code: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run the command; `code` is the exit code to see (None: any).

        In a fork of this process, which spares it the start of an interpreter:
        argument parsing, messages, exit codes and locking are the real ones.
        """
        return _checked(_fork(self.argv(ns, *args)), code)

    def process(
        self, ns: Namespace, *args: str, code: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        """The same by the installed script, in a process of its own."""
        done = subprocess.run(
            self.argv(ns, *args),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return _checked(done, code)


def _checked(
    done: subprocess.CompletedProcess[str], code: int | None
) -> subprocess.CompletedProcess[str]:
    assert code in (None, done.returncode), done.stdout + done.stderr
    return done


def _fork(argv: list[str]) -> subprocess.CompletedProcess[str]:
    with TemporaryFile() as out, TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            _be_command(argv, out.fileno(), err.fileno())
        _, status = os.waitpid(pid, 0)
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess(argv, os.waitstatus_to_exitcode(status), *said)


def _be_command(argv: list[str], out: int, err: int) -> NoReturn:
    """All that is left of this process; no clean-up of the tests' runs in here."""
    code = 70  # none of the command's own
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv = argv
        logging.getLogger().handlers.clear()  # pytest's
        cli.main()
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else code
    except BaseException:  # noqa: BLE001 - shown, and the exit code tells
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
