# SPDX-License-Identifier: GPL-2.0-or-later
"""The main job, shown on namespaces made for it: a real controller fails a
master's traffic over, and every packet is counted.

Shows what happens as it happens, and a table at the end. The slaves' links have
equal ifindexes at both ends: the kernel then tells of a lost carrier as it does
for a NIC, late if another link event was not long ago.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread

from pyfailover import asking, control, report
from pyfailover.commands import Wish
from pyfailover.errors import PyFailoverError
from pyfailover.history import Kind, from_data
from pyfailover.lab import Lab, eventually, scratch_roots
from pyfailover.model import GroupSpec
from pyfailover.place import Roots
from pyfailover.traffic import Outcome, Received, Sent, TcpStream, UdpStream, account
from pyfailover.transaction import paths

_RATE = 10_000  # packets a second, each way
_TCP_RATE = 20e6  # bytes a second
_AFTER = 7_000  # packets each way that an event is watched for
_MASTER = "fo0"
_HOST4, _FAR4 = "192.0.2.1", "192.0.2.2"
_HOST6, _FAR6 = "2001:db8::1", "2001:db8::2"
_MAC = "02:00:5e:10:00:01"
# A switch (here: the far bridge) takes up to a second to use a port that has its
# carrier back; to return before that would lose what is sent meanwhile.
_SPEC = GroupSpec(name=_MASTER, primary="eth1", standbys=("eth2",), up_delay_ms=1200)
_PATIENCE_S = 15.0

_PICTURE = f"""\
  host                                far
  {_MASTER} {_HOST4} -+- eth1 ---- p1 -+- br0 {_FAR4}
                 +- eth2 ---- p2 -+
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Act:
    """Something that happens to the host."""

    what: str
    do: Callable[[], None]
    carrier: str  # the slave that should carry the traffic then
    harmless: bool  # no slave dies: not one packet may be lost


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    act: _Act
    carried: str | None
    start_ns: int
    end_ns: int


