# SPDX-License-Identifier: GPL-2.0-or-later
"""Every query of the dashboard, asked of a real Prometheus while slaves fail.

`pytest -s` shows how many series each query returned.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pyfailover.history import Kind
from pyfailover.lab import Lab, eventually
from pyfailover.model import MacPolicy
from tests.support.daemon import Daemon, controller
from tests.support.dashboard import Query, filled, load, queries, variables
from tests.support.declared import declare
from tests.support.prometheus import (
    EXPORTER,
    JOB,
    SCRAPE_S,
    Prometheus,
    exporter,
    prometheus,
)
from tests.support.streams import deliver, exchange
from tests.support.tool import Tool, spec
from tests.support.topology import Duo, duo

INSTANCE = "host1"

_FOUND_S = 20.0  # a scrape takes 10 ms; a rate wants two of them
_REACT_S = 20.0

# As Grafana fills its own in, at this scrape interval; variables of the dashboard are
# at "All".
_STEP_S = 1.0
_RANGE_S = 60.0
_FILLED = {
    "__interval": f"{_STEP_S:.0f}s",
    "__rate_interval": f"{max(_STEP_S + SCRAPE_S, 4 * SCRAPE_S):.0f}s",
    "__range": f"{_RANGE_S:.0f}s",
    **{variable["name"]: variable["allValue"] for variable in variables(load())},
}


def _switched(daemon: Daemon, number: int) -> None:
    eventually(
        lambda: len(daemon.events(Kind.SWITCH)) >= number,
        timeout=_REACT_S,
        what=f"{number} switches",
    )


@contextmanager
def _life(pair: Duo, tool: Tool, server: Prometheus) -> Iterator[None]:
    """Two controllers, one after the other; a kernel's, a controller's and a user's
    switch; at the end one group without redundancy and one that waits."""
    ns = pair.host
    with controller(tool, ns) as daemon, exchange(ns, pair.far, rate=500) as streams:
        deliver(*streams)
        eventually(lambda: server.query("pyfailover_controller_up"), timeout=_FOUND_S)
        pair.cut(1)  # under traffic: a program finds out
        pair.cut(3)  # without: the controller hears of it
        _switched(daemon, 2)
        deliver(*streams)
        pair.mend(1)
        _switched(daemon, 3)
        daemon.stop()
        declare(tool, ns, "fo2", primary="eth9", standbys=["eth8"], create=False)
        with controller(tool, ns):
            tool.command(ns, "switch", "fo0", "eth2")
            yield


@pytest.fixture
def live(lab: Lab, tool: Tool) -> Iterator[Prometheus]:
    """A Prometheus that has seen all that can happen to two groups."""
    pair = duo(lab, slaves=4, equal_macs=False)
    tool.create(pair.host, spec(mac=MacPolicy.CLONE))
    tool.create(pair.host, spec("fo1", "eth3", ("eth4",), mac=MacPolicy.CLONE))
    pair.address()
    pair.settle()
    with (
        prometheus(pair.host, {INSTANCE: EXPORTER}) as server,
        exporter(tool, pair.host),
        _life(pair, tool, server),
    ):
        yield server


def _asked(server: Prometheus, query: Query) -> list[Any]:
    """What a query returns at the moment."""
    expr = filled(query.expr, _FILLED)
    if query.label is not None:
        return list(server.label_values(query.label, expr))
    if query.instant:
        return server.query(expr)
    now = time.time()
    return server.range(expr, now - _RANGE_S, now, _STEP_S)


def test_every_query_returns_data(live: Prometheus) -> None:
    """Each query of every panel, variable and annotation has at least one series;
    what there is can be chosen."""
    missing = list(queries(load()))
    found: dict[str, int] = {}

    def all_found() -> bool:
        for query in [*missing]:
            if number := len(_asked(live, query)):
                found[query.where] = number
                missing.remove(query)
        return not missing

    try:
        eventually(all_found, timeout=_FOUND_S, what="data for every query")
    except TimeoutError as exc:
        exc.add_note("\n".join(f"nothing for {q.where}: {q.expr}" for q in missing))
        raise
    for where, number in found.items():
        sys.stdout.write(f"{number:4} {where}\n")
    values = {q.label: _asked(live, q) for q in queries(load()) if q.label}
    assert values == {"job": [JOB], "instance": [INSTANCE], "master": ["fo0", "fo1"]}
