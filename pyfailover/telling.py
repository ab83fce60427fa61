# SPDX-License-Identifier: GPL-2.0-or-later
"""What a controller tells of its groups: to the log, to the history, to watchers.

Told after everything that is due at this moment was done: in a storm the words
of all groups come first.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyfailover.history import Event, History, Kind, to_data
from pyfailover.logs import event as log_event
from pyfailover.model import Decider
from pyfailover.tally import Tally

log = logging.getLogger("pyfailover")

_AT_ONCE = 8  # events taken down: half a millisecond
_WATCHED_MAX = 1000  # events that a watcher may be behind
_FAULTS = (Kind.DEGRADED, Kind.DAMPED, Kind.LEAVE, Kind.REPAIR)

Later = Callable[[Callable[[], None]], object]


class Teller:
    """Takes events down and passes them on.

    Args:
        later: has a function called when nothing is left to do this moment.
    """

    def __init__(self, run: Path, later: Later) -> None:
        self._history = History(run)
        self._later = later
        self.tally = Tally()
        self._pending: list[Event] = []
        self._watchers: set[asyncio.Queue[dict[str, Any]]] = set()
        self._degraded: dict[str, float] = {}  # since, unix seconds, by group
        self._inherited = self._history.degraded()  # of the controller before

    def tell(self, event: Event) -> None:
        """Something happened."""
        self.tally.happened(event)
        if not self._pending:
            self._later(self._flush)
        self._pending.append(event)

    def note(
        self,
        group: str,
        kind: Kind,
        *,
        after: str | None = None,
        by: Decider = Decider.CONTROLLER,
        detail: str = "",
    ) -> None:
        """Something happened that is no change of the active slave."""
        self.tell(
            Event(
                time=time.time(),
                group=group,
                kind=kind,
                before=None,
                after=after,
                reason=kind,
                by=by,
                took_s=None,
                generation=None,
                detail=detail,
            )
        )

    # --- redundancy -------------------------------------------------------

    def degraded_since(self, group: str) -> float | None:
        """When a group lost its redundancy, in unix seconds; None: it is whole."""
        return self._degraded.get(group)

    def take_up(self, group: str) -> None:
        """Go on with a group where the controller before stopped."""
        if group in self._inherited:
            self._degraded[group] = self._inherited.pop(group)

    def redundancy(self, group: str, usable: int, slaves: int) -> None:
        """How many slaves of a group could carry traffic; a change is told."""
        detail = f"{usable} of {slaves} usable"
        if usable < slaves and group not in self._degraded:
            self._degraded[group] = time.time()
            self.note(group, Kind.DEGRADED, detail=detail)
        elif usable == slaves and self._degraded.pop(group, None) is not None:
            self.note(group, Kind.WHOLE, detail=detail)

    def forget(self, group: str) -> None:
        """A group is detached."""
        self._degraded.pop(group, None)
        self.tally.forget(group)

    # --- watchers ---------------------------------------------------------

    @contextmanager
    def watching(self) -> Iterator[asyncio.Queue[dict[str, Any]]]:
        """A queue of all events from now on; one that is not emptied loses the
        latest."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_WATCHED_MAX)
        self._watchers.add(queue)
        try:
            yield queue
        finally:
            self._watchers.discard(queue)

    def _flush(self) -> None:
        """A few at a time: words and announcements that come due go first."""
        some, self._pending = self._pending[:_AT_ONCE], self._pending[_AT_ONCE:]
        self._history.append(*some)
        for event in some:
            _log(event)
            for queue in self._watchers:
                if not queue.full():
                    queue.put_nowait(to_data(event))
        if self._pending:
            self._later(self._flush)


def _log(event: Event) -> None:
    fields: dict[str, object] = {"master": event.group}
    if event.kind is Kind.SWITCH:
        fields |= {
            "from": event.before or "-",
            "to": event.after or "-",
            "reason": event.reason,
            "by": event.by,
            "generation": event.generation,
        }
        if event.took_s is not None:
            fields["took_ms"] = round(event.took_s * 1e3, 3)
    elif event.after is not None:
        fields["slave"] = event.after
    if event.detail:
        fields["detail"] = event.detail
    lost = event.kind is Kind.SWITCH and event.after is None
    level = logging.WARNING if lost or event.kind in _FAULTS else logging.INFO
    log_event(log, level, event.kind, **fields)
