# SPDX-License-Identifier: GPL-2.0-or-later
"""The alerts: each fires when it should, in these words, and stays silent else.

Prometheus's own promtool judges them, on series that are made up.
"""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.tools import tool

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "dashboards" / "alerts.yml"
OPERATIONS = ROOT / "docs" / "operations.md"
METRICS = ROOT / "docs" / "metrics.md"

HOST = {"job": "pyfailover", "instance": "h:9909"}
GROUP = {**HOST, "master": "fo0"}
SEVERITIES = {"critical", "warning", "info"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """Series, a value every 15 s (`_`: a scrape that was missed), and what of it."""

    alert: str
    series: Mapping[str, str]  # name and further labels: values
    at: str  # when it is judged
    labels: Mapping[str, str] | None = None  # of the alert; None: it is silent
    severity: str = ""
    summary: str = ""
    description: str = ""
    about: Mapping[str, str] = field(default_factory=lambda: GROUP)

    def as_data(self) -> dict[str, Any]:
        """As promtool has it."""
        return {
            "interval": "15s",
            "input_series": [
                {"series": _series(name, self.about), "values": values}
                for name, values in self.series.items()
            ],
            "alert_rule_test": [
                {
                    "eval_time": self.at,
                    "alertname": self.alert,
                    "exp_alerts": [] if self.labels is None else [self._expected()],
                }
            ],
        }

    def _expected(self) -> dict[str, Any]:
        assert self.labels is not None
        return {
            "exp_labels": {**self.labels, "severity": self.severity},
            "exp_annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook": f"docs/operations.md#{self.alert.lower()}",
            },
        }


def _series(name: str, about: Mapping[str, str]) -> str:
    """A series of what a case is about; what its name says itself goes first."""
    name, _, own = name.partition("{")
    given = own.rstrip("}")
    labels = [f'{key}="{value}"' for key, value in about.items() if key not in given]
    return name + "{" + ", ".join([given] * bool(given) + labels) + "}"


USABLE = "pyfailover_group_usable_slaves"
SLAVES = "pyfailover_group_slaves"
IDLE = 'pyfailover_group_health{health="idle"}'
RANK = "pyfailover_group_active_rank"
PRIMARY = 'pyfailover_slave_up{slave="eth1", rank="0"}'
PINNED = "pyfailover_group_pinned"
LAST = "pyfailover_group_last_switch_timestamp_seconds"
UP = "pyfailover_controller_up"
ATTACHED = 'pyfailover_groups{state="attached"}'
BY_NETLINK = 'pyfailover_group_info{carrier_test="netlink"}'
BY_KERNEL = 'pyfailover_group_info{carrier_test="kernel"}'
DATAPATH = "pyfailover_datapath_up"
PRESENT = 'pyfailover_attachment_present{interface="eth1"}'
REPAIRS = "pyfailover_repairs_total"
OVERRUNS = "pyfailover_netlink_overruns_total"
RELOADED = "pyfailover_config_last_reload_successful"
TROUBLE = "pyfailover_group_trouble"

