# SPDX-License-Identifier: GPL-2.0-or-later
"""What a dashboard must be: Grafana's schema, and the rules of Grafana's linter
(github.com/grafana/dashboard-linter, docs/index.md), told as a list of faults.

The linter itself is a Go program that is in no registry we use.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator

from tests.support.dashboard import panels, queries, variables

_SCHEMA = Path(__file__).parents[1] / "observe" / "dashboard.schema.json"

# Of an annotation @grafana/schema knows only what its own store of them has ("TODO..
# this should just be a normal query target"); these are Prometheus's.
_ANNOTATION = {"titleFormat": {"type": "string"}, "textFormat": {"type": "string"}}

# Metrics of a namespace as a whole: they have no label `master`.
_OF_NAMESPACE = (
    r"up|process_\w+|pyfailover_(?:controller_|config_|netlink_|scrape_)\w+|"
    r"pyfailover_(?:build_info|datapath_up|groups|resyncs_total|reloads_total|"
    r"announcement_errors_total|program_loads_total|switch_duration_seconds_bucket)"
)
_SELECTOR = re.compile(r"\b(up|process_\w+|pyfailover_\w+)\b(\{[^}]*\})?")
_RATE = re.compile(r"\b(?:rate|irate)\([^\[]*\[(?P<window>[^\]]*)\]")
_COUNTED = re.compile(
    r"(?P<call>\w+)?\((?P<metric>\w+_total)\b(?:\{[^}]*\})?(?P<window>\[)?"
)

# Counters shown as they are, by panel, and why.
NOT_RATES = {
    "Switches by reason": "a series is born at 1 with the first switch of its kind, "
    "which increase() would miss",
    "Program loads": "programs are loaded as a controller starts, before it is scraped",
    "Groups": "how often ever is the question: it is rare, and points to a bad link",
}

UNITS = {
    *("none", "pps", "bps", "s", "bytes", "percentunit", "ops"),
    *("dateTimeFromNow", "dtdurations"),
}


def faults(dashboard: Any) -> list[str]:
    """All that is wrong with a dashboard."""
    return [
        *_schema(dashboard),
        *_frame(dashboard),
        *(fault for panel in panels(dashboard) for fault in _panel(panel)),
        *_layout(dashboard),
        *_promql(dashboard),
    ]


def _schema(dashboard: Any) -> Iterator[str]:
    schema = json.loads(_SCHEMA.read_text())
    about = schema["definitions"]
    about["AnnotationQuery"]["properties"].update(_ANNOTATION)
    target = about["AnyPanel"]["anyOf"][0]["properties"]["targets"]["items"]
    about["AnnotationQuery"]["properties"]["target"] = target
    for error in Draft7Validator(_without_panels(schema)).iter_errors(dashboard):
        yield _told(error)
    kinds = {
        kind["properties"]["type"]["const"]: kind for kind in about["AnyPanel"]["anyOf"]
    }
    for panel in panels(dashboard):
        kind = kinds.get(panel["type"])
        if kind is None:
            yield f"panel '{panel['title']}': no such type: {panel['type']}"
            continue
        validator = Draft7Validator({**kind, "definitions": about})
        for error in validator.iter_errors(panel):
            yield f"panel '{panel['title']}': {_told(error)}"


def _without_panels(schema: Any) -> Any:
    """The schema in which any object is a panel: of "one of eight kinds" nobody would
    know which was meant. Each is judged by its own kind, see above."""
    return {
        **schema,
        "definitions": {**schema["definitions"], "AnyPanel": {"type": "object"}},
    }


def _told(error: Any) -> str:
    return f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"


def _frame(dashboard: Any) -> Iterator[str]:
    """template-*-rule: variables are there, and as Grafana's own mixins have them."""
    found = {v["name"]: v for v in dashboard["templating"]["list"]}
    if list(found) != ["datasource", "job", "instance", "master"]:
        yield f"variables: {list(found)}"
    source = found.get("datasource", {})
    if (source.get("type"), source.get("query"), source.get("label")) != (
        *("datasource", "prometheus"),
        "Data source",
    ):
        yield "variable 'datasource' is no choice of a Prometheus"
    for variable in variables(dashboard):
        name = variable["name"]
        wanted = {
            "label": name.title(),
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "multi": True,
            "includeAll": True,
            "allValue": ".+",
            "refresh": 2,  # with the time range
        }
        for key, value in wanted.items():
            if variable.get(key) != value:
                yield f"variable '{name}': {key} is not {value!r}"
    if dashboard.get("editable") is not False:
        yield "can be edited in place"


