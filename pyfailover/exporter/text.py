# SPDX-License-Identifier: GPL-2.0-or-later
"""Metrics in Prometheus' text format, version 0.0.4.

As prometheus_client's generate_latest(), which has to do with whatever names and
samples there may be: of 300 groups it would take longer than all the rest.
"""

from collections.abc import Iterable
from functools import lru_cache

from prometheus_client import Metric
from prometheus_client.samples import Sample

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_REMEMBERED = 4096  # values of labels, of which each is in many samples


def to_text(metrics: Iterable[Metric]) -> bytes:
    """Gauges, counters and histograms, with names that are good, without times."""
    parts: list[str] = []
    for metric in metrics:
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        text = metric.documentation.replace("\\", r"\\").replace("\n", r"\n")
        parts.append(f"# HELP {name} {text}\n# TYPE {name} {metric.type}\n")
        parts += map(_line, metric.samples)
    return "".join(parts).encode()


def _line(sample: Sample) -> str:
    value = repr(float(sample.value))
    if not sample.labels:
        return f"{sample.name} {value}\n"
    labels = ",".join([f'{k}="{_escaped(v)}"' for k, v in sample.labels.items()])
    return f"{sample.name}{{{labels}}} {value}\n"


@lru_cache(_REMEMBERED)
def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
