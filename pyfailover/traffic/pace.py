# SPDX-License-Identifier: GPL-2.0-or-later
"""The clockwork of a sender: when the next units (packets, bytes) are due.

Its secret is how an even rate is kept without a busy processor where sleeping
is exact enough, and how much of a delay is made up for.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_SLEEP_SLOT_S = 1e-3
_SPIN_SLOT_S = 1e-4

# A sender that was not scheduled for longer sends the rest of the arrears
# never, instead of as one burst which no queue on the way was made for.
_ARREARS_NS = 20_000_000

# The longest sleep in one piece: how late a call to stop may be heard.
_NAP_NS = 50_000_000


class Pacer:
    """Tells a sender when to send how many units."""

    def __init__(
        self,
        rate: float | None,
        *,
        most: int,
        stopped: Callable[[], bool],
        spin: bool = False,
    ) -> None:
        """Pace `rate` units a second (None: no limit), `most` of them at once."""
        if rate is not None and rate <= 0:
            raise ValueError(f"not a rate: {rate}")
        self._rate = rate
        self._stopped = stopped
        self._spin = spin
        self._slot = most
        if rate is not None:
            slot_s = _SPIN_SLOT_S if spin else _SLEEP_SLOT_S
            self._slot = max(1, min(most, round(rate * slot_s)))
        self._given = 0
        self._origin_ns = time.monotonic_ns()

    def wait(self) -> int:
        """Wait for the next slot; how many units it has, or 0 to stop."""
        if self._rate is None:
            return 0 if self._stopped() else self._slot
        due_ns = self._origin_ns + int(self._given * 1e9 / self._rate)
        while (early_ns := due_ns - time.monotonic_ns()) > 0:
            if self._stopped():
                return 0
            if not self._spin:
                time.sleep(min(early_ns, _NAP_NS) / 1e9)
        if -early_ns > _ARREARS_NS:
            self._origin_ns -= early_ns
        self._given += self._slot
        return 0 if self._stopped() else self._slot
