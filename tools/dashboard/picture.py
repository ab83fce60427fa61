# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes docs/dashboard.png: hosts whose slaves fail, a Prometheus, a browser.

Usage: python -m tools.dashboard.picture BUILT PICTURE [MINUTES]

BUILT is where npm and vite have been, see the Makefile. Everything else is made in
network namespaces and gone afterwards.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from pyfailover.lab import Lab, Namespace, eventually, scratch_roots
from pyfailover.model import MacPolicy
from tests.support.daemon import controller
from tests.support.dashboard import PATH as DASHBOARD
from tests.support.prometheus import exporter, prometheus
from tests.support.streams import exchange
from tests.support.tool import Tool, spec
from tests.support.topology import duo

_SIZE = ("1600", "1900")
_PAGE = "127.0.0.1:19200"
_PORT = 9909
_START_S = 30.0


class Host:
    """A group under traffic, a second one without, a controller, an exporter."""

    def __init__(
        self, lab: Lab, stack: ExitStack, monitor: Namespace, number: int
    ) -> None:
        self.name = f"host{number}"
        self.exporter = f"198.51.100.{number}:{_PORT}"
        self.pair = duo(lab, slaves=4, equal_macs=False)
        self._ns = self.pair.host
        self._stack = stack
        self._tool = Tool(stack.enter_context(scratch_roots()))
        lab.veth(self._ns, "mgmt0", monitor, self.name)
        monitor.ip(f"link set {self.name} master lan")
        lab.address(self._ns, "mgmt0", f"198.51.100.{number}/24")
        self._tool.create(self._ns, spec(mac=MacPolicy.CLONE))
        self._tool.create(self._ns, spec("fo1", "eth3", ("eth4",), mac=MacPolicy.CLONE))
        self.pair.address()
        self.pair.settle()
        self.start()
        stack.enter_context(exchange(self._ns, self.pair.far, rate=150.0 * number))
        stack.enter_context(exporter(self._tool, self._ns, self.exporter))

    def start(self) -> None:
        """Run a controller."""
        self._daemon = self._stack.enter_context(controller(self._tool, self._ns))

    def stop(self) -> None:
        """End it."""
        self._daemon.stop()

    def switch(self, group: str, slave: str) -> None:
        """As an operator does."""
        self._tool.command(self._ns, "switch", group, slave)


def play(one: Host, two: Host, three: Host, *, seconds: float) -> None:
    """What happens, spread evenly; at the end two groups are in a bad way."""
    acts: tuple[Callable[[], None], ...] = (
        lambda: one.pair.cut(1),
        lambda: two.switch("fo1", "eth4"),
        lambda: one.pair.mend(1),
        lambda: three.pair.unplug(1),
        lambda: two.pair.cut(1),
        lambda: three.pair.plug(1),
        lambda: two.switch("fo1", "auto"),
        lambda: two.pair.mend(1),
        lambda: one.stop(),
        lambda: one.pair.cut(1),
        lambda: two.pair.cut(2),
        lambda: one.start(),
        lambda: three.pair.cut(3),
        lambda: three.pair.cut(4),
        lambda: one.pair.mend(1),
        lambda: two.pair.mend(2),
        lambda: three.pair.mend(4),
        lambda: three.pair.cut(4),
        lambda: one.pair.cut(3),
    )
    for act in acts:
        time.sleep(seconds / (len(acts) + 1))
        act()
    time.sleep(seconds / (len(acts) + 1))


def shoot(
    monitor: Namespace, built: Path, server: str, picture: Path, start: str
) -> int:
    """Serve the page, and have a browser draw it; what the browser ended with."""
    shutil.copy(DASHBOARD, built / "dist" / "dashboard.json")
    vite = subprocess.Popen(
        monitor.argv("env", f"PROMETHEUS=http://{server}", "npx", "vite", "preview"),
        cwd=built,
        stdin=subprocess.DEVNULL,
    )
    try:
        eventually(
            lambda: f":{_PAGE.rpartition(':')[2]}" in monitor.run("ss", "-ltn").stdout,
            timeout=_START_S,
            what="the page's server",
        )
        page = f"http://{_PAGE}/?from={start}"
        argv = monitor.argv("node", "shot.mjs", page, picture, *_SIZE)
        return subprocess.run(argv, cwd=built, check=False).returncode
    finally:
        vite.terminate()
        vite.wait()


def main(built: str, picture: str, minutes: str = "6") -> int:
    """Set up, play, shoot."""
    with Lab() as lab, ExitStack() as stack:
        monitor = lab.namespace("mon")
        lab.bridge(monitor, "lan")
        lab.address(monitor, "lan", "198.51.100.254/24")
        one, two, three = (Host(lab, stack, monitor, number) for number in (1, 2, 3))
        targets = {host.name: host.exporter for host in (one, two, three)}
        server = stack.enter_context(prometheus(monitor, targets))
        play(one, two, three, seconds=float(minutes) * 60)
        path = Path(picture).resolve()
        return shoot(monitor, Path(built), server.address, path, f"now-{minutes}m")


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
