# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP and small UDP through a master, beside the bare slave.

Four hosts, each with a far end of its own over one veth: the bare slave (the
baseline), a second bare one (A/A: the noise), a master driven as `stack`, a
master driven as `wire`. One second a run, all four in turn, medians of the
ratios of neighbours. TCP is iperf3's receiver; UDP is 18 bytes of payload (60
byte frames) by sendmmsg, counted by the receiver. Sender and receiver are
pinned to a CPU each.
"""

import json
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.rows import Row, alternate, median_ratio, options, report
from pyfailover import lifecycle
from pyfailover.lab import Lab, Namespace, eventually, scratch_roots
from pyfailover.model import GroupSpec, Side
from pyfailover.place import Roots
from pyfailover.traffic import udp_flood
from pyfailover.transaction import locked_namespace

HOST, FAR = "192.0.2.1", "192.0.2.2"
MAC = "02:00:5e:10:00:01"
_PORT = 5201


@dataclass(frozen=True)
class Ends:
    """A host and its far end."""

    host: Namespace
    far: Namespace


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    runs, seconds = (3, 1) if chosen.quick else (11, 1)
    rows = []
    with Lab() as lab, scratch_roots() as roots:
        ends = {
            "bare": _bare(lab),
            "aa": _bare(lab),
            "stack": _master(lab, roots, Side.STACK),
            "wire": _master(lab, roots, Side.WIRE),
        }
        for case, unit, measure in (
            ("tcp_out", "Gbit/s", _tcp),
            ("tcp_in", "Gbit/s", partial(_tcp, reverse=True)),
            ("udp18_out", "packets/s", _udp),
            ("udp18_in", "packets/s", partial(_udp, reverse=True)),
        ):
            rows += _case(case, unit, ends, measure, runs, seconds)
    report("throughput", rows, chosen)


def _case(
    case: str,
    unit: str,
    ends: dict[str, Ends],
    measure: Callable[..., float],
    runs: int,
    seconds: int,
) -> list[Row]:
    values = alternate(
        {kind: partial(measure, pair, seconds) for kind, pair in ends.items()}, runs
    )
    rows = []
    for kind in ("stack", "wire", "aa"):
        # The row's ratio is the median ratio of neighbours, which noise that
        # lasts does not touch; the baseline is given so that it comes out.
        value = statistics.median(values[kind])
        ratio = median_ratio(values[kind], values["bare"])
        rows.append(
            Row(
                case=f"{case}_{kind}",
                value=value,
                unit=unit,
                baseline=value / ratio,
                better="higher",
            )
        )
    return rows


def _bare(lab: Lab) -> Ends:
    ends = Ends(lab.namespace("host"), lab.namespace("far"))
    lab.veth(ends.host, "eth1", ends.far, "p1")
    lab.address(ends.host, "eth1", f"{HOST}/24")
    lab.address(ends.far, "p1", f"{FAR}/24")
    return ends


def _master(lab: Lab, roots: Roots, side: Side) -> Ends:
    """A master over eth1, which has a far end like the bare slave's, and eth2."""
    ends = Ends(lab.namespace("host"), lab.namespace("far"))
    for number in (1, 2):
        lab.veth(ends.host, f"eth{number}", ends.far, f"p{number}", mac_a=MAC)
    spec = GroupSpec(name="fo0", primary="eth1", standbys=("eth2",), side=side)
    with ends.host.enter(), locked_namespace(roots) as namespace:
        lifecycle.create(namespace, spec)
    lab.address(ends.host, "fo0", f"{HOST}/24")
    lab.address(ends.far, "p1", f"{FAR}/24")
    return ends


def _udp(ends: Ends, seconds: int, *, reverse: bool = False) -> float:
    if reverse:
        return udp_flood(ends.far, ends.host, FAR, HOST, seconds)
    return udp_flood(ends.host, ends.far, HOST, FAR, seconds)


def _tcp(ends: Ends, seconds: int, *, reverse: bool = False) -> float:
    """Gbit/s that the receiver got."""
    sender, receiver = (ends.far, ends.host) if reverse else (ends.host, ends.far)
    address = HOST if reverse else FAR
    server = subprocess.Popen(
        receiver.argv("iperf3", "-s", "-1", "-A", "1", "-p", str(_PORT)),
        stdout=subprocess.DEVNULL,
    )
    try:
        eventually(
            lambda: f":{_PORT}" in receiver.run("ss", "-Hltn").stdout, what="iperf3"
        )
        client = sender.run(
            "iperf3", "-c", address, "-p", str(_PORT), "-t", str(seconds), "-A", "0",
            "-J",
        )  # fmt: skip
        server.wait(timeout=10)
    finally:
        server.kill()
        server.wait()
    result = json.loads(client.stdout)
    return float(result["end"]["sum_received"]["bits_per_second"]) / 1e9


if __name__ == "__main__":
    main()
