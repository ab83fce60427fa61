# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Prometheus and a real exporter, in processes of their own."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from pyfailover.lab import Namespace, eventually
from tests.support.daemon import USER
from tests.support.tool import Tool
from tests.support.tools import tool

EXPORTER = "127.0.0.1:9909"
JOB = "pyfailover"
SCRAPE_S = 0.5
_INTERVALS = ("scrape_interval", "scrape_timeout", "evaluation_interval")
_START_S = 30.0
_ANSWER_S = 20.0
_READY = "Server is ready to receive web requests"
_LISTENS = re.compile(r'msg="Listening on" address=(\S+)')


class Prometheus:
    """A server that runs in a namespace, by its HTTP interface."""

    def __init__(self, ns: Namespace, address: str) -> None:
        self.address = address
        self._ns = ns

    def query(self, expr: str, at: float | None = None) -> list[Any]:
        """The series of an instant query.

        Args:
            at: Unix time; now, if not given.
        """
        when = {} if at is None else {"time": at}
        found: list[Any] = self._get("query", {"query": expr, **when})["result"]
        return found

    def range(self, expr: str, start: float, end: float, step: float) -> list[Any]:
        """The series of a range query; times and step in seconds."""
        asked = {"query": expr, "start": start, "end": end, "step": step}
        found: list[Any] = self._get("query_range", asked)["result"]
        return found

    def label_values(self, label: str, of: str) -> list[str]:
        """The values that a label has in the series of a selector."""
        found: list[str] = self._get(f"label/{label}/values", {"match[]": of})
        return found

    def _get(self, path: str, asked: Mapping[str, object]) -> Any:
        url = f"http://{self.address}/api/v1/{path}?{urlencode(asked)}"
        try:
            with self._ns.enter(), urlopen(url, timeout=_ANSWER_S) as answer:
                return json.load(answer)["data"]
        except HTTPError as exc:  # the body has what is wrong with a query
            with exc:
                exc.add_note(exc.read().decode())
            raise


@contextmanager
def prometheus(
    ns: Namespace,
    targets: Mapping[str, str],
    *,
    rules: Path | None = None,
    alertmanager: str | None = None,
) -> Iterator[Prometheus]:
    """A server in a namespace that scrapes exporters as the job 'pyfailover'.

    Args:
        targets: their addresses and ports, by what `instance` is to be.
        rules: a file of rules.
        alertmanager: the address and port of who is told of alerts.
    """
    exporters = [
        {"targets": [address], "labels": {"instance": instance}}
        for instance, address in targets.items()
    ]
    jobs = [{"job_name": JOB, "static_configs": exporters}]
    intervals = dict.fromkeys(_INTERVALS, f"{SCRAPE_S * 1000:.0f}ms")
    config: dict[str, Any] = {"global": intervals, "scrape_configs": jobs}
    if rules is not None:
        config["rule_files"] = [str(rules)]
    if alertmanager is not None:
        told = [{"static_configs": [{"targets": [alertmanager]}]}]
        config["alerting"] = {"alertmanagers": told}
    with TemporaryDirectory(prefix="pyfailover-prometheus-") as scratch:
        file, log = Path(scratch, "prometheus.yml"), Path(scratch, "log")
        file.write_text(yaml.safe_dump(config))
        argv = ns.argv(
            tool("prometheus"),
            f"--config.file={file}",
            f"--storage.tsdb.path={scratch}/data",
            "--web.listen-address=127.0.0.1:0",
        )
        with log.open("wb") as stream:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=stream)
        try:
            eventually(
                lambda: _READY in log.read_text() or process.poll() is not None,
                timeout=_START_S,
                what="a Prometheus that is ready",
            )
            found = _LISTENS.search(log.read_text())
            assert found is not None, log.read_text()
            yield Prometheus(ns, found[1])
        finally:
            process.kill()
            process.wait()


@contextmanager
def exporter(product: Tool, ns: Namespace, listen: str = EXPORTER) -> Iterator[None]:
    """`pyfailover export` in a process of its own; Prometheus waits until it listens.

    What it said is a note on whatever fails meanwhile.
    """
    with TemporaryFile() as log:
        process = subprocess.Popen(
            product.argv(ns, "export", f"--user={USER}", f"--listen={listen}"),
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            yield
            assert process.poll() is None, f"the exporter ended: {process.returncode}"
        except BaseException as exc:
            log.seek(0)
            exc.add_note(f"the exporter said:\n{log.read().decode()}")
            raise
        finally:
            process.kill()
            process.wait()
