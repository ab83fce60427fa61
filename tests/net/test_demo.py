# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo as a person runs it, to its end and interrupted."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pyfailover.place import NETNS_DIR, Roots

PYFAILOVER = str(Path(sys.executable).with_name("pyfailover"))


@pytest.fixture
def command(roots: Roots) -> list[str]:
    """The demo with pins of its own."""
    ours = (f"--pin-root={roots.pins}", f"--cache-root={roots.cache}")
    return [PYFAILOVER, *ours, "demo"]


def left_behind(output: str, roots: Roots) -> list[Path]:
    """Namespaces that the demo named, and its pins."""
    named = [NETNS_DIR / name for name in re.findall(r"pf-\w+-\w+", output)]
    pins = roots.pins.parent.glob(f"{roots.pins.name}*")
    return [path for path in (*named, *pins) if path.exists()]


def test_demo_fails_over_and_cleans_up(command: list[str], roots: Roots) -> None:
    """Every event ends on the right slave with no packet twice, none is lost where
    no slave died, every switch is told as it happens, and nothing is left behind."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(
        r"^(\S.{30}) (eth\d) +(\d+) +(\d+) +(\d+) ", done.stdout, re.MULTILINE
    )
    assert len(rows) == 13
    assert {int(duplicated) for *_, duplicated in rows} == {0}
    assert all(int(sent) > 0 for _, _, sent, _, _ in rows)
    deadly = ("loses its carrier", "unplugged", "cut after")
    for what, slave, _, lost, _ in rows:
        died = any(word in what for word in deadly)
        on_standby = ("switch to eth2", "the controller is started")
        assert slave == ("eth2" if died or what.startswith(on_standby) else "eth1")
        assert died or lost == "0", what
    for told in (
        "switch eth1 -> eth2 (carrier_lost, by kernel)",
        "switch eth2 -> eth1 (preferred, by controller)",
        "switch eth1 -> eth2 (operator, by user)",
        "leave",
        "join eth1",
        "degraded",
        "whole",
    ):
        assert told in done.stdout
    assert "intact" in done.stdout
    assert left_behind(done.stdout, roots) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["namespace", "numbered", "unplugged"])
def test_interrupted_demo_cleans_up(
    command: list[str], roots: Roots, number: signal.Signals, moment: str
) -> None:
    """Ctrl-C or SIGTERM at any moment leaves nothing behind and exits with 130."""
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert running.stdout is not None
    output = ""
    for line in running.stdout:
        output += line
        if moment in line:
            break
    running.send_signal(number)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130, errors
    assert left_behind(output, roots) == []
