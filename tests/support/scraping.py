# SPDX-License-Identifier: GPL-2.0-or-later
"""A Prometheus that is a few lines long: scrapes, and samples by name and labels."""

import http.client
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from pyfailover.lab import Namespace, eventually
from tests.support.daemon import USER
from tests.support.tool import Tool

_PATIENCE_S = 20.0
_HOST, _PORT = "127.0.0.1", 9909


@dataclass(frozen=True)
class Scrape:
    """What one answer had."""

    text: str

    @property
    def families(self) -> list[Metric]:
        """By the parser of prometheus_client."""
        return list(text_string_to_metric_families(self.text))

    def get(self, name: str, **labels: str) -> float | None:
        """The value of one sample of ours; None: there is none. `from_` is `from`.

        Labels that are not named may be any; there must not be several then.
        """
        wanted = {key.rstrip("_"): text for key, text in labels.items()}
        found = [
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == f"pyfailover_{name}"
            and wanted.items() <= sample.labels.items()
        ]
        assert len(found) < 2, (name, labels, found)
        return found[0] if found else None

    def series(self, name: str) -> dict[tuple[str, ...], float]:
        """All samples of a name of ours, by the values of their labels, sorted."""
        return {
            tuple(sample.labels[key] for key in sorted(sample.labels)): sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == f"pyfailover_{name}"
        }


def scrape(
    ns: Namespace, *, tls: ssl.SSLContext | None = None, port: int = _PORT
) -> Scrape:
    """Ask an exporter that listens in a namespace.

    Raises:
        OSError: nobody answers, or not us.
    """
    client: http.client.HTTPConnection
    if tls is None:
        client = http.client.HTTPConnection(_HOST, port, timeout=_PATIENCE_S)
    else:
        client = http.client.HTTPSConnection(
            _HOST, port, timeout=_PATIENCE_S, context=tls
        )
    try:
        with ns.enter():
            client.connect()
        client.request("GET", "/metrics")
        answer = client.getresponse()
        body = answer.read().decode()
    finally:
        client.close()
    assert answer.status == 200, body
    return Scrape(body)


def answers(ns: Namespace) -> bool:
    """Whether somebody takes connections."""
    client = http.client.HTTPConnection(_HOST, _PORT, timeout=_PATIENCE_S)
    try:
        with ns.enter():
            client.connect()
    except ConnectionRefusedError:
        return False
    finally:
        client.close()
    return True


@contextmanager
def exporter(
    tool: Tool, ns: Namespace, *args: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """A real one that listens; what it said is a note on whatever fails meanwhile."""
    with TemporaryDirectory(prefix="pyfailover-log-") as scratch:
        log = Path(scratch) / "log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                tool.argv(ns, "export", f"--user={USER}", *args), stderr=stream
            )
        try:
            eventually(
                lambda: answers(ns) or process.poll() is not None,
                timeout=_PATIENCE_S,
                what="an exporter that listens",
            )
            assert process.poll() is None
            yield process
        except BaseException as exc:
            exc.add_note(f"the exporter said:\n{log.read_text()}")
            raise
        finally:
            process.kill()
            process.wait()


def children(pid: int) -> list[int]:
    """Processes that one has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text().split()]


@dataclass(frozen=True)
class Keys:
    """Certificates of a test, as files."""

    directory: Path

    def file(self, name: str) -> str:
        """`ca.pem`, `NAME.pem`, `NAME.key`."""
        return str(self.directory / name)

    def client(self, name: str | None) -> ssl.SSLContext:
        """A client that trusts the CA, and shows a certificate or none."""
        made = ssl.create_default_context(cafile=self.file("ca.pem"))
        if name is not None:
            made.load_cert_chain(self.file(f"{name}.pem"), self.file(f"{name}.key"))
        return made


def keys(directory: Path, *names: str) -> Keys:
    """A CA, and for each name a certificate of it for 127.0.0.1; one that begins with
    `foreign` signs itself."""
    made = Keys(directory)
    _openssl(made, "ca", {"-addext": "basicConstraints=critical,CA:TRUE"})
    for name in names:
        options = {"-addext": f"subjectAltName=IP:{_HOST}"}
        if not name.startswith("foreign"):
            options |= {"-CA": made.file("ca.pem"), "-CAkey": made.file("ca.key")}
        _openssl(made, name, options)
    return made


def _openssl(made: Keys, name: str, options: Mapping[str, str]) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", f"/CN={name}"),
            *("-keyout", made.file(f"{name}.key"), "-out", made.file(f"{name}.pem")),
            *(word for option in options.items() for word in option),
        ],
        check=True,
        capture_output=True,
    )
