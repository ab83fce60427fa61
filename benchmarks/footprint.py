# SPDX-License-Identifier: GPL-2.0-or-later
"""What a controller needs: memory, and time to start; and what a command takes.

`rss` and `pss`: of a controller with 1 and with 300 groups that has nothing to do
(/proc/PID/smaps_rollup), beside an interpreter with pyroute2 and click imported.
`ready`: from the start of the process until it tells the service manager that it
is ready, the groups being attached already. `ready_cold` and `ready_cached`: a
controller that has to load the programs for its one declared group, and compile
them first, or find them in the cache.

`create`: the command, without a controller, for the first group of a namespace,
`cold` and `cached` alike, and `loaded` for a second one; its `_rss` is the largest
that a process of it had, the compiler's being one of its own. `load_cached`: from
the call until the programs are pinned, without an interpreter's start. The baseline
of all times is the start of an interpreter that does nothing. Medians.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.controlled import Site, command, controller, plug, settle, site
from benchmarks.rows import Row, options, report
from pyfailover import control
from pyfailover.lab import Lab, Namespace, scratch_roots
from pyfailover.place import Roots
from pyfailover.transaction import locked_namespace

_SIZES = (1, 300)
_DECLARED = """\
master = "fo0"
create = true
primary = "a0"
standbys = ["b0"]
"""

# Runs the command, and says at its end how many kB it took at most, or a child
# of it. Not by wait4(): there a process has what its parent had when it forked.
_MEASURED = """
import resource, runpy, sys
try:
    runpy.run_module("pyfailover", run_name="__main__", alter_sys=True)
finally:
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    own = int(status["VmHWM"].split()[0])
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(max(own, child), file=sys.stderr)
"""


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
    times = [_first_groups() for _ in range(runs)]
    for what in times[0]:
        value = statistics.median(each[what] for each in times)
        if what.endswith("_rss"):
            rows.append(_row(what, value, "MB", bare["rss"]))
        else:
            rows.append(_row(what, value, "ms", start_ms))
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


def _first_groups() -> dict[str, float]:
    """What a namespace's first group costs, and then a second, in ms and MB.

    Programs are compiled, and then found in the cache.
    """
    found: dict[str, float] = {}
    with Lab() as lab:
        with scratch_roots() as roots:
            for what in ("cold", "cached"):
                host = _plugged(lab, f"create-{what}")
                found |= _create(host, roots, 0, f"create_{what}")
            found |= _create(host, roots, 1, "create_loaded")
            found["load_cached"] = _load(_plugged(lab, "load"), roots)
        with scratch_roots() as roots:
            roots.etc.mkdir(parents=True)
            for what in ("cold", "cached"):
                host = _plugged(lab, f"ready-{what}")
                declared = f'netns = "{host.name}"\n{_DECLARED}'
                (roots.etc / "fo0.toml").write_text(declared)
                with controller(host, roots) as running:
                    found[f"ready_{what}"] = running.ready_after_s * 1e3
                    host.ifindex("fo0")  # it is made
    return found


def _plugged(lab: Lab, name: str) -> Namespace:
    """A new namespace with the slaves of two groups."""
    host = lab.namespace(name)
    plug(host, lab.namespace(f"{name}-far"), [0, 1])
    return host


def _load(host: Namespace, roots: Roots) -> float:
    """Milliseconds until the programs are loaded and pinned."""
    with host.enter(), locked_namespace(roots) as namespace:
        return _time(lambda: namespace.load(None, None))


def _create(host: Namespace, roots: Roots, n: int, name: str) -> dict[str, float]:
    """Milliseconds and the most MB of a `create`."""
    slaves = ("--primary", f"a{n}", "--standby", f"b{n}")
    python, _, _, *arguments = command(host, roots, "create", f"fo{n}", *slaves)
    start = time.perf_counter()
    done = subprocess.run(
        [python, "-c", _MEASURED, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    took_ms = (time.perf_counter() - start) * 1e3
    return {name: took_ms, f"{name}_rss": _megabytes(done.stderr.split()[-1])}


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
