# SPDX-License-Identifier: GPL-2.0-or-later
"""The dashboard as tests read it: its panels, and the queries of all its parts."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATH = Path(__file__).parents[2] / "dashboards" / "pyfailover.json"

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_LABEL_VALUES = re.compile(r"label_values\((?:(?P<of>.+),\s*)?(?P<label>\w+)\)")


@dataclass(frozen=True)
class Query:
    """One PromQL expression of the dashboard."""

    where: str
    expr: str
    instant: bool = False
    label: str | None = None  # of a variable: whose values are asked for


def load() -> Any:
    """The dashboard."""
    return json.loads(PATH.read_text())


def panels(dashboard: Any) -> Iterator[Any]:
    """All panels but rows, those in collapsed rows included."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def queries(dashboard: Any) -> Iterator[Query]:
    """All that Prometheus is asked: by panels, variables and annotations."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield Query(
                f"panel '{panel['title']}' {target['refId']}",
                target["expr"],
                instant=target.get("instant", False),
            )
    for variable in variables(dashboard):
        found = _LABEL_VALUES.fullmatch(variable["query"])
        assert found, variable["query"]
        name = f"variable '{variable['name']}'"
        yield Query(name, found["of"] or "", label=found["label"])
    for note in dashboard["annotations"]["list"]:
        yield Query(f"annotation '{note['name']}'", note["target"]["expr"])


def variables(dashboard: Any) -> Iterator[Any]:
    """Those whose values Prometheus is asked for."""
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable


def filled(expr: str, values: Mapping[str, str]) -> str:
    """An expression with values in the place of its variables, all of them."""
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], expr)
