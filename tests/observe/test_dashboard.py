# SPDX-License-Identifier: GPL-2.0-or-later
"""The dashboard is one that Grafana takes, and keeps the rules of Grafana's linter."""

import copy
import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.dashboard import PATH, load, panels
from tests.support.dashboard_rules import NOT_RATES, faults


def test_has_no_fault() -> None:
    """The schema and all rules hold."""
    assert faults(load()) == []


def test_is_written_as_json_writes_it() -> None:
    """Two spaces, nothing escaped: a change shows as what it is."""
    text = json.dumps(load(), indent=2, ensure_ascii=False) + "\n"
    assert PATH.read_text() == text


def test_exceptions_are_needed() -> None:
    """Each panel that may show counters as they are is there."""
    assert set(NOT_RATES) <= {panel["title"] for panel in panels(load())}


@pytest.mark.parametrize(
    "metric",
    [
        "pyfailover_group_usable_slaves",  # is anybody without redundancy
        "pyfailover_group_last_switch_timestamp_seconds",  # who switched lately
        "pyfailover_group_trouble",  # is anything unhealthy
        "pyfailover_attachment_present",
        "pyfailover_controller_up",
        "up",
    ],
)
def test_first_row_answers_who_is_on_call(metric: str) -> None:
    """Redundancy, the latest switches and what is unhealthy come before all else."""
    _, *rest = load()["panels"]
    first = itertools.takewhile(lambda panel: panel["type"] != "row", rest)
    asked = [target["expr"] for panel in first for target in panel["targets"]]
    assert any(re.search(rf"\b{metric}\{{", expr) for expr in asked)


# --- that faults are found ----------------------------------------------------


def _panel(dashboard: Any, title: str) -> Any:
    (found,) = (p for p in panels(dashboard) if p["title"] == title)
    return found


def _field(dashboard: Any, title: str) -> Any:
    return _panel(dashboard, title)["fieldConfig"]["defaults"]


def _rewrite(title: str, old: str, new: str) -> Callable[[Any], object]:
    def rewrite(dashboard: Any) -> None:
        target = _panel(dashboard, title)["targets"][0]
        assert old in target["expr"]
        target["expr"] = target["expr"].replace(old, new, 1)

    return rewrite


def _variable(number: int, **change: object) -> Callable[[Any], object]:
    return lambda d: d["templating"]["list"][number].update(change)


_WORK, _DROPS, _ACTIVE = "Work", "Drops", "Active slave"

SEEDS: list[tuple[Callable[[Any], object], str]] = [
    # the schema
    (lambda d: d.update(tittle="x"), "'tittle' was unexpected"),
    (lambda d: d["annotations"]["list"][0].pop("iconColor"), "'iconColor' is a req"),
    (lambda d: _field(d, _WORK)["custom"].update(lineWith=1), "lineWith"),
    (lambda d: _field(d, _ACTIVE)["thresholds"].update(mode="x"), "thresholds/mode"),
    (lambda d: _panel(d, _DROPS)["targets"][0].update(exprr=""), "exprr"),
    (lambda d: _panel(d, "Memory")["options"].update(legnd={}), "legnd"),
    (lambda d: _panel(d, _ACTIVE).update(type="status-timeline"), "no such type"),
    # variables
    (lambda d: d["templating"]["list"].pop(), "variables: "),
    (_variable(0, query="loki"), "no choice of a Prometheus"),
    (_variable(1, multi=False), "'job': multi"),
    (_variable(2, refresh=1), "'instance': refresh"),
    (_variable(3, allValue=".*"), "'master': allValue"),
    (
        _variable(2, query="label_values(pyfailover_build_info, instance)"),
        "without job",
    ),
    (lambda d: d.update(editable=True), "edited in place"),
    # panels
    (lambda d: _panel(d, _WORK).update(description=""), "no description"),
    (lambda d: _panel(d, _WORK).update(title=""), "no title"),
    (lambda d: _field(d, _DROPS).pop("unit"), "no unit"),
    (lambda d: _field(d, _DROPS).update(unit="packets"), "no unit"),
    (lambda d: _panel(d, _DROPS)["datasource"].update(uid="prom"), "datasource"),
    (lambda d: _panel(d, _DROPS)["targets"][0].pop("legendFormat"), "no names"),
    (lambda d: _panel(d, _DROPS)["gridPos"].update(x=0, y=2), "lies on"),
    (lambda d: _panel(d, "Memory")["gridPos"].update(x=20), "lies on the edge"),
    (lambda d: _panel(d, _DROPS).update(id=1), "same id"),
    # PromQL
    (_rewrite(_DROPS, 'job=~"$job", ', ""), "without job"),
    (_rewrite(_ACTIVE, 'instance=~"$instance"', 'instance="$instance"'), "instance"),
    (_rewrite(_ACTIVE, ', master=~"$master"', ""), "without master"),
    (_rewrite("Memory", "{", "+ up{"), "pyfailover_controller_process"),
    (_rewrite(_DROPS, "$__rate_interval", "5m"), "rate over 5m"),
    (_rewrite(_WORK, "rate(", "last_over_time("), "netlink_events_total as it is"),
    (
        lambda d: d["annotations"]["list"][0]["target"].update(expr="changes(up[1m])"),
        "annotation 'Switches': up without job",
    ),
]


@pytest.mark.parametrize(("seed", "told"), SEEDS, ids=[told for _, told in SEEDS])
def test_finds_a_seeded_fault(seed: Callable[[Any], object], told: str) -> None:
    """What is wrong with a copy is told, and where."""
    dashboard = copy.deepcopy(load())
    seed(dashboard)
    found = faults(dashboard)
    assert any(told in fault for fault in found), found
