# SPDX-License-Identifier: GPL-2.0-or-later
"""The real controller, `pyfailover run`, in a process of its own."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pyfailover import asking
from pyfailover.history import Event, History, Kind
from pyfailover.lab import Namespace, eventually
from pyfailover.model import GroupSpec
from pyfailover.traffic import UdpStream
from pyfailover.transaction import paths
from tests.support.streams import deliver, exchange
from tests.support.tool import Tool
from tests.support.topology import Duo

_START_S = 30.0  # the first one of a namespace may have programs compiled
_END_S = 20.0
_REACT_S = 20.0

USER = 64023  # nobody's: what a controller may do is not root's to do

RARELY = 60.0  # reconcile: only events and the poll tell of anything


class Daemon:
    """A controller that runs, or did."""

    def __init__(
        self,
        tool: Tool,
        ns: Namespace,
        process: subprocess.Popen[bytes],
        log: Path,
    ) -> None:
        self._tool = tool
        self._ns = ns
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def stop(self) -> int:
        """End it as a service manager does; its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a chance to do anything."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        self._process.send_signal(number)
        self._process.send_signal(signal.SIGCONT)  # a test may have stopped it
        return self._process.wait(_END_S)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def log(self) -> str:
        """What it said so far."""
        return self._log.read_text()

    def events(self, kind: Kind | None = None) -> list[Event]:
        """What it wrote down so far, and those before it; oldest first."""
        with self._ns.enter():
            found = History(paths(self._tool.roots)[1]).read()
        return [event for event in found if kind in (None, event.kind)]

    def switches(self) -> list[tuple[str | None, str | None, str]]:
        """From, to and reason of each change of an active slave."""
        return [(e.before, e.after, e.reason) for e in self.events(Kind.SWITCH)]

    def status(self) -> dict[str, Any]:
        """What it answers on its socket."""
        with self._ns.enter():
            found = asking.status(self._tool.roots)
        assert found is not None, self.log()
        return found

    def group(self, name: str = "fo0") -> dict[str, Any]:
        """What it answers of one group."""
        found: dict[str, Any] = self.status()["groups"][name]
        return found


@contextmanager
def controller(
    tool: Tool, ns: Namespace, *args: str, reconcile: float = 0.5
) -> Iterator[Daemon]:
    """A controller that is ready; killed at the end if it still runs.

    What it said is a note on whatever fails meanwhile.
    """
    with TemporaryDirectory(prefix="pyfailover-log-") as scratch:
        log = Path(scratch) / "log"
        argv = tool.argv(ns, "run", f"--user={USER}", f"--reconcile={reconcile}", *args)
        with log.open("wb") as stream:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=stream)
        daemon = Daemon(tool, ns, process, log)
        try:
            eventually(
                lambda: " ready " in daemon.log() or not daemon.running,
                timeout=_START_S,
                what="a controller that is ready",
            )
            assert daemon.running, f"ended with {process.returncode}"
            yield daemon
        except BaseException as exc:
            exc.add_note(f"the controller said:\n{daemon.log()}")
            raise
        finally:
            if daemon.running:
                daemon.kill()


@dataclass(frozen=True)
class Run:
    """A group that a controller keeps, and traffic over it."""

    pair: Duo
    tool: Tool
    daemon: Daemon
    streams: list[UdpStream]

    def command(self, *args: str) -> str:
        """What a command says on its standard output; it must succeed."""
        return self.tool.command(self.pair.host, *args).stdout

    def flow(self, more: int = 199) -> None:
        """See that every stream goes on."""
        deliver(*self.streams, more=more)

    def carries(self, slave: str | None) -> None:
        """Wait until a slave carries the traffic; if one does, that it arrives."""
        self.wait(lambda: self.tool.status(self.pair.host).active == slave, slave)
        if slave is not None:
            self.flow()

    def verdict(self, slot: int, wanted: str) -> None:
        """Wait until the controller's opinion of a slave is this one."""

        def found() -> bool:
            slaves = self.daemon.group()["slaves"]
            return bool(slaves[slot]["verdict"] == wanted)

        self.wait(found, f"slot {slot} that is '{wanted}'")

    def wait(self, cond: Callable[[], bool], what: object) -> None:
        """Wait for something that the controller is to do."""
        eventually(cond, timeout=_REACT_S, what=f"{what}")


@contextmanager
def under_traffic(
    pair: Duo,
    tool: Tool,
    wanted: GroupSpec,
    *,
    rate: float = 2_000,
    reconcile: float = RARELY,
) -> Iterator[Run]:
    """A group with a master of ours, a controller, and four streams over it.

    Args:
        reconcile: so rare that a test ends before the first, unless asked for.
    """
    tool.create(pair.host, wanted)
    pair.address()
    pair.settle()
    with (
        controller(tool, pair.host, reconcile=reconcile) as daemon,
        exchange(pair.host, pair.far, rate=rate) as streams,
    ):
        yield Run(pair, tool, daemon, streams)
