# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows of a benchmark: the command line, alternating runs, the table, the JSON."""

import argparse
import json
import os
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case; `ratio` is value / baseline."""

    case: str
    value: float
    unit: str
    baseline: float
    better: Better

    @property
    def ratio(self) -> float:
        """Value over baseline; not a number without a baseline."""
        return self.value / self.baseline if self.baseline else float("nan")


@dataclass(frozen=True, slots=True)
class Options:
    """What every benchmark takes."""

    quick: bool
    json: Path | None


def options(description: str | None) -> Options:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="few and short runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rows here")
    found = parser.parse_args()
    return Options(found.quick, found.json)


def alternate(
    cases: dict[str, Callable[[], float]], runs: int
) -> dict[str, list[float]]:
    """Run all cases in turn, `runs` times: noise that lasts hits them all alike."""
    values: dict[str, list[float]] = {case: [] for case in cases}
    for number in range(runs):
        order = list(cases) if number % 2 == 0 else list(reversed(cases))
        for case in order:
            values[case].append(cases[case]())
    return values


def median_ratio(values: list[float], baseline: list[float]) -> float:
    """Median of the ratios of runs that were neighbours in time."""
    return statistics.median(v / b for v, b in zip(values, baseline, strict=True))


def report(name: str, rows: list[Row], chosen: Options) -> None:
    """Print the table and write the JSON."""
    print(f"{name} on Linux {os.uname().release}")
    width = max(24, *(len(row.case) for row in rows))
    print(f"{'case':<{width}} {'value':>14} {'baseline':>14} {'ratio':>7}  unit")
    for row in rows:
        print(
            f"{row.case:<{width}} {row.value:>14.5g} {row.baseline:>14.5g} "
            f"{row.ratio:>7.3f}  {row.unit}, {row.better} is better"
        )
    if chosen.json:
        body = {
            "benchmark": name,
            "kernel": os.uname().release,
            "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
        }
        chosen.json.write_text(json.dumps(body, indent=2) + "\n")
