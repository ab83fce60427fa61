# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left of us where the records are lost: `detach --force` (C20)."""

import shutil
from pathlib import Path

from pyfailover.datapath import libbpf
from pyfailover.lab import eventually
from pyfailover.mending import Outcome
from pyfailover.model import TcMode
from pyfailover.report import Health
from tests.support.capture import EXPERIMENTAL
from tests.support.foreign import (
    bpf_objects,
    clsact,
    filter_dropping,
    filters,
    tcx_dropper,
)
from tests.support.snapshot import Snapshot, take
from tests.support.streams import deliver, exchange
from tests.support.tool import Tool, spec
from tests.support.topology import Duo


def attached(found: Snapshot) -> Snapshot:
    """Programs on hooks, pins and maps in a snapshot, where there are any."""
    kinds = ("tcx ", "filters ", "pins", "programs", "ports", "group ")
    return {k: v for k, v in found.items() if k.startswith(kinds) and v}


def mine(tool: Tool, pair: Duo) -> dict[str, set[int]]:
    """The kernel's ids of what this namespace has pinned, by sort."""
    found: dict[str, set[int]] = {"prog": set(), "map": set(), "link": set()}
    for kind, ids in found.items():
        for pin in (tool.pins(pair.host) / f"{kind}s").iterdir():
            with libbpf.opened(pin) as fd:
                info = Path(f"/proc/self/fdinfo/{fd}").read_text()
            words = dict(line.split(":", 1) for line in info.splitlines())
            ids.add(int(words[f"{kind}_id"]))
    return found


def wait_until_gone(kind: str, ids: set[int]) -> None:
    """Wait until the kernel has none of some programs, maps or links any more."""
    eventually(lambda: not bpf_objects(kind) & ids, what=f"no {kind} of ours")


def test_everything_of_ours_is_removed(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """With the records lost `detach --force` takes programs off all interfaces and
    removes pins; no program, map or link of ours is left in the kernel, and the
    group can be attached anew."""
    before = attached(take(tool, pair.host))
    tool.create(pair.host, spec(tc=tc))
    ours = mine(tool, pair)
    assert (len(ours["prog"]), len(ours["map"])) == (7, 9)
    assert len(ours["link"]) == (3 if tc is TcMode.TCX else 0)
    shutil.rmtree(tool.roots.run)
    done = tool.command(pair.host, "detach", "--force")
    if tc is TcMode.CLSACT:
        assert done.stdout.count("removed clsact attachment") == 3
    assert attached(take(tool, pair.host)) == before
    for kind, ids in ours.items():
        wait_until_gone(kind, ids)
    # The master is nobody's now, and can be attached like any other.
    assert tool.attach(pair.host, spec(tc=tc)) is Outcome.DONE
    assert tool.status(pair.host).health is Health.OK


def test_what_is_not_ours_stays(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """Filters and tcx programs of others on the same hooks stay, and work."""
    clsact(pair.host, "eth1")
    filter_dropping(pair.host, "eth1", "ingress", EXPERIMENTAL, "pref", "97")
    with tcx_dropper(pair.host, "eth2", libbpf.TCX_INGRESS, EXPERIMENTAL) as stranger:
        before = attached(take(tool, pair.host))
        assert before["tcx ingress of eth2"] == [stranger]
        tool.create(pair.host, spec(tc=tc, bypass_filters=True))
        shutil.rmtree(tool.roots.run)
        tool.command(pair.host, "detach", "--force")
        assert attached(take(tool, pair.host)) == before


def test_filters_without_pins_and_records(pair: Duo, tool: Tool) -> None:
    """Filters of ours are known by their programs' names when all else is lost."""
    tool.create(pair.host, spec(tc=TcMode.CLSACT))
    shutil.rmtree(tool.roots.run)
    shutil.rmtree(tool.roots.pins)
    assert "fo_stack_rx" in filters(pair.host, "eth1", "ingress")
    done = tool.command(pair.host, "detach", "--force")
    assert done.stdout.count("removed ") == 3
    assert filters(pair.host, "eth1", "ingress") == ""
    assert filters(pair.host, "fo0", "egress") == ""


def test_recorded_group_is_left_alone(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """A group that is in a record goes on; one whose record is lost is removed."""
    pair.plug(3)
    tool.create(pair.host, spec(tc=tc))
    pair.address()
    tool.create(pair.host, spec("fo1", None, ("eth3",), tc=tc))
    before = take(tool, pair.host)
    (record,) = tool.roots.run.rglob("fo1.json")
    record.unlink()
    with exchange(pair.host, pair.far) as streams:
        done = tool.command(pair.host, "detach", "--force")
        assert done.stdout.count("removed ") == 2
        deliver(*streams)
    assert tool.status(pair.host).health is Health.OK
    now = take(tool, pair.host)
    assert now["tcx egress of fo1"] == []
    assert now["tcx ingress of eth3"] == []
    assert now.keys() - before.keys() == set()
    for key in ("group 0", "tcx ingress of eth1", "tcx egress of fo0", "programs"):
        assert now[key] == before[key]
    assert "group 1" not in now


def test_lost_records_alone_cost_no_traffic(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """With the records lost, only --force takes the programs off: any other
    command leaves the traffic alone."""
    tool.create(pair.host, spec(tc=tc))
    pair.address()
    shutil.rmtree(tool.roots.run)
    with exchange(pair.host, pair.far) as streams:
        for args in ("status", "switch fo0 eth2", "detach fo0"):
            tool.command(pair.host, *args.split(), code=None)
            deliver(*streams)
