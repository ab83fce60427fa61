# SPDX-License-Identifier: GPL-2.0-or-later
"""The product as tests use it: calls in a namespace, or the real command."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyfailover import lifecycle, report, switching
from pyfailover.lab import Namespace
from pyfailover.lifecycle import Outcome
from pyfailover.model import GroupSpec, MacPolicy, RxMode, Side, TcMode
from pyfailover.place import Roots
from pyfailover.report import GroupStatus
from pyfailover.transaction import Namespace as Locked
from pyfailover.transaction import locked_namespace, paths


def spec(
    name: str = "fo0",
    primary: str | None = "eth1",
    standbys: tuple[str, ...] = ("eth2",),
    *,
    side: Side = Side.STACK,
    mac: MacPolicy = MacPolicy.MATCH,
    tc: TcMode = TcMode.AUTO,
    rx: RxMode = RxMode.ACTIVE,
    rx_grace_ms: int = 100,
    bypass_filters: bool = False,
) -> GroupSpec:
    """A group over the slaves of tests.support.topology.Duo."""
    return GroupSpec(
        name=name,
        primary=primary,
        standbys=standbys,
        side=side,
        mac=mac,
        tc=tc,
        rx=rx,
        rx_grace_ms=rx_grace_ms,
        bypass_filters=bypass_filters,
    )


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
    ) -> switching.Switch | None:
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
            *args,
        ]

    def command(
        self, ns: Namespace, *args: str, code: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run the real command; `code` is the exit code to see (None: any)."""
        done = subprocess.run(
            self.argv(ns, *args),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert code in (None, done.returncode), done.stdout + done.stderr
        return done