FIRES = [
    Case(
        alert="PyfailoverNoUsableSlave",
        series={USABLE: "2 0x10", IDLE: "0x10"},
        at="1m",
        labels=GROUP,
        severity="critical",
        summary="No slave of fo0 on h:9909 can carry traffic.",
        description="All slaves of fo0 have been down, without carrier or detached for "
        "30 s; what is sent through it is dropped.",
    ),
    Case(
        alert="PyfailoverRedundancyLost",
        series={USABLE: "2 1x30", SLAVES: "2x30"},
        at="6m",
        labels=GROUP,
        severity="warning",
        summary="fo0 on h:9909 lacks a slave.",
        description="Only 1 slaves of fo0 could carry its traffic for 5 minutes; if "
        "they fail, too, it is cut off.",
    ),
    Case(
        alert="PyfailoverFlapping",
        series={LAST: "1+100x6 700x40"},
        at="3m",
        labels=GROUP,
        severity="warning",
        summary="fo0 on h:9909 moves from slave to slave.",
        description="The active slave of fo0 was another at 7 of the scrapes of 10 "
        "minutes.",
    ),
    Case(
        alert="PyfailoverOnStandby",
        series={RANK: "0 1x250", PRIMARY: "1x250", PINNED: "0x250"},
        at="61m",
        labels=GROUP,
        severity="info",
        summary="fo0 on h:9909 has run on a standby for an hour.",
        description="The slave of rank 1 carries the traffic of fo0, not the primary, "
        "and nobody has pinned it there.",
    ),
    Case(
        alert="PyfailoverControllerGone",
        series={UP: "1 0x20", ATTACHED: "1x20"},
        at="3m",
        labels=HOST,
        severity="warning",
        summary="No controller answers on h:9909, though groups are attached.",
        description="Traffic goes on. Nothing is brought back to the primary, mended "
        "or announced until there is a controller again.",
        about=HOST,
    ),
    Case(
        alert="PyfailoverNobodyFailsOver",
        series={UP: "1 0x20", BY_NETLINK: "1x20"},
        at="3m",
        labels={**GROUP, "carrier_test": "netlink"},
        severity="critical",
        summary="fo0 on h:9909 would not survive a failure.",
        description="Its programs do not look at links, and no controller answers that "
        "would move the traffic of fo0 when its active slave dies.",
    ),
    Case(
        alert="PyfailoverDatapathMissing",
        series={DATAPATH: "1 0x10"},
        at="2m",
        labels=HOST,
        severity="critical",
        summary="The programs of attached groups are not loaded on h:9909.",
        description="There are groups that were attached, and the pins of their "
        "programs are gone; no controller has put them back for a minute.",
        about=HOST,
    ),
    Case(
        alert="PyfailoverAttachmentMissing",
        series={PRESENT: "1 0x20"},
        at="3m",
        labels={**GROUP, "interface": "eth1"},
        severity="critical",
        summary="The programs of fo0 are not on eth1 (h:9909).",
        description="Somebody detached them from eth1, and no controller has put them "
        "back for 2 minutes; traffic of fo0 does not get through there.",
    ),
    Case(
        alert="PyfailoverRepairsRepeating",
        series={REPAIRS: "0+1x10 10x110"},
        at="30m",
        labels=GROUP,
        severity="warning",
        summary="Somebody keeps changing what belongs to fo0 on h:9909.",
        description="The controller had to put something of fo0 right 10 times in half "
        "an hour.",
    ),
    Case(
        alert="PyfailoverNetlinkOverruns",
        series={OVERRUNS: "0x4 5x60"},
        at="15m",
        labels=HOST,
        severity="warning",
        summary="The controller on h:9909 cannot keep up with link events.",
        description="Netlink dropped messages for it 5 times in 15 minutes; after each "
        "it compares everything anew, and decides later.",
        about=HOST,
    ),
    Case(
        alert="PyfailoverReloadFailed",
        series={RELOADED: "1 0x30"},
        at="6m",
        labels=HOST,
        severity="warning",
        summary="The files of lasting groups on h:9909 have an error.",
        description="The last reload failed: what runs goes on, and a restart would "
        "not bring about what the files were meant to say.",
        about=HOST,
    ),
    Case(
        alert="PyfailoverTrouble",
        series={TROUBLE: "0 1x30"},
        at="6m",
        labels=GROUP,
        severity="warning",
        summary="The controller on h:9909 cannot do what fo0 needs.",
        description="For 5 minutes it could not attach or mend fo0, or have it follow; "
        "'pyfailover status' says why.",
    ),
    Case(
        alert="PyfailoverExporterGone",
        series={"up": "1 0x30"},
        at="6m",
        labels=HOST,
        severity="warning",
        summary="Nobody tells of pyfailover on h:9909.",
        description="Prometheus had no answer from h:9909 for 5 minutes, so no other "
        "alert of this host can fire.",
        about=HOST,
    ),
]

