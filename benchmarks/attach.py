# SPDX-License-Identifier: GPL-2.0-or-later
"""From request to attached, in ms: the first group of a namespace, and others.

In this process, so without the start of an interpreter; the first compiles the
programs in a child. The baseline of each row is the first.
"""

import statistics
import time

from benchmarks.rows import Row, options, report
from pyfailover import lifecycle
from pyfailover.lab import Lab, Namespace, scratch_roots
from pyfailover.model import GroupSpec
from pyfailover.place import Roots
from pyfailover.transaction import locked_namespace

MAC = "02:00:5e:10:00:01"


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    firsts, seconds = [], []
    for _ in range(2 if chosen.quick else 7):
        with Lab() as lab, scratch_roots() as roots:
            host, far = lab.namespace("host"), lab.namespace("far")
            for number in range(1, 7):
                lab.veth(host, f"eth{number}", far, f"p{number}", mac_a=MAC)
            first, *others = [_create(host, roots, number) for number in range(3)]
            firsts.append(first)
            seconds += others
    baseline = statistics.median(firsts)
    rows = [
        Row(
            case=case,
            value=statistics.median(values),
            unit="ms",
            baseline=baseline,
            better="lower",
        )
        for case, values in (("first", firsts), ("second", seconds))
    ]
    report("attach", rows, chosen)


def _create(host: Namespace, roots: Roots, number: int) -> float:
    """Make and attach master fo<number>; milliseconds."""
    spec = GroupSpec(
        name=f"fo{number}",
        primary=f"eth{2 * number + 1}",
        standbys=(f"eth{2 * number + 2}",),
    )
    with host.enter():
        start = time.perf_counter()
        with locked_namespace(roots) as namespace:
            lifecycle.create(namespace, spec)
        return (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    main()
