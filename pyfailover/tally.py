# SPDX-License-Identifier: GPL-2.0-or-later
"""What a controller counts, since its start.

Numbers alone, by words that others chose; how they are called outside is the
exporter's. A group that is forgotten takes what is its own with it, but for
the repairs.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pyfailover.history import Event, Kind
from pyfailover.model import Decider, Reason

# Upper ends of the buckets of a duration, in seconds; beyond the last is one more.
BUCKETS = (
    *(1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0),
)

_LOSSES = (Reason.CARRIER_LOST, Reason.ADMIN_DOWN, Reason.REMOVED)
_DECIDERS = (Decider.KERNEL, Decider.CONTROLLER)


@dataclass(slots=True)
class Durations:
    """How often something took how long."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        """It took so long once more."""
        place = sum(seconds > end for end in BUCKETS)
        self.counts[place] += 1
        self.sum_s += seconds


@dataclass(slots=True)
class Tally:
    """All that is counted.

    Attributes:
        switches: by group, from, to, reason, decider.
        losses: from a loss that is known to the word in force, by decider.
        last_switch: unix seconds, by group.
        reloads: by whether they succeeded.
        reloaded_at: unix seconds of the last that did.
    """

    switches: Counter[tuple[str, str | None, str | None, str, str]] = field(
        default_factory=Counter
    )
    losses: dict[str, Durations] = field(
        default_factory=lambda: {by: Durations() for by in _DECIDERS}
    )
    last_switch: dict[str, float] = field(default_factory=dict)
    announcements: Counter[str] = field(default_factory=Counter)
    announcement_errors: int = 0
    repairs: Counter[str] = field(default_factory=Counter)
    reloads: Counter[bool] = field(default_factory=Counter)
    reload_ok: bool = True
    reloaded_at: float = 0.0

    def happened(self, event: Event) -> None:
        """Count what is told."""
        if event.kind is Kind.REPAIR:
            self.repairs[event.group] += 1
        if event.kind is not Kind.SWITCH:
            return
        key = (event.group, event.before, event.after, event.reason, event.by)
        self.switches[key] += 1
        self.last_switch[event.group] = event.time
        if event.reason in _LOSSES and event.by in self.losses:
            self.losses[event.by].add(event.took_s or 0.0)

    def announced(self, group: str, frames: int | None) -> None:
        """A group was announced by so many frames; None: it could not be."""
        self.announcements[group] += frames or 0
        self.announcement_errors += frames is None

    def reloaded(self, now: float, *, ok: bool) -> None:
        """The files were read again, or could not be."""
        self.reloads[ok] += 1
        self.loaded(now, ok=ok)

    def loaded(self, now: float, *, ok: bool) -> None:
        """The files were read, be it at the start."""
        self.reload_ok = ok
        if ok:
            self.reloaded_at = now

    def forget(self, group: str) -> None:
        """There is no such group any more."""
        for counter in (self.announcements, self.last_switch):
            counter.pop(group, None)
        for key in [key for key in self.switches if key[0] == group]:
            del self.switches[key]

    def as_data(self) -> dict[str, Any]:
        """As it goes over the control socket."""
        return {
            "switches": [[*key, count] for key, count in self.switches.items()],
            "losses": {
                by: {"counts": took.counts, "sum_s": took.sum_s}
                for by, took in self.losses.items()
            },
            "last_switch": self.last_switch,
            "announcements": self.announcements,
            "announcement_errors": self.announcement_errors,
            "repairs": self.repairs,
            "reloads": {"success": self.reloads[True], "failure": self.reloads[False]},
            "reload_ok": self.reload_ok,
            "reloaded_at": self.reloaded_at,
        }
