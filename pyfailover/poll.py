# SPDX-License-Identifier: GPL-2.0-or-later
"""Asking every slave for its carrier, again and again, in a thread.

The kernel tells late of a carrier that was lost within a second of another link
event, in whatever namespace (linkwatch_urgent_event); who asks knows at once.
Asking waits for the rtnl lock, so it is not done in the event loop.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pyfailover.errors import BpfError
from pyfailover.ethtool import Ethtool
from pyfailover.keeper import Polled

# Of a CPU, at most: usually, and for a second after a link event.
_SHARE, _HOT_SHARE = 0.02, 0.1
_HOT_S = 1.0

POLL_S = 0.005

News = list[tuple[Polled, int, bool]]  # slot, and whether its slave is ready


@dataclass(slots=True)
class Poll:
    """What is asked, how often, and who is told.

    Attributes:
        polled: replaced as a whole by the event loop.
        tell: is called in the thread, with the slaves that are not as they are
            thought to be, whether each is ready, and since when we know.
        every_s: between two rounds, if that is not too dear.
    """

    tell: Callable[[News, float], object]
    every_s: float = POLL_S
    polled: Sequence[Polled] = ()
    _hot_until: float = 0.0

    def heat(self) -> None:
        """There was a link event: the next one may be told late."""
        self._hot_until = time.monotonic() + _HOT_S

    def run(self, stop: threading.Event) -> None:
        """Ask until told to stop."""
        with Ethtool() as ethtool:
            while True:
                start = time.thread_time()
                news: News = []
                for each in self.polled:
                    # The programs may be replaced, or go, this very moment.
                    with suppress(OSError, KeyError, BpfError):
                        news += ((each, *found) for found in each.news(ethtool))
                cost = time.thread_time() - start
                share = _HOT_SHARE if time.monotonic() < self._hot_until else _SHARE
                if news:
                    self.tell(news, time.monotonic())
                    self.heat()
                    share = 1.0  # what one loses others lose at the same time
                if stop.wait(max(self.every_s, cost / share)):
                    return
