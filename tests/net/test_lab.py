# SPDX-License-Identifier: GPL-2.0-or-later
"""The tools of the other tests: is the lab whole and quiet, the traffic exact?"""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyfailover.lab import Lab, LabError, Namespace, eventually
from pyfailover.traffic import TcpStream, TrafficError, UdpStream, account, udp_flood

RATE = 10_000
V4 = ("192.0.2.1", "192.0.2.2")
V6 = ("2001:db8::1", "2001:db8::2")
both_families = pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])


@dataclass(frozen=True)
class Wire:
    """Two namespaces and what joins them."""

    lab: Lab
    left: Namespace
    right: Namespace

    def cut(self) -> None:
        """Set the right end down: the left one loses its carrier."""
        self.right.ip("link set e0 down")

    def mend(self) -> None:
        """Set the right end up again."""
        self.right.ip("link set e0 up")

    def frames(self) -> int:
        """All frames that went either way."""
        links = json.loads(self.left.ip("-j -s link show e0"))
        stats = links[0]["stats64"]
        return int(stats["rx"]["packets"] + stats["tx"]["packets"])


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A bare veth pair.

    left e0 ------------ e0 right
    192.0.2.1            192.0.2.2
    2001:db8::1          2001:db8::2
    """
    with Lab() as lab:
        left, right = lab.namespace("left"), lab.namespace("right")
        lab.veth(left, "e0", right, "e0", mac_b="02:00:00:00:00:02")
        lab.address(left, "e0", f"{V4[0]}/24", f"{V6[0]}/64")
        lab.address(right, "e0", f"{V4[1]}/24", f"{V6[1]}/64")
        # A lost carrier would flush a learned entry, and the next one be asked
        # for a second later: the losses would be those of ARP.
        left.ip(f"neigh add {V4[1]} lladdr 02:00:00:00:00:02 dev e0 nud permanent")
        yield Wire(lab, left, right)


def pids(ns: Namespace) -> list[str]:
    """The processes in a namespace, in the words of iproute2."""
    listed = subprocess.run(
        ["ip", "netns", "pids", ns.name], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()


def udp_counters(ns: Namespace) -> dict[str, int]:
    """The kernel's own UDP counters of a namespace."""
    snmp = ns.run("cat", "/proc/net/snmp").stdout.splitlines()
    names, values = (line.split()[1:] for line in snmp if line.startswith("Udp:"))
    return dict(zip(names, map(int, values), strict=True))


def drop_numbers_ending_in(ns: Namespace, low_byte: int, offset: int) -> None:
    """Drop arriving UDP packets whose number has this lowest byte.

    Classic BPF, because a kernel may lack cls_u32: load the byte, compare,
    return 2 (TC_ACT_SHOT) or -1 (go on).
    """
    code = f"4,48 0 0 {offset},21 0 1 {low_byte},6 0 0 2,6 0 0 4294967295"
    for words in (
        "qdisc add dev e0 clsact",
        f"filter add dev e0 ingress bpf da bytecode '{code}'",
    ):
        ns.run("sh", "-c", f"tc {words}")


def test_devices_are_made_as_asked(wire: Wire) -> None:
    """A veth pair gets the names, addresses, indexes and MTU asked for."""
    wire.lab.veth(
        wire.left,
        "x0",
        wire.right,
        "x1",
        mac_a="02:00:00:00:00:0a",
        mtu=1400,
        index_a=97,
        index_b=97,
    )
    assert wire.left.ifindex("x0") == wire.right.ifindex("x1") == 97
    assert wire.left.mac("x0") == "02:00:00:00:00:0a"
    assert "mtu 1400" in wire.right.ip("link", "show", "x1")
    assert "state UP" in wire.right.ip("link show x1")


