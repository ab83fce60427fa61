# SPDX-License-Identifier: GPL-2.0-or-later
"""Three hundred groups in one namespace, and all their primaries die at once."""

import json
from collections import Counter
from pathlib import Path

import pytest

from pyfailover import lifecycle
from pyfailover.history import Event, Kind
from pyfailover.lab import Lab, Namespace, eventually
from tests.support.daemon import Daemon, controller
from tests.support.tool import Tool, spec

GROUPS = 300
PATIENCE_S = 30
MAY_TAKE_KB = 60 << 10


def make_links(host: Namespace, far: Namespace) -> None:
    """Two slaves of each group, by veth pairs to namesakes at the far end."""
    host.batch(
        *(
            f"link add {end}{n} address 02:00:5e:11:{n >> 8:02x}:{n & 255:02x}"
            f" type veth peer name {end}{n} netns {far.name}"
            for n in range(GROUPS)
            for end in "ab"
        )
    )
    far.batch(*(f"link set {end}{n} up" for n in range(GROUPS) for end in "ab"))


def set_primaries(far: Namespace, state: str) -> None:
    """All of them at once: their carrier goes, or comes back."""
    far.batch(*(f"link set a{n} {state}" for n in range(GROUPS)))


def active(tool: Tool, host: Namespace) -> dict[str, str]:
    """The active slave of each group."""
    done = tool.command(host, "status", "--json", code=None)
    return {g["name"]: g["active"] for g in json.loads(done.stdout)["groups"]}


def resident_kb(pid: int) -> int:
    """What a process has in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1])


def switches(daemon: Daemon) -> list[Event]:
    """All of the history."""
    return daemon.events(Kind.SWITCH)


@pytest.mark.timeout(600)
def test_storm(lab: Lab, tool: Tool) -> None:
    """Every group moves to its standby and back, by one switch each; the controller's
    memory stays small, and a second one finds all of it as it was."""
    host, far = lab.namespace("host"), lab.namespace("far")
    make_links(host, far)
    with tool.locked(host) as locked:
        for n in range(GROUPS):
            wanted = spec(f"fo{n}", f"a{n}", (f"b{n}",))
            lifecycle.create(locked, wanted, max_groups=GROUPS)
    names = {f"fo{n}" for n in range(GROUPS)}
    primaries = {f"fo{n}": f"a{n}" for n in range(GROUPS)}
    standbys = {f"fo{n}": f"b{n}" for n in range(GROUPS)}
    with controller(tool, host) as daemon:
        assert f" ready groups={GROUPS}" in daemon.log()
        assert active(tool, host) == primaries
        set_primaries(far, "down")
        eventually(
            lambda: len(switches(daemon)) >= GROUPS, timeout=PATIENCE_S, what="failover"
        )
        assert active(tool, host) == standbys
        set_primaries(far, "up")
        eventually(
            lambda: len(switches(daemon)) >= 2 * GROUPS,
            timeout=PATIENCE_S,
            what="fail-back",
        )
        assert active(tool, host) == primaries
        assert resident_kb(daemon.pid) < MAY_TAKE_KB
        told = switches(daemon)
        assert daemon.status()["troubles"] == {}
        assert daemon.status()["counts"]["repairs"] == 0
        daemon.kill()
    moves = Counter((e.group, e.before, e.after, e.reason) for e in told)
    assert moves == Counter(
        {(n, primaries[n], standbys[n], "carrier_lost"): 1 for n in names}
        | {(n, standbys[n], primaries[n], "preferred"): 1 for n in names}
    )
    with controller(tool, host) as daemon:
        assert f" ready groups={GROUPS}" in daemon.log()
        assert active(tool, host) == primaries
        assert switches(daemon) == told
        assert resident_kb(daemon.pid) < MAY_TAKE_KB
