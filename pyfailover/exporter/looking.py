# SPDX-License-Identifier: GPL-2.0-or-later
"""One look at a namespace: maps, records, links, and what the controller says.

Its secret is what becomes of each while others are missing: programs that are
replaced, a controller that hangs or is gone. A look never fails; what cannot be
read is left out, and said once.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pyfailover import control, report
from pyfailover.errors import PyFailoverError
from pyfailover.history import History, Kind
from pyfailover.netlink.dump import dropped_on_transmit
from pyfailover.place import Roots, controller_pid
from pyfailover.report import GroupStatus, Health
from pyfailover.transaction import paths

log = logging.getLogger(__name__)

T = TypeVar("T")

_PATIENCE_S = 2.0  # with a controller that hangs
# Two moments that are no further apart are one change, told by two clocks.
_SAME_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one look has found.

    Attributes:
        controller: what it answers to `metrics`; None: there is none, or it hangs.
        controller_pid: of its process, even if that hangs.
        dropped: packets that an interface could not transmit, by ifindex.
        last_switch, degraded_since: unix seconds by group, where there is one.
    """

    groups: Sequence[GroupStatus] = ()
    waiting: Sequence[str] = ()
    controller: Mapping[str, Any] | None = None
    controller_pid: int | None = None
    dropped: Mapping[int, int] = field(default_factory=dict)
    last_switch: Mapping[str, float] = field(default_factory=dict)
    degraded_since: Mapping[str, float] = field(default_factory=dict)
    readable: bool = True  # the records and maps


class Looker:
    """Looks, and remembers what a controller that is gone has told."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._said: dict[str, str] = {}  # what failed, and how
        self._past: tuple[float, ...] | None = None  # of the history: which was read
        self._switched: dict[str, float] = {}
        self._degraded: dict[str, float] = {}

    def look(self) -> Seen:
        """See what there is."""
        run = self._try("paths", lambda: paths(self._roots)[1])
        if run is None:
            return Seen(readable=False)
        controller = self._try("controller", lambda: _ask(run))
        groups = self._try(
            "groups", lambda: report.groups(self._roots, None, controller)
        )
        if controller is None:
            self._try("history", lambda: self._recall(run))
        found = groups or []
        self._follow(found, controller)
        return Seen(
            groups=found,
            waiting=list(report.waiting(found, controller)),
            controller=controller,
            controller_pid=controller["pid"] if controller else controller_pid(run),
            dropped=self._try("links", dropped_on_transmit) or {},
            last_switch=self._switched,
            degraded_since=self._degraded,
            readable=groups is not None,
        )

    def _try(self, what: str, do: Callable[[], T]) -> T | None:
        """Have something done; None if it fails, which is said once."""
        try:
            done = do()
        except (PyFailoverError, OSError) as exc:
            if self._said.get(what) != str(exc):
                self._said[what] = str(exc)
                log.warning("%s", exc)
            return None
        self._said.pop(what, None)
        return done

    def _recall(self, run: Path) -> None:
        """Take from the history what no controller says, if it is another now."""
        files = [run / "events.jsonl", run / "events.jsonl.1"]
        now = tuple(f.stat().st_mtime for f in files if f.exists())
        if now == self._past:
            return
        self._past = now
        history = History(run)
        for event in history.read():
            if event.kind is Kind.SWITCH:
                self._switch(event.group, event.time)
        for name, since in history.degraded().items():
            self._degraded.setdefault(name, since)

    def _follow(
        self, groups: Sequence[GroupStatus], controller: Mapping[str, Any] | None
    ) -> None:
        """Have the moments of these groups, and of no others."""
        told = controller["tally"]["last_switch"] if controller else {}
        for group in groups:
            self._switch(group.name, told.get(group.name) or group.stepped_at or 0.0)
            if group.degraded_since is not None:
                self._degraded[group.name] = group.degraded_since
            elif controller is not None or group.health is Health.OK:
                self._degraded.pop(group.name, None)
            elif group.health is not Health.IDLE:
                self._degraded.setdefault(group.name, time.time())
        names = {group.name for group in groups}
        for known in (self._switched, self._degraded):
            for name in known.keys() - names:
                del known[name]

    def _switch(self, name: str, moment: float) -> None:
        if moment > self._switched.get(name, 0.0) + _SAME_S:
            self._switched[name] = moment


def _ask(run: Path) -> dict[str, Any] | None:
    return control.ask(run, "metrics", timeout_s=_PATIENCE_S)
