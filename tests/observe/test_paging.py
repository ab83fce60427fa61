# SPDX-License-Identifier: GPL-2.0-or-later
"""One alert all the way: slaves fail, Prometheus notices, Alertmanager pages.

All of them are real, but for who is paged: a web server of a few lines. The rules
are those that are shipped, with their `for:` at a second.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from pyfailover.lab import Namespace, eventually
from tests.support.daemon import controller
from tests.support.prometheus import EXPORTER, JOB, prometheus
from tests.support.tool import Tool, spec
from tests.support.tools import tool as program
from tests.support.topology import Duo

ALERTS = Path(__file__).parents[2] / "dashboards" / "alerts.yml"
INSTANCE = "host1"
ALERTMANAGER = "127.0.0.1:9093"
_WITHIN_S = 40.0

# It is unpacked, not installed, and looks for its templates where they would be.
_WITH_SHARE = """
mount -t overlay overlay -o "lowerdir=$0:/usr/share" /usr/share && exec "$@"
"""


class Pager:
    """Who is paged: a webhook of Alertmanager's."""

    def __init__(self, server: ThreadingHTTPServer, pages: list[Any]) -> None:
        self.address = f"http://127.0.0.1:{server.server_address[1]}/"
        self._pages = pages

    def last(self, alert: str) -> Mapping[str, Any] | None:
        """What was said of an alert last."""
        said = [
            each
            for page in list(self._pages)
            for each in page["alerts"]
            if each["labels"]["alertname"] == alert
        ]
        return said[-1] if said else None

    def wait(self, alert: str, status: str) -> Mapping[str, Any]:
        """What is said once an alert is `firing`, or `resolved`."""

        def told() -> Mapping[str, Any] | None:
            found = self.last(alert)
            return found if found and found["status"] == status else None

        found = eventually(told, timeout=_WITHIN_S, what=f"{alert} {status}")
        assert found is not None
        return found


@contextmanager
def pager(ns: Namespace) -> Iterator[Pager]:
    """One that listens in a namespace."""
    pages: list[Any] = []

    class Webhook(BaseHTTPRequestHandler):
        """Takes pages down."""

        def do_POST(self) -> None:
            """A page."""
            length = int(self.headers["Content-Length"])
            pages.append(json.loads(self.rfile.read(length)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Requests are no news."""

    with ns.enter():
        server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Pager(server, pages)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def alertmanager(ns: Namespace, directory: Path, webhook: str) -> Iterator[None]:
    """A real one, which waits for no more alerts before it pages."""
    receiver = {"url": webhook, "send_resolved": True}
    config = {
        "route": {
            "receiver": "pager",
            "group_by": ["instance", "master"],
            "group_wait": "1s",
            "group_interval": "1s",
        },
        "receivers": [{"name": "pager", "webhook_configs": [receiver]}],
    }
    file, log = directory / "alertmanager.yml", directory / "alertmanager.log"
    file.write_text(yaml.safe_dump(config))
    subprocess.run(
        [program("amtool"), "check-config", file], check=True, capture_output=True
    )
    binary = program("prometheus-alertmanager")
    argv = ns.argv(
        *("unshare", "--mount", "sh", "-c", _WITH_SHARE, binary.parents[1] / "share"),
        binary,
        f"--config.file={file}",
        f"--storage.path={directory}/alertmanager",
        f"--web.listen-address={ALERTMANAGER}",
        "--cluster.listen-address=",
    )
    with log.open("wb") as stream:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=stream)
    try:
        eventually(
            lambda: "Listening" in log.read_text() or process.poll() is not None,
            timeout=_WITHIN_S,
            what="an Alertmanager that listens",
        )
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The shipped rules; what they wait for is a second."""
    data = yaml.safe_load(ALERTS.read_text())
    for group in data["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = "1s"
    path = tmp_path / "alerts.yml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_somebody_is_paged(pair: Duo, tool: Tool, tmp_path: Path, rules: Path) -> None:
    """All slaves are cut off: a page says of which host and master, how bad it is and
    where to read on. One has its carrier again: that is said, too."""
    host, alert = pair.host, "PyfailoverNoUsableSlave"
    tool.create(host, spec())
    with (
        controller(tool, host, f"--metrics={EXPORTER}"),
        pager(host) as paged,
        alertmanager(host, tmp_path, paged.address),
        prometheus(
            host, {INSTANCE: EXPORTER}, rules=rules, alertmanager=ALERTMANAGER
        ) as server,
    ):
        usable = "pyfailover_group_usable_slaves"
        eventually(lambda: server.query(usable), timeout=_WITHIN_S, what="a scrape")
        assert paged.last(alert) is None
        for number in (1, 2):
            pair.cut(number)
        page = paged.wait(alert, "firing")
        assert page["labels"] == {
            "alertname": alert,
            "instance": INSTANCE,
            "job": JOB,
            "master": "fo0",
            "severity": "critical",
        }
        assert page["annotations"]["summary"] == (
            f"No slave of fo0 on {INSTANCE} can carry traffic."
        )
        assert page["annotations"]["runbook"] == (
            "docs/operations.md#pyfailovernousableslave"
        )
        pair.mend(2)
        paged.wait(alert, "resolved")