def test_bridge_forwards_from_the_first_moment() -> None:
    """Two hosts reach each other through a bridge as soon as it is made."""
    with Lab() as lab:
        one, mid, two = (lab.namespace(label) for label in ("one", "mid", "two"))
        lab.veth(one, "e0", mid, "p1")
        lab.veth(two, "e0", mid, "p2")
        lab.bridge(mid, "br0", "p1", "p2")
        lab.address(one, "e0", f"{V4[0]}/24")
        lab.address(two, "e0", f"{V4[1]}/24")
        with UdpStream(one, two, *V4, rate=RATE, start_timeout=0.5) as stream:
            eventually(lambda: stream.received > 97, what="packets received")


def test_everything_is_gone_after_the_lab() -> None:
    """Names go, processes left inside die, deferred calls run in reverse."""
    calls: list[str] = []
    with Lab() as lab:
        one, two = lab.namespace("one"), lab.namespace("two")
        lab.veth(one, "e0", two, "e0")
        lab.defer(lambda: calls.append("first given"))
        lab.defer(lambda: calls.append("last given"))
        left_over = subprocess.Popen(one.argv("sleep", "1000"))
        eventually(lambda: pids(one), what="the process inside")
    assert left_over.wait(timeout=1) == -signal.SIGKILL
    assert calls == ["last given", "first given"]
    assert not one.path.exists()
    assert not two.path.exists()


@pytest.mark.parametrize("interrupt", [False, True])
def test_everything_is_gone_after_a_failure_half_way(*, interrupt: bool) -> None:
    """A failed command, or Ctrl-C, in mid-construction leaves nothing behind."""
    made: list[Namespace] = []

    def build() -> None:
        with Lab() as lab:
            made.extend([lab.namespace("one"), lab.namespace("two")])
            lab.veth(made[0], "e0", made[1], "e0")
            if interrupt:
                signal.raise_signal(signal.SIGINT)
            lab.veth(made[0], "e0", made[1], "e1")

    with pytest.raises(KeyboardInterrupt if interrupt else LabError):
        build()
    assert len(made) == 2
    assert not any(ns.path.exists() for ns in made)


def test_failed_command_says_which_and_why(wire: Wire) -> None:
    """The error of a command has its words, its exit code and what it said."""
    with pytest.raises(LabError, match="Cannot find device") as caught:
        wire.left.ip("link set nothing up")
    assert caught.value.returncode == 1
    assert "link set nothing up" in caught.value.command
    with pytest.raises(LabError, match="input was:\nlink set nothing up"):
        wire.left.batch("link set nothing up")
    with pytest.raises(LabError, match="ended with 3"):
        wire.left.run("sh", "-c", "exit 3")


