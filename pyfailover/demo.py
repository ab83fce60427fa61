# SPDX-License-Identifier: GPL-2.0-or-later
"""The main job, shown on namespaces made for it: traffic through a master,
moved from slave to slave and counted packet by packet.

Prints as it goes, and a table at the end.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from pyfailover import lifecycle, report, switching
from pyfailover.lab import Lab, eventually, scratch_roots
from pyfailover.model import GroupSpec
from pyfailover.place import Roots
from pyfailover.traffic import Outcome, Received, Sent, TcpStream, UdpStream, account
from pyfailover.transaction import locked_namespace

_RATE = 10_000  # packets a second, each way
_TCP_RATE = 20e6  # bytes a second
_AFTER = 5_000  # packets each way that an event is watched for
_MASTER = "fo0"
_HOST4, _FAR4 = "192.0.2.1", "192.0.2.2"
_HOST6, _FAR6 = "2001:db8::1", "2001:db8::2"
_MAC = "02:00:5e:10:00:01"

_PICTURE = f"""\
  host                                far
  {_MASTER} {_HOST4} -+- eth1 ---- p1 -+- br0 {_FAR4}
                 +- eth2 ---- p2 -+
"""


@dataclass(frozen=True, slots=True)
class _Event:
    what: str
    start_ns: int
    end_ns: int


class Demo:
    """One run: topology, streams, events."""

    def __init__(self, lab: Lab, roots: Roots) -> None:
        self._lab = lab
        self._roots = roots
        self._host = lab.namespace("host")
        self._far = lab.namespace("far")
        self._events: list[_Event] = []
        lab.bridge(self._far, "br0")
        for number in (1, 2):
            self._plug(number)
        lab.address(self._far, "br0", f"{_FAR4}/24", f"{_FAR6}/64")

    def run(self) -> bool:
        """Show everything; returns whether not one packet was lost."""
        print(_PICTURE)
        print(f"host is namespace {self._host.name}, far is {self._far.name}")
        self._attach()
        self._lab.address(self._host, _MASTER, f"{_HOST4}/24", f"{_HOST6}/64")
        print(
            f"numbered UDP both ways at {_RATE:,} packets a second, "
            f"TCP at {_TCP_RATE / 1e6:.0f} MB a second"
        )
        out = UdpStream(self._host, self._far, _HOST4, _FAR4, port=9001, rate=_RATE)
        back = UdpStream(self._far, self._host, _FAR4, _HOST4, port=9002, rate=_RATE)
        tcp = TcpStream(self._host, self._far, _HOST6, _FAR6, rate=_TCP_RATE)
        with out, back, tcp:
            self._play(out, back)
            streams = [out.stop(), back.stop()]
            bulk = tcp.stop()
        self._status()
        lost = self._table(streams, bulk.gap_s)
        print(
            f"TCP: {bulk.received / 1e6:.0f} MB, "
            f"{'intact' if bulk.intact else 'DAMAGED'}"
        )
        return bulk.intact and not lost

    def _play(self, out: UdpStream, back: UdpStream) -> None:
        for what, act in (
            ("nothing, for comparison", lambda: None),
            ("switch to eth2", lambda: self._switch("eth2")),
            ("switch to eth1", lambda: self._switch("eth1")),
            ("ten switches in a row", self._to_and_fro),
            ("delete eth2, the standby", lambda: self._unplug(2)),
            ("re-create eth2, attach again", lambda: self._replug(2)),
            ("switch to eth2", lambda: self._switch("eth2")),
            ("delete eth1, the primary", lambda: self._unplug(1)),
            ("re-create eth1, attach again", lambda: self._replug(1)),
            ("switch to eth1", lambda: self._switch("eth1")),
        ):
            print(f"  {what}")
            self._watch(what, act, out, back)

    def _watch(
        self, what: str, act: Callable[[], None], out: UdpStream, back: UdpStream
    ) -> None:
        """Do something and let the streams run on for a while."""
        start = time.monotonic_ns()
        act()
        done_out, done_back = out.sent + _AFTER, back.sent + _AFTER
        eventually(
            lambda: out.sent >= done_out and back.sent >= done_back,
            timeout=30.0,
            what=what,
        )
        self._events.append(_Event(what, start, time.monotonic_ns()))

    # --- what is done -----------------------------------------------------

    def _plug(self, number: int) -> None:
        slave, port = f"eth{number}", f"p{number}"
        self._lab.veth(self._host, slave, self._far, port, mac_a=_MAC, up=False)
        self._far.ip(f"link set {port} master br0 up")

    def _unplug(self, number: int) -> None:
        self._host.ip(f"link del eth{number}")

    def _replug(self, number: int) -> None:
        self._plug(number)
        self._attach()

    def _attach(self) -> None:
        spec = GroupSpec(name=_MASTER, primary="eth1", standbys=("eth2",))
        with self._host.enter(), locked_namespace(self._roots) as namespace:
            lifecycle.create(namespace, spec)

    def _switch(self, slave: str) -> None:
        with self._host.enter(), locked_namespace(self._roots) as namespace:
            switching.switch(namespace, _MASTER, slave)

    def _to_and_fro(self) -> None:
        for slave in ("eth2", "eth1") * 5:
            self._switch(slave)

    # --- what is shown ----------------------------------------------------

    def _status(self) -> None:
        print()
        with self._host.enter():
            for group in report.groups(self._roots):
                for line in report.table(group):
                    print(line)
        print()

    def _table(
        self,
        streams: list[tuple[Sent, Received]],
        tcp_gap_s: Callable[[int, int], float],
    ) -> int:
        """A line for each event; returns how many packets were lost in all."""
        print(
            f"{'event':<29} {'sent':>6} {'lost':>5} {'dup':>4} {'reord':>5} "
            f"{'gap ms':>7} {'TCP gap ms':>10}"
        )
        lost = 0
        for event in self._events:
            found = [
                account(sent, received, event.start_ns, event.end_ns)
                for sent, received in streams
            ]
            lost += sum(outcome.lost for outcome in found)
            print(_line(event, found, tcp_gap_s(event.start_ns, event.end_ns)))
        return lost


def _line(event: _Event, found: list[Outcome], tcp_gap_s: float) -> str:
    return (
        f"{event.what:<29} {sum(o.sent for o in found):>6} "
        f"{sum(o.lost for o in found):>5} {sum(o.duplicated for o in found):>4} "
        f"{sum(o.reordered for o in found):>5} "
        f"{max(o.gap_s for o in found) * 1e3:>7.1f} {tcp_gap_s * 1e3:>10.1f}"
    )


def run(roots: Roots) -> bool:
    """Run the demo; everything it made is gone afterwards, Ctrl-C included.

    Args:
        roots: of the installation; the demo's pins are beside, not among them.

    Returns:
        Whether not one packet was lost.
    """
    # Also into a pipe: who waits for a line gets it when it is due.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with Lab() as lab, scratch_roots(roots.pins) as own:
        return Demo(lab, own).run()
