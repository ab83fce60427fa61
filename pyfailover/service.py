# SPDX-License-Identifier: GPL-2.0-or-later
"""What a service manager is told (sd_notify(3)): ready, reloading, alive.

Without one everything here does nothing. Telling it never blocks and never
fails: traffic does not depend on who listens.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Service:
    """The service manager that started this process, if one did."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        if address.startswith("@"):  # abstract
            address = "\0" + address[1:]
        self._address = address if address.startswith(("/", "\0")) else None
        self._watchdog_s = _watchdog_s(environ)

    @property
    def watchdog_s(self) -> float | None:
        """How often to call alive(): twice in the time that is allowed."""
        return self._watchdog_s

    def ready(self) -> None:
        """Say that start or reload is complete."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """Say that a reload has begun; ready() ends it."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._tell("STOPPING=1")

    def status(self, text: str) -> None:
        """Show a line in `systemctl status`."""
        self._tell(f"STATUS={' '.join(text.splitlines())}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._tell("WATCHDOG=1")

    def _tell(self, state: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
                teller.setblocking(False)
                teller.sendto(state.encode(errors="replace"), self._address)
        except OSError as exc:
            log.debug("cannot tell the service manager: %s", exc)


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # inherited: it is meant for a parent of ours
    allowed_us = environ.get("WATCHDOG_USEC", "")
    if not (allowed_us.isascii() and allowed_us.isdigit() and int(allowed_us)):
        return None
    return int(allowed_us) / 2e6