def test_kept_topology_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With KEEP_TOPOLOGY=1 a namespace stays, and how to enter it is said."""
    monkeypatch.setenv("KEEP_TOPOLOGY", "1")
    with Lab() as lab:
        ns = lab.namespace("kept")
    try:
        assert ns.path.exists()
        assert f"nsenter --net=/run/netns/{ns.name} " in capsys.readouterr().err
    finally:
        subprocess.run(["ip", "netns", "del", ns.name], check=True)


def test_enter_moves_this_thread_alone(wire: Wire) -> None:
    """Inside `enter` this thread is in the namespace; others never, it not after."""

    def netns() -> tuple[int, int]:
        status = Path("/proc/thread-self/ns/net").stat()
        return status.st_dev, status.st_ino

    home = netns()
    other: list[tuple[int, int]] = []
    with wire.left.enter():
        status = wire.left.path.stat()
        assert netns() == (status.st_dev, status.st_ino) != home
        with wire.right.enter():
            assert netns() != (status.st_dev, status.st_ino)
        assert netns() == (status.st_dev, status.st_ino)
    inside = threading.Event()

    def look() -> None:
        inside.wait(5)
        other.append(netns())

    thread = threading.Thread(target=look)
    thread.start()
    with wire.left.enter():
        inside.set()
        thread.join()
    assert other == [home]
    assert netns() == home


def test_eventually_names_the_last_value() -> None:
    """A condition that stays false is reported with what was last seen."""
    assert eventually(lambda: 97) == 97
    with pytest.raises(TimeoutError, match=r"a link: not within .* observed \[\]"):
        eventually(list, timeout=0.02, what="a link")


def test_wire_is_quiet(wire: Wire) -> None:
    """After the reports at joining (some 10 ms) not one frame is on the wire."""

    def frames_in(seconds: float) -> int:
        before = wire.frames()
        time.sleep(seconds)
        return wire.frames() - before

    eventually(lambda: frames_in(0.1) == 0, what="a tenth of a second of silence")
    assert frames_in(1.0) == 0


@both_families
def test_paced_stream_loses_nothing(wire: Wire, ends: tuple[str, str]) -> None:
    """Half a second at 10,000 packets a second over a bare wire arrives whole."""
    with UdpStream(wire.left, wire.right, *ends, rate=RATE) as stream:
        eventually(lambda: stream.sent >= RATE // 2, what="half a second of packets")
        live = stream.received
        sent, received = stream.stop()
    outcome = account(sent, received)
    assert outcome.sent == sent.total >= RATE // 2
    assert (outcome.lost, outcome.duplicated, outcome.reordered) == (0, 0, 0)
    assert sent.refused == 0
    assert 0 < live <= outcome.received
    assert max(sent.count) <= RATE // 1000


def test_pace_is_even(wire: Wire) -> None:
    """The packets of a second are as many as asked for, give or take a twentieth."""
    with UdpStream(wire.left, wire.right, *V4, rate=RATE) as stream:
        eventually(lambda: stream.sent >= RATE // 2, what="half a second of packets")
        sent, _ = stream.stop()
    seconds = (sent.t_ns[-1] - sent.t_ns[0]) / 1e9
    assert sent.total / seconds == pytest.approx(RATE, rel=0.05)


@pytest.mark.parametrize(("ends", "offset"), [(V4, 42), (V6, 62)], ids=["v4", "v6"])
def test_filtered_numbers_are_the_lost_ones(
    wire: Wire, ends: tuple[str, str], offset: int
) -> None:
    """When a filter takes every number that ends in 97, exactly these are lost."""
    drop_numbers_ending_in(wire.right, 97, offset)
    with UdpStream(wire.left, wire.right, *ends, rate=RATE) as stream:
        eventually(lambda: stream.sent >= 2000, what="packets sent")
        sent, received = stream.stop()
    taken = [n for n in range(1, sent.total + 1) if n % 256 == 97]
    assert set(range(1, sent.total + 1)) - set(received.seq) == set(taken)
    assert account(sent, received).lost == len(taken) > 0


def test_losses_of_a_cut_are_those_the_kernel_counts(wire: Wire) -> None:
    """What a cut cost is what the UDP counters of both ends say it did."""
    with UdpStream(wire.left, wire.right, *V4, rate=RATE) as stream:
        eventually(lambda: stream.received > 97, what="packets before the cut")
        start_ns = time.monotonic_ns()
        wire.cut()
        lost_from = stream.sent
        eventually(lambda: stream.sent > lost_from + 500, what="packets in the cut")
        wire.mend()
        mended_at = stream.received
        eventually(lambda: stream.received > mended_at + 97, what="packets after it")
        end_ns = time.monotonic_ns()
        sent, received = stream.stop()
    out, into = udp_counters(wire.left), udp_counters(wire.right)
    whole = account(sent, received)
    assert whole.lost == out["OutDatagrams"] + out["SndbufErrors"] - into["InDatagrams"]
    assert whole.lost >= 500
    window = account(sent, received, start_ns, end_ns)
    assert (window.lost, window.duplicated) == (whole.lost, 0)
    assert 0.05 <= window.gap_s < 1


@both_families
def test_tcp_stream_is_intact(wire: Wire, ends: tuple[str, str]) -> None:
    """All bytes of an unlimited stream arrive in place."""
    with TcpStream(wire.left, wire.right, *ends) as stream:
        eventually(lambda: stream.received > 20_000_000, what="20 MB")
        outcome = stream.stop()
    assert outcome.intact
    assert outcome.sent == outcome.received > 20_000_000


def test_tcp_stream_survives_a_cut_and_shows_it(wire: Wire) -> None:
    """A cut is a pause of at least its length, and no byte is lost by it."""
    with TcpStream(wire.left, wire.right, *V4, rate=1e6) as stream:
        eventually(lambda: stream.received > 97_000, what="bytes before the cut")
        calm_ns = time.monotonic_ns()
        wire.cut()
        start_ns = time.monotonic_ns()
        time.sleep(0.1)  # the length of the cut
        end_ns = time.monotonic_ns()
        wire.mend()
        at = stream.received
        eventually(lambda: stream.received > at + 97_000, what="bytes after it")
        outcome = stream.stop()
    assert outcome.intact
    assert outcome.gap_s(start_ns, end_ns) >= 0.1
    assert outcome.gap_s(0, calm_ns - 20_000_000) < 0.1


def test_stream_can_be_started_again(wire: Wire) -> None:
    """A stream that was stopped begins anew with number 1."""
    stream = UdpStream(wire.left, wire.right, *V4, rate=RATE)
    for _ in range(2):
        stream.start()
        eventually(lambda: stream.received > 97, what="packets received")
        sent, received = stream.stop()
        assert sent.first_seq[0] == received.seq[0] == 1
        assert account(sent, received).lost == 0
    with pytest.raises(TrafficError, match="does not run"):
        stream.stop()


def test_flood_counts_something(wire: Wire) -> None:
    """A flood over a bare wire is much more than a paced stream."""
    assert udp_flood(wire.left, wire.right, *V4, 0.2) > 5 * RATE


def test_stream_without_a_path_says_so(wire: Wire) -> None:
    """A start over a cut wire fails within its time, and leaves no process."""
    wire.cut()
    stream = UdpStream(wire.left, wire.right, *V4, start_timeout=0.2)
    with pytest.raises(TrafficError, match=r"nothing from 192\.0\.2\.1 arrived"):
        stream.start()
    assert pids(wire.left) == pids(wire.right) == []


def test_stream_from_a_wrong_address_says_so(wire: Wire) -> None:
    """The error of a child reaches the caller in its own words."""
    stream = UdpStream(wire.left, wire.right, "192.0.2.97", V4[1])
    with pytest.raises(TrafficError, match=r"sender failed.*Cannot assign"):
        stream.start()


def test_stream_ends_with_an_exception(wire: Wire) -> None:
    """Ctrl-C in the body of a `with` leaves no process behind."""
    seen: list[int] = []

    def interrupted() -> None:
        with (
            UdpStream(wire.left, wire.right, *V4, rate=RATE),
            TcpStream(wire.left, wire.right, *V4),
        ):
            seen.extend((len(pids(wire.left)), len(pids(wire.right))))
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert seen == [2, 2]
    assert pids(wire.left) == pids(wire.right) == []


def test_stream_dies_with_its_parent(wire: Wire) -> None:
    """The children of a parent that is killed outright are gone too."""
    program = (
        "import sys, time\n"
        "from pyfailover.lab import Namespace\n"
        "from pyfailover.traffic import UdpStream\n"
        "left, right, src, dst = sys.argv[1:]\n"
        "UdpStream(Namespace(left), Namespace(right), src, dst).start()\n"
        "print('runs', flush=True)\n"
        "time.sleep(1000)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, wire.left.name, wire.right.name, *V4],
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "runs\n"
        assert pids(wire.left)
        parent.kill()
    eventually(lambda: not pids(wire.left) + pids(wire.right), what="no process")
