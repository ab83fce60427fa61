# SPDX-License-Identifier: GPL-2.0-or-later
"""What a controller needs: memory, and time to start; and what a command takes.

`rss` and `pss`: of a controller with 1 and with 300 groups that has nothing to do
(/proc/PID/smaps_rollup), beside an interpreter with pyroute2 and click imported.
`ready`: from the start of the process until it tells the service manager that it
is ready, the groups being attached already, and `create`: the command, without a
controller, for the first group of a namespace, whose programs are compiled, and
for the second; beside the start of an interpreter that does nothing. Medians.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from benchmarks.controlled import Site, command, controller, plug, settle, site
from benchmarks.rows import Row, options, report
from pyfailover import control
from pyfailover.lab import Lab, scratch_roots

_SIZES = (1, 300)


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    runs = 1 if chosen.quick else 5
    bare = _bare_memory()
    start_ms = statistics.median(_time(_start) for _ in range(4 * runs))
    rows: list[Row] = []
    for groups in _SIZES:
        with Lab() as lab, scratch_roots() as roots:
            made = site(lab, roots, groups)
            found = [_controller(made) for _ in range(runs)]
        for what in ("rss", "pss"):
            value = statistics.median(memory[what] for memory, _ in found)
            rows.append(_row(f"{what}_{groups}", value, "MB", bare[what]))
        ready_ms = statistics.median(ready_s for _, ready_s in found) * 1e3
        rows.append(_row(f"ready_{groups}", ready_ms, "ms", start_ms))
    times = [_creates() for _ in range(runs)]
    for what, each in zip(("cold", "warm"), zip(*times, strict=True), strict=True):
        rows.append(_row(f"create_{what}", statistics.median(each), "ms", start_ms))
    report("footprint", rows, chosen)


def _row(case: str, value: float, unit: str, baseline: float) -> Row:
    return Row(case=case, value=value, unit=unit, baseline=baseline, better="lower")


def _bare_memory() -> dict[str, float]:
    """Of an interpreter with the libraries that a controller cannot do without."""
    code = "import sys, click, pyroute2; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return _memory(process.pid)


def _controller(made: Site) -> tuple[dict[str, float], float]:
    """Memory, and seconds to ready, of a fresh controller."""
    with controller(made.host, made.roots) as running:
        settle(running)
        asked = control.ask(made.run, "status")
        assert asked is not None, "no controller"
        assert len(asked["groups"]) == made.groups
        return _memory(running.pid), running.ready_after_s


def _memory(pid: int) -> dict[str, float]:
    """MB, by `rss` and `pss`."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    fields = dict(line.split(":", 1) for line in lines)
    return {what: _megabytes(fields[what.title()]) for what in ("rss", "pss")}


def _megabytes(text: str) -> float:
    """'61234 kB' in MB."""
    return int(text.split()[0]) * 1024 / 1e6


def _creates() -> Iterable[float]:
    """Milliseconds of the first and of the second group."""
    with Lab() as lab, scratch_roots() as roots:
        host, far = lab.namespace("host"), lab.namespace("far")
        took = []
        for n in (0, 1):
            plug(host, far, [n])
            slaves = ("--primary", f"a{n}", "--standby", f"b{n}")
            argv = command(host, roots, "create", f"fo{n}", *slaves)
            took.append(_time(partial(_run, argv)))
        return took


def _start() -> None:
    _run([sys.executable, "-c", "pass"])


def _run(argv: list[str]) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def _time(act: Callable[[], None]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    act()
    return (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    main()