class Demo:
    """One run: topology, controller, streams, events."""

    def __init__(self, lab: Lab, roots: Roots) -> None:
        self._lab = lab
        self._roots = roots
        self._host = lab.namespace("host")
        self._far = lab.namespace("far")
        self._events: list[_Event] = []
        self._daemon: subprocess.Popen[bytes] | None = None
        lab.bridge(self._far, "br0")
        for number in (1, 2):
            self._plug(number)
        lab.address(self._far, "br0", f"{_FAR4}/24", f"{_FAR6}/64")

    def run(self) -> bool:
        """Show everything; returns whether all went as it should."""
        print(_PICTURE)
        print(f"host is namespace {self._host.name}, far is {self._far.name}")
        try:
            self._start()
            with self._host.enter():
                asking.attach(self._roots, Wish(spec=_SPEC, create=True))
            return self._under_traffic()
        finally:
            if self._daemon is not None:
                self._daemon.kill()
                self._daemon.wait()

    def _under_traffic(self) -> bool:
        self._lab.address(self._host, _MASTER, f"{_HOST4}/24", f"{_HOST6}/64")
        print(
            f"numbered UDP both ways at {_RATE:,} packets a second, "
            f"TCP at {_TCP_RATE / 1e6:.0f} MB a second\n"
        )
        out = UdpStream(self._host, self._far, _HOST4, _FAR4, port=9001, rate=_RATE)
        back = UdpStream(self._far, self._host, _FAR4, _HOST4, port=9002, rate=_RATE)
        tcp = TcpStream(self._host, self._far, _HOST6, _FAR6, rate=_TCP_RATE)
        with out, back, tcp:
            for act in self._acts():
                self._play(act, out, back)
            streams = [out.stop(), back.stop()]
            bulk = tcp.stop()
        self._status()
        good = self._table(streams, bulk.gap_s)
        print(
            f"TCP: {bulk.received / 1e6:.0f} MB, "
            f"{'intact' if bulk.intact else 'DAMAGED'}"
        )
        return bulk.intact and good

    def _acts(self) -> Iterator[_Act]:
        for what, do, carrier, harmless in (
            ("nothing, for comparison", lambda: None, "eth1", True),
            ("eth1 loses its carrier", self._cut, "eth2", False),
            ("eth1 has it back", self._restore, "eth1", True),
            ("eth1 is unplugged", self._unplug, "eth2", False),
            ("eth1 is plugged in again", self._replug, "eth1", True),
            ("... and cut after a link event", self._cut_late, "eth2", False),
            ("eth1 has it back", self._restore, "eth1", True),
            ("switch to eth2", lambda: self._switch("eth2"), "eth2", True),
            ("switch to auto", lambda: self._switch(None), "eth1", True),
            ("the controller is killed", self._kill, "eth1", True),
            ("... and eth1 loses its carrier", self._cut, "eth2", False),
            ("the controller is started", self._start, "eth2", True),
            ("eth1 has it back", self._restore, "eth1", True),
        ):
            yield _Act(what=what, do=do, carrier=carrier, harmless=harmless)

    def _play(self, act: _Act, out: UdpStream, back: UdpStream) -> None:
        """Do it, and watch what becomes of the traffic."""
        print(f"{act.what}:")
        start_ns = time.monotonic_ns()
        act.do()
        self._wait_for(act.carrier)
        flowing_ns = time.monotonic_ns()
        goals = [(stream, stream.received + _AFTER) for stream in (out, back)]
        eventually(
            lambda: all(stream.received >= goal for stream, goal in goals),
            timeout=_PATIENCE_S,
            what=f"traffic after '{act.what}'",
        )
        end_ns = time.monotonic_ns()
        carried = self._active()
        rates = [
            (stream.received - goal + _AFTER) / (end_ns - flowing_ns) * 1e9
            for stream, goal in goals
        ]
        print(
            f"    {carried} carries {rates[0]:,.0f} packets a second out, "
            f"{rates[1]:,.0f} in"
        )
        self._events.append(
            _Event(act=act, carried=carried, start_ns=start_ns, end_ns=end_ns)
        )

    def _wait_for(self, slave: str) -> None:
        eventually(
            lambda: self._active() == slave,
            timeout=_PATIENCE_S,
            what=f"'{slave}' to carry the traffic",
        )

    def _active(self) -> str | None:
        with self._host.enter():
            (group,) = report.groups(self._roots, _MASTER)
        return group.active

    # --- what happens -----------------------------------------------------

    def _plug(self, number: int) -> None:
        slave, port = f"eth{number}", f"p{number}"
        index = 100 + number
        self._lab.veth(
            self._host,
            slave,
            self._far,
            port,
            mac_a=_MAC,
            index_a=index,
            index_b=index,
            up=False,
        )
        self._far.ip(f"link set {port} master br0 up")

    def _cut(self) -> None:
        self._far.ip("link set p1 down")

    def _cut_late(self) -> None:
        self._far.batch("link set br0 alias event", "link set p1 down")

    def _restore(self) -> None:
        self._far.ip("link set p1 up")

    def _unplug(self) -> None:
        self._host.ip("link del eth1")

    def _replug(self) -> None:
        self._plug(1)

    def _switch(self, slave: str | None) -> None:
        with self._host.enter():
            asking.switch(self._roots, _MASTER, slave)

    def _kill(self) -> None:
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGKILL)
        self._daemon.wait()

    def _start(self) -> None:
        """Start a controller, and show what it tells."""
        self._daemon = subprocess.Popen(
            [
                *(sys.executable, "-m", "pyfailover", f"--netns={self._host.name}"),
                f"--pin-root={self._roots.pins}",
                f"--run-root={self._roots.run}",
                f"--config-root={self._roots.etc}",
                f"--cache-root={self._roots.cache}",
                "run",
            ],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(self._answers, timeout=_PATIENCE_S, what="the controller")
        with self._host.enter():
            run = paths(self._roots)[1]
        Thread(target=_show, args=(run,), daemon=True).start()

    def _answers(self) -> bool:
        with self._host.enter():
            return asking.status(self._roots) is not None

    # --- what is shown ----------------------------------------------------

    def _status(self) -> None:
        print()
        with self._host.enter():
            served = asking.status(self._roots)
            for group in report.groups(self._roots, controller=served):
                for line in report.table(group):
                    print(line)
        print()

    def _table(
        self,
        streams: list[tuple[Sent, Received]],
        tcp_gap_s: Callable[[int, int], float],
    ) -> bool:
        """A line for each event; returns whether all were as they should be."""
        print(
            f"{'event':<31} {'carries':<7} {'sent':>6} {'lost':>5} {'dup':>4} "
            f"{'reord':>5} {'gap ms':>7} {'TCP gap':>7}"
        )
        good = True
        for event in self._events:
            found = [
                account(sent, received, event.start_ns, event.end_ns)
                for sent, received in streams
            ]
            lost = sum(outcome.lost for outcome in found)
            good &= event.carried == event.act.carrier
            good &= not (lost and event.act.harmless)
            print(_line(event, found, tcp_gap_s(event.start_ns, event.end_ns)))
        return good


def _show(run: Path) -> None:
    """What a controller tells, line by line, until it ends."""
    with suppress(PyFailoverError):
        for data in control.watch(run):
            event = from_data(data)
            moved = f" {event.before or '-'} -> {event.after or '-'}"
            what = moved if event.kind is Kind.SWITCH else f" {event.after or ''}"
            took = "" if event.took_s is None else f" in {event.took_s * 1e3:.1f} ms"
            why = f" ({event.reason}, by {event.by}){took}"
            told = f"{event.kind}{what.rstrip()}"
            print(f"    {told}{why if event.kind is Kind.SWITCH else ''}")


def _line(event: _Event, found: list[Outcome], tcp_gap_s: float) -> str:
    return (
        f"{event.act.what:<31} {event.carried or '-':<7} "
        f"{sum(o.sent for o in found):>6} {sum(o.lost for o in found):>5} "
        f"{sum(o.duplicated for o in found):>4} {sum(o.reordered for o in found):>5} "
        f"{max(o.gap_s for o in found) * 1e3:>7.1f} {tcp_gap_s * 1e3:>7.1f}"
    )


@contextmanager
def _line_buffered() -> Iterator[None]:
    """Also into a pipe: who waits for a line gets it when it is due."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    yield


def run(roots: Roots) -> bool:
    """Run the demo; everything it made is gone afterwards, Ctrl-C included.

    Args:
        roots: of the installation; the demo's pins are beside, not among them. Only
            its cache is used too: compiled programs are nobody's in particular.

    Returns:
        Whether every event ended on the right slave, and nothing was lost where no
        slave died.
    """
    with _line_buffered(), Lab() as lab, scratch_roots(roots.pins) as own:
        return Demo(lab, replace(own, cache=roots.cache)).run()
