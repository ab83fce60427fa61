# SPDX-License-Identifier: GPL-2.0-or-later
"""Pins and records of namespaces that are no more go; nobody else's do."""

import subprocess
from pathlib import Path

import pytest

from pyfailover.datapath.loading import in_use
from pyfailover.lab import Lab, eventually
from pyfailover.model import TcMode
from pyfailover.report import Health
from tests.support.tool import Tool, spec
from tests.support.topology import Duo, duo


def places(tool: Tool, pair: Duo) -> list[Path]:
    """Where the pins and the records of a host are."""
    pins = tool.pins(pair.host)
    return [pins, tool.roots.run / pins.name]


def test_dead_namespace_is_swept(lab: Lab, tool: Tool, tc: TcMode) -> None:
    """The next load in any namespace removes what a deleted one left, and nothing
    of those that live, by whatever way they are attached."""
    dead, alive, other = (duo(lab) for _ in range(3))
    for pair in (dead, alive):
        tool.create(pair.host, spec(tc=tc))
    left, kept = places(tool, dead), places(tool, alive)
    subprocess.run(["ip", "netns", "del", dead.host.name], check=True)
    assert all(path.exists() for path in (*left, *kept))
    # The kernel takes a namespace's devices away some time after its name.
    eventually(lambda: not in_use(left[0]), what="the devices are gone")
    tool.create(other.host, spec(tc=tc))
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)
    assert tool.status(alive.host).health is Health.OK
    assert tool.status(other.host).health is Health.OK


@pytest.mark.parametrize("name", ["precious/deeds.txt", "7-precious/deeds.txt", "lone"])
def test_what_is_not_ours_is_not_swept(pair: Duo, tool: Tool, name: str) -> None:
    """Somebody's files beside the records, as when --run-root is a directory that
    others use too, stay."""
    file = tool.roots.run / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    tool.create(pair.host, spec())
    assert file.read_text() == "mine"
