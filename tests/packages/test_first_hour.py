# SPDX-License-Identifier: GPL-2.0-or-later
"""The first hour of a new user, as docs/operations.md tells it, on a fresh machine."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from pyfailover.lab import Lab, eventually
from tests.support.machine import FILES, VENV, Machine
from tests.support.tools import tool
from tests.support.topology import Duo, duo
from tests.support.walk import chapter, shape, walked

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs" / "operations.md"

pytestmark = pytest.mark.timeout(900)  # a root may have to be made

# What the chapter's lines for a shell come to where nothing can be downloaded.
PREPARE = f"""
{VENV}/bin/pip -q install --no-index --no-deps {FILES}/*.whl
ln -s {VENV}/bin/pyfailover /usr/local/bin/
cp -r {FILES}/deploy/pyfailover*@* /etc/systemd/system/
cp {FILES}/deploy/pyfailover.sysusers /usr/lib/sysusers.d/pyfailover.conf
cp {FILES}/deploy/pyfailover.tmpfiles /usr/lib/tmpfiles.d/pyfailover.conf
systemd-sysusers pyfailover.conf
install -m 755 {FILES}/prometheus {FILES}/promtool /usr/bin/
useradd --system prometheus
install -d -o prometheus /var/lib/prometheus /var/lib/prometheus/metrics2
mkdir -p /etc/prometheus
touch /etc/default/prometheus
cp {FILES}/prometheus.service /etc/systemd/system/
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A wheel, the units, and what Debian's package of Prometheus has."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    unpacked = tool("prometheus").parents[2]
    for path in ("usr/bin/prometheus", "usr/bin/promtool"):
        shutil.copy(unpacked / path, tmp_path)
    shutil.copy(unpacked / "lib/systemd/system/prometheus.service", tmp_path)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return tmp_path


@pytest.fixture
def fresh(files: Path) -> Iterator[tuple[Machine, Duo]]:
    """A machine with two NICs that nobody has configured."""
    with Lab() as lab:
        pair = duo(lab)
        with Machine(pair.host, files=files, prepare=PREPARE) as machine:
            yield machine, pair


def query(machine: Machine, asked: str) -> str:
    """What Prometheus answers."""
    words = ("promtool", "query", "instant", "http://127.0.0.1:9090", asked)
    return machine.run(*words, check=False).stdout


def world(machine: Machine, pair: Duo) -> dict[str, Callable[[], object]]:
    """What happens without a command."""

    def cable(state: str, *numbers: int, active: str | None) -> None:
        for number in numbers:
            (pair.mend if state == "plugged in" else pair.cut)(number)
        said = f"active {active or '-'}"
        eventually(
            lambda: said in machine.run("pyfailover", "status", check=False).stdout,
            timeout=30,
            what=said,
        )

    def known(what: str, asked: str) -> None:
        eventually(lambda: what in query(machine, asked), timeout=120, what=what)

    return {
        "the cable of eth1 is pulled": partial(cable, "pulled", 1, active="eth2"),
        "the cable of eth1 is plugged in": partial(
            cable, "plugged in", 1, active="eth1"
        ),
        "a moment passes": partial(known, "slave_ready", "pyfailover_slave_ready"),
        "both cables are pulled": partial(cable, "pulled", 1, 2, active=None),
        "half a minute passes": partial(
            known, "NoUsableSlave", 'ALERTS{alertstate="firing"}'
        ),
        "both cables are plugged in": partial(cable, "plugged in", 1, 2, active="eth1"),
    }


def walk(machine: Machine, pair: Duo, text: str) -> str:
    """The chapter with what really is said."""

    def run(line: str) -> str:
        done = machine.run("sh", "-c", f"{line} 2>&1", check=False, timeout=120)
        return done.stdout

    return walked(text, run=run, write=machine.write, acts=world(machine, pair))


def test_first_hour(fresh: tuple[Machine, Duo]) -> None:
    """Every output is real."""
    text = chapter(OPERATIONS.read_text(), "The first hour")
    assert text.count("\n# ") > 15
    assert shape(walk(*fresh, text)) == shape(text)
