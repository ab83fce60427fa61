# SPDX-License-Identifier: GPL-2.0-or-later
"""What a scrape takes, and what it takes from the controller.

`scrape`: a real exporter beside a real controller, with 1, 100 and 300 groups, asked
over HTTP again and again: milliseconds to the last byte, and of those the CPU's
that the exporter took in the mean. The baseline is the same figure with one group.

`react_p99`: as in `react`, with 300 groups; the same controller in turns without
scrapes and with one a second. The baseline is the percentile of all turns without;
`react_p99_quiet` sets one half of these against the other.
"""

import http.client
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from benchmarks.controlled import Site, command, controller, cpu_ticks, settle, site
from benchmarks.react import flip
from benchmarks.rows import Row, options, report
from pyfailover.lab import Lab, eventually, scratch_roots

_SIZES = (1, 100, 300)
_HOST, _PORT = "127.0.0.1", 9909
_EVERY_S = 1.0
_WITHIN_S = 30.0


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    scrapes, turns, switches = (5, 1, 30) if chosen.quick else (50, 4, 300)
    rows: list[Row] = []
    for groups in _SIZES:
        with Lab() as lab, scratch_roots() as roots:
            made = site(lab, roots, groups)
            with controller(made.host, roots) as running, exporter(made) as pid:
                settle(running)
                rows += _scrapes(made, pid, scrapes, rows[:3])
                if groups == _SIZES[-1]:
                    rows += _reactions(made, turns, switches)
    report("scrape", rows, chosen)


@contextmanager
def exporter(made: Site) -> Iterator[int]:
    """A real one, that answers; its process."""
    argv = command(made.host, made.roots, "export", f"--listen={_HOST}:{_PORT}")
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        with suppress(ConnectionRefusedError):
            return bool(scrape(made))
        return False

    try:
        eventually(answers, timeout=_WITHIN_S, what="an exporter that answers")
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def scrape(made: Site) -> float:
    """Seconds from connecting to the last byte."""
    start = time.monotonic()
    connection = http.client.HTTPConnection(_HOST, _PORT, timeout=_WITHIN_S)
    with made.host.enter():
        connection.connect()
    connection.request("GET", "/metrics")
    body = connection.getresponse().read()
    took = time.monotonic() - start
    connection.close()
    assert body.count(b"pyfailover_group_slaves{") == made.groups
    assert b"pyfailover_controller_up 1.0" in body
    return took


def _scrapes(made: Site, pid: int, count: int, first: list[Row]) -> list[Row]:
    """The figures of one size; the first size is everybody's baseline."""
    ticks = cpu_ticks(pid)
    took_ms = [scrape(made) * 1e3 for _ in range(count)]
    found = {
        "p50": statistics.median(took_ms),
        "p90": statistics.quantiles(took_ms, n=10)[8],
        "cpu": (cpu_ticks(pid) - ticks) * 10 / count,
    }
    baseline = [row.value for row in first] or [*found.values()]
    return [
        Row(
            case=f"scrape_{name}_{made.groups}",
            value=value,
            unit="ms",
            baseline=of_one,
            better="lower",
        )
        for (name, value), of_one in zip(found.items(), baseline, strict=True)
    ]


@contextmanager
def _scraping(made: Site) -> Iterator[None]:
    """One scrape a second."""
    stop = threading.Event()

    def go_on() -> None:
        while not stop.wait(_EVERY_S):
            scrape(made)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _reactions(made: Site, turns: int, switches: int) -> list[Row]:
    quiet: tuple[list[float], list[float]] = ([], [])
    scraped: list[float] = []
    for _ in range(turns):
        quiet[0].extend(flip(made, switches))
        with _scraping(made):
            scraped += flip(made, switches)
        quiet[1].extend(flip(made, switches))
    return [
        _p99(made, "scraped", scraped, quiet[0] + quiet[1]),
        _p99(made, "quiet", quiet[1], quiet[0]),
    ]


def _p99(made: Site, name: str, took: list[float], baseline: list[float]) -> Row:
    value, base = (statistics.quantiles(each, n=100)[98] for each in (took, baseline))
    return Row(
        case=f"react_p99_{name}_{made.groups}",
        value=value,
        unit="ms",
        baseline=base,
        better="lower",
    )


if __name__ == "__main__":
    main()
