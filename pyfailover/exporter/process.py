# SPDX-License-Identifier: GPL-2.0-or-later
"""The exporter as a process: what it opens, in which order, and when it ends."""

import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.registry import Collector

from pyfailover.confinement import become_reader
from pyfailover.exporter.families import duration, families
from pyfailover.exporter.looking import Looker
from pyfailover.exporter.serving import Server, Tls
from pyfailover.logs import event as log_event
from pyfailover.place import Roots, give, held
from pyfailover.privileges import Account, can_become_another

log = logging.getLogger(__name__)

_NICE = 0  # a controller that starts us has a better one
# A scrape makes so many objects, that live to its end: to look through them again and
# again would take as long as to make them.
_OBJECTS = 500_000


class State(Collector):
    """Looks once for each scrape."""

    def __init__(self, looker: Looker) -> None:
        self._looker = looker
        self._one_at_a_time = threading.Lock()

    def collect(self) -> Sequence[Metric]:
        """All metrics, and last what they took."""
        with self._one_at_a_time:
            start = time.monotonic()
            found = list(families(self._looker.look()))
            return [*found, duration(time.monotonic() - start)]


def export(
    roots: Roots,
    address: str,
    tls: Tls | None = None,
    *,
    who: Account | None,
    until_eof: bool = False,
) -> None:
    """Answer scrapes until SIGTERM or SIGINT.

    Args:
        who: whom to be, if we are root: as the controller; None: stay root.
        until_eof: until standard input ends, too: whoever holds its other end is
            gone then.

    Raises:
        PyFailoverError: see Server.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    gc.freeze()
    gc.set_threshold(_OBJECTS)
    registry = CollectorRegistry()
    roots, who = _reachable(roots, who)
    registry.register(State(Looker(roots)))
    ProcessCollector(registry=registry)
    with Server(address, tls, registry) as server:
        # The port is ours, the key is read, no thread runs yet: from here on nothing
        # is needed but to read pins, records and links, and to ask the controller.
        become_reader(who)
        log_event(log, logging.INFO, "exporting", address=address)
        if until_eof:
            threading.Thread(
                target=_end_with_input, args=(server,), daemon=True
            ).start()
        server.serve_forever()


def _reachable(roots: Roots, who: Account | None) -> tuple[Roots, Account | None]:
    """The directories by ways that lead there whoever we are, and whom to be: whose
    they are, if that is not root. Those that are not there yet are made."""
    if os.geteuid() != 0:  # a controller has started us, and found such ways
        return roots, None
    ways = []
    for directory in (roots.pins, roots.run):
        ways.append(directory)
        with suppress(OSError):  # there is no bpffs
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = directory.stat()
            if owner.st_uid != 0 and can_become_another():
                who = Account(owner.st_uid, owner.st_gid)
            elif who is not None:
                give(directory, who.uid, who.gid)
            ways[-1] = held(directory)[0]
    return replace(roots, pins=ways[0], run=ways[1]), who


def _end_with_input(server: Server) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    server.shutdown()
