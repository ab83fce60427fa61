# SPDX-License-Identifier: GPL-2.0-or-later
"""A DHCP server at the far end, and what it was asked."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pyfailover.lab import Namespace, eventually
from tests.netconf.booted import root

_LINE = re.compile(r"(\d+) DHCP(\w+)\(\S+\) (?:\S+ )?((?:[0-9a-f]{2}:){5}[0-9a-f]{2})")


@dataclass(frozen=True)
class Asked:
    """One message of a client, or the server's answer."""

    exchange: str  # a client asks again under the same number
    what: str  # DISCOVER, ACK, ...
    mac: str


class Server:
    """It runs."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._seen = 0

    def forget(self) -> None:
        """Begin anew with what was asked."""
        self._seen = len(self._all())

    def asked(self) -> list[Asked]:
        """All that was said since."""
        return self._all()[self._seen :]

    def leases(self) -> set[str]:
        """Addresses of those who got a lease, or had it prolonged."""
        return {each.mac for each in self.asked() if each.what == "ACK"}

    def unanswered(self) -> set[str]:
        """Who asked and got nothing: an answer to a slave goes to the master."""
        got = {each.exchange for each in self.asked() if each.what == "ACK"}
        wants = {each for each in self.asked() if each.what in ("DISCOVER", "REQUEST")}
        return {each.mac for each in wants if each.exchange not in got}

    def _all(self) -> list[Asked]:
        found = map(_LINE.search, self._log.read_text().splitlines())
        return [Asked(*each.groups()) for each in found if each]


@contextmanager
def server(ns: Namespace, device: str) -> Iterator[Server]:
    """A server that gives 192.0.2.100 to .200 on a device."""
    with TemporaryDirectory(prefix="pyfailover-dhcp-") as scratch:
        log = Path(scratch) / "log"
        argv = ns.argv(
            *("chroot", root(), "/usr/sbin/dnsmasq", "--keep-in-foreground"),
            *("--conf-file=/dev/null", "--port=0", "--user=root", "--pid-file="),
            *(f"--interface={device}", "--bind-interfaces", "--leasefile-ro"),
            *("--dhcp-range=192.0.2.100,192.0.2.200,1h", "--dhcp-authoritative"),
            *("--no-ping", "--log-dhcp", "--log-facility=-"),
        )
        with log.open("wb") as stream:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )
        try:
            eventually(
                lambda: "IP range" in log.read_text() or process.poll() is not None,
                timeout=30,
                what="a DHCP server",
            )
            assert process.poll() is None, log.read_text()
            yield Server(log)
        except BaseException as exc:
            exc.add_note(f"the DHCP server said:\n{log.read_text()}")
            raise
        finally:
            process.kill()
            process.wait()