SILENT = {
    "a failover": [
        Case(alert="PyfailoverNoUsableSlave", series={USABLE: "2 0 1x8"}, at="1m"),
        Case(
            alert="PyfailoverRedundancyLost",
            series={USABLE: "2 1x10 2x10", SLAVES: "2x20"},
            at="5m",
        ),
        Case(alert="PyfailoverFlapping", series={LAST: "1 2x40"}, at="5m"),
    ],
    "just before it is time": [
        Case(alert="PyfailoverNoUsableSlave", series={USABLE: "2 0x10"}, at="30s"),
        Case(
            alert="PyfailoverRedundancyLost",
            series={USABLE: "2 1x30", SLAVES: "2x30"},
            at="5m",
        ),
        Case(alert="PyfailoverFlapping", series={LAST: "1+100x5 501x40"}, at="3m"),
        Case(
            alert="PyfailoverOnStandby",
            series={RANK: "0 1x250", PRIMARY: "1x250", PINNED: "0x250"},
            at="60m",
        ),
        Case(alert="PyfailoverAttachmentMissing", series={PRESENT: "1 0x20"}, at="2m"),
        Case(
            alert="PyfailoverRepairsRepeating",
            series={REPAIRS: "0+1x3 3x120"},
            at="30m",
        ),
        Case(
            alert="PyfailoverNetlinkOverruns",
            series={OVERRUNS: "0x4 2x60"},
            at="15m",
            about=HOST,
        ),
        Case(alert="PyfailoverTrouble", series={TROUBLE: "0 1x30"}, at="5m"),
        Case(
            alert="PyfailoverReloadFailed",
            series={RELOADED: "1 0x30"},
            at="5m",
            about=HOST,
        ),
    ],
    "scrapes that were missed": [
        Case(alert="PyfailoverNoUsableSlave", series={USABLE: "2 2 _ _ 2x8"}, at="1m"),
        Case(
            alert="PyfailoverExporterGone",
            series={"up": "1 0 0 1x20"},
            at="5m",
            about=HOST,
        ),
    ],
    "a restart of the controller": [
        Case(
            alert="PyfailoverControllerGone",
            series={UP: "1 0x4 1x20", ATTACHED: "1x20"},
            at="3m",
            about=HOST,
        ),
        Case(
            alert="PyfailoverNobodyFailsOver",
            series={UP: "1 0x4 1x20", BY_NETLINK: "1x20"},
            at="3m",
        ),
        Case(
            alert="PyfailoverDatapathMissing",
            series={DATAPATH: "1 0 0 1x20"},
            at="2m",
            about=HOST,
        ),
        Case(
            alert="PyfailoverRepairsRepeating",
            series={REPAIRS: "9x10 _ 0x100"},
            at="25m",
        ),
    ],
    "no controller, and none needed": [
        Case(
            alert="PyfailoverControllerGone",
            series={UP: "0x20", ATTACHED: "0x20"},
            at="5m",
            about=HOST,
        ),
        Case(
            alert="PyfailoverNobodyFailsOver",
            series={UP: "0x20", BY_KERNEL: "1x20"},
            at="5m",
        ),
    ],
    "a master that is not attached": [
        Case(
            alert="PyfailoverNoUsableSlave",
            series={USABLE: "0x20", IDLE: "1x20"},
            at="5m",
        ),
    ],
    "as the operator wants it": [
        Case(
            alert="PyfailoverOnStandby",
            series={RANK: "1x300", PRIMARY: "1x300", PINNED: "1x300"},
            at="70m",
        ),
        # a group of standbys alone has none of rank 0
        Case(alert="PyfailoverOnStandby", series={RANK: "1x300"}, at="70m"),
    ],
}


@pytest.fixture(scope="module")
def rules() -> dict[str, dict[str, Any]]:
    """The alerts by name."""
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def judged(tmp_path: Path, *cases: Case) -> subprocess.CompletedProcess[str]:
    """What promtool says to cases."""
    data = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "15s",
        "tests": [case.as_data() for case in cases],
    }
    path = tmp_path / "cases.yml"
    path.write_text(yaml.safe_dump(data))
    argv = [str(tool("promtool")), "test", "rules", str(path)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("case", FIRES, ids=lambda case: case.alert)
def test_fires(tmp_path: Path, case: Case) -> None:
    """With these labels and words."""
    done = judged(tmp_path, case)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("cases", SILENT.values(), ids=SILENT)
def test_is_silent(tmp_path: Path, cases: list[Case]) -> None:
    """At a thing that nobody should be told of."""
    done = judged(tmp_path, *cases)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_case_may_fail(tmp_path: Path) -> None:
    """What is expected and does not come is seen, and the other way round."""
    for case in (FIRES[0], SILENT["just before it is time"][0]):
        swapped = {
            **vars(case),
            "labels": GROUP if case.labels is None else None,
        }
        assert judged(tmp_path, Case(**swapped)).returncode != 0


def test_each_alert_has_cases(rules: dict[str, Any]) -> None:
    """One in which it fires, and one at least in which it is silent."""
    assert [case.alert for case in FIRES] == list(rules)
    assert {c.alert for cases in SILENT.values() for c in cases} == set(rules)


def test_the_file_is_good(rules: dict[str, Any]) -> None:
    """By promtool, and each says how bad it is and where to read on."""
    subprocess.run([tool("promtool"), "check", "rules", ALERTS], check=True)
    for name, rule in rules.items():
        assert rule["labels"].keys() == {"severity"}
        assert rule["labels"]["severity"] in SEVERITIES
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"


def test_each_alert_has_its_chapter(rules: dict[str, Any]) -> None:
    """In the order of the file, and there is none of an alert that is no more."""
    text = OPERATIONS.read_text().partition("## Alerts: what to do")[2]
    section = text.partition("\n## ")[0]
    assert re.findall(r"^### (\w+)$", section, re.MULTILINE) == list(rules)


def test_rules_ask_for_metrics_that_there_are(rules: dict[str, Any]) -> None:
    """By their documentation."""
    documented = set(re.findall(r"`(pyfailover_\w+)", METRICS.read_text()))
    asked = {
        name
        for rule in rules.values()
        for name in re.findall(r"\bpyfailover_\w+", rule["expr"])
    }
    assert len(asked) > 10
    assert asked - documented == set()