def _panel(panel: Any) -> Iterator[str]:
    """panel-*-rule: each says what it shows, in which unit, from where."""
    name = f"panel '{panel.get('title')}'"
    for key in ("title", "description", "targets"):
        if not panel.get(key):
            yield f"{name} has no {key}"
    for part in (panel, *panel["targets"]):
        if part.get("datasource", {}).get("uid") != "${datasource}":
            yield f"{name} does not ask the datasource that is chosen"
    field = panel["fieldConfig"]
    units = [field["defaults"].get("unit")] + [
        prop["value"]
        for override in field["overrides"]
        for prop in override["properties"]
        if prop["id"] == "unit"
    ]
    for unit in units:
        if unit not in UNITS:
            yield f"{name} has no unit that we use: {unit}"
    for target in panel["targets"]:
        several = panel["type"] in ("timeseries", "state-timeline", "bargauge")
        if several and "{{" not in target.get("legendFormat", ""):
            yield f"{name} {target['refId']}: series have no names"


def _layout(dashboard: Any) -> Iterator[str]:
    """Nothing lies on anything else, and every panel is below a row."""
    if dashboard["panels"][0]["type"] != "row":
        yield "the first panel is no row"
    ids = [p["id"] for p in (*dashboard["panels"], *panels(dashboard))]
    rows = [p for p in dashboard["panels"] if p["type"] == "row"]
    if len(set(ids)) != len(rows) + len(list(panels(dashboard))):
        yield "two panels have the same id"
    for level in (dashboard["panels"], *(row["panels"] for row in rows)):
        taken: dict[tuple[int, int], str] = {}
        for panel in level:
            at = panel["gridPos"]
            for x in range(at["x"], at["x"] + at["w"]):
                for y in range(at["y"], at["y"] + at["h"]):
                    if x >= 24 or (x, y) in taken:
                        other = taken.get((x, y), "the edge")
                        yield f"panel '{panel['title']}' lies on {other}"
                        return
                    taken[x, y] = panel["title"]


def _promql(dashboard: Any) -> Iterator[str]:
    """target-*-rule: every selector is bound to what is chosen, every rate to the
    interval that Grafana knows. That Prometheus understands all: test_live.py."""
    for query in queries(dashboard):
        for metric, braces in _SELECTOR.findall(query.expr):
            for variable in _wanted(metric, query.label):
                if f'{variable}=~"${variable}"' not in braces:
                    yield f"{query.where}: {metric} without {variable}"
        for found in _RATE.finditer(query.expr):
            if found["window"] != "$__rate_interval":
                yield f"{query.where}: rate over {found['window']}"
    for panel in panels(dashboard):
        for target in panel["targets"]:
            for found in _COUNTED.finditer(target["expr"]):
                rated = found["call"] in ("rate", "irate", "increase")
                if not rated and panel["title"] not in NOT_RATES:
                    yield f"panel '{panel['title']}': {found['metric']} as it is"


def _wanted(metric: str, label: str | None) -> list[str]:
    """Matchers that a selector must have; one that gives a variable its values has
    those of the variables before it."""
    if re.fullmatch(_OF_NAMESPACE, metric):
        bound = ["job", "instance"]
    else:
        bound = ["job", "instance", "master"]
    return bound[: bound.index(label)] if label in bound else bound
