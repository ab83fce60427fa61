# SPDX-License-Identifier: GPL-2.0-or-later
"""What a killed process began, the next command takes back or ends (S14)."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pyfailover.lab import Lab, eventually
from pyfailover.model import TcMode
from pyfailover.place import Roots
from pyfailover.report import Health
from tests.support.faults import Checkpoint, InjectedError, kill_at, labels_of
from tests.support.scenes import SCENES, Kind, Scene, keep_programs, scene
from tests.support.snapshot import assert_same, take
from tests.support.tool import Tool
from tests.support.topology import Duo


@pytest.fixture(params=SCENES, ids="-".join)
def stage(request: pytest.FixtureRequest, lab: Lab, tool: Tool) -> Scene:
    """Every kind of group, every way to attach, beside another group."""
    made = scene(lab, tool, *request.param)
    keep_programs(made.pair, tool, made.wanted.tc)
    return made


def test_attach_killed_anywhere(stage: Scene) -> None:
    """Killed at any of its steps, and a later detach leaves what was before."""
    before = stage.now()
    labels = labels_of(stage.attach)
    stage.detach()
    for position, label in enumerate(labels):
        kill_at(position, stage.attach)
        stage.detach()
        stage.assert_as(before, f"killed at {position}, '{label}'")


def test_rollback_killed_anywhere(lab: Lab, tool: Tool, tc: TcMode) -> None:
    """An attach that failed and was killed as it took its steps back: the same."""
    stage = scene(lab, tool, Kind.STACK, tc)
    keep_programs(stage.pair, tool, tc)

    def doomed(checkpoint: Checkpoint) -> None:
        def passed(label: str) -> None:
            checkpoint(label)
            if label == "before commit":
                raise InjectedError(label)

        with suppress(InjectedError):
            stage.attach(passed)

    before = stage.now()
    labels = labels_of(doomed)
    first = labels.index("before commit") + 1
    assert len(labels) - first > 8
    for position in range(first, len(labels)):
        kill_at(position, doomed)
        stage.detach()
        stage.assert_as(before, f"killed at {position}, '{labels[position]}'")


def test_detach_killed_anywhere(stage: Scene) -> None:
    """Killed at any of its steps, a detach is ended by the next command, another
    detach or any other that makes changes."""
    before = stage.now()
    stage.attach()
    labels = labels_of(stage.detach)
    assert len(labels) > 8
    for position, label in enumerate(labels):
        stage.attach()
        kill_at(position, stage.detach)
        if position % 2:
            stage.detach()
        else:
            stage.tool.detach(stage.pair.host, "stranger")
        stage.assert_as(before, f"detach killed at {position}, '{label}'")


@pytest.mark.parametrize("label", ["before load", "after load", "before commit"])
def test_first_attach_killed_leaves_no_programs(
    lab: Lab, tool: Tool, label: str
) -> None:
    """Where it was the first of the namespace the programs are gone as well."""
    stage = scene(lab, tool, Kind.STACK, TcMode.TCX)
    before = stage.now()

    def attach(checkpoint: Checkpoint) -> None:
        stage.attach(lambda passed: checkpoint(passed) if passed == label else None)

    kill_at(0, attach)
    stage.detach()
    stage.assert_as(before, f"killed {label}")


def test_killed_attach_can_be_asked_for_again(lab: Lab, tool: Tool) -> None:
    """After a kill the same attach does it all, whichever step had been reached."""
    stage = scene(lab, tool, Kind.STACK, TcMode.TCX)
    keep_programs(stage.pair, tool, TcMode.TCX)
    before = stage.now()
    labels = labels_of(stage.attach)
    attached = stage.now()
    stage.detach()
    for position in range(0, len(labels), 5):
        kill_at(position, stage.attach)
        stage.attach()
        now = stage.now()
        for key in attached:
            if key.startswith(("link ", "addresses ", "qdisc ", "tcx ", "routes ")):
                assert attached[key] == now[key], f"{key}, killed at {position}"
        stage.detach()
        stage.assert_as(before, f"attached after a kill at {position}")


def compiling_child(command: subprocess.Popen[bytes]) -> int | None:
    """The process that compiles for a command, once there is one."""
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
    for pid in children.read_text().split():
        with suppress(FileNotFoundError):
            if "datapath.build" in Path(f"/proc/{pid}/cmdline").read_text():
                return int(pid)
    return None


@contextmanager
def compiling(
    tool: Tool, pair: Duo, tmp_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The real command while its child compiles, its temporary files in `tmp_path`;
    waited for at the end."""
    argv = tool.argv(pair.host, "create", "fo0", "--standby=eth2", "--primary=eth1")
    with subprocess.Popen(argv, env={**os.environ, "TMPDIR": str(tmp_path)}) as command:
        try:
            eventually(lambda: compiling_child(command), what="the compiling child")
        except BaseException:
            command.kill()
            raise
        yield command


@pytest.fixture
def cold_tool(cold: Roots) -> Tool:
    """The product where nothing is compiled yet."""
    return Tool(cold)


@pytest.fixture
def killed(pair: Duo, cold_tool: Tool, tmp_path: Path) -> None:
    """A command was killed while it compiled."""
    with compiling(cold_tool, pair, tmp_path) as command:
        command.kill()
    assert command.returncode == -signal.SIGKILL


def test_command_killed_while_it_compiles(
    pair: Duo, cold_tool: Tool, request: pytest.FixtureRequest
) -> None:
    """`kill -9` of the command in the middle of the compilation, and the next
    detach leaves nothing."""
    before = take(cold_tool, pair.host)
    request.getfixturevalue("killed")
    assert list(cold_tool.roots.run.glob("*/headers")), "it had not begun"
    assert not cold_tool.roots.cache.exists()
    cold_tool.command(pair.host, "detach", "fo0")
    assert_same(before, lambda: take(cold_tool, pair.host), where="after detach")


@pytest.mark.usefixtures("killed")
def test_command_killed_while_it_compiles_can_be_repeated(
    pair: Duo, cold_tool: Tool
) -> None:
    """The same command a moment later waits for the compiler to be gone, and works."""
    cold_tool.command(pair.host, "create", "fo0", "--standby=eth2", "--primary=eth1")
    assert cold_tool.status(pair.host).health is Health.OK


@pytest.mark.usefixtures("killed")
def test_command_killed_while_it_compiles_leaves_no_temporary_files(
    pair: Duo, cold_tool: Tool, tmp_path: Path
) -> None:
    """The tree of headers that was made for the compiler goes as well."""
    cold_tool.command(pair.host, "detach", "fo0")
    assert list(tmp_path.iterdir()) == []
    assert list(cold_tool.roots.run.glob("*/headers")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_interrupted_while_it_compiles(
    pair: Duo, cold_tool: Tool, tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C, or a service manager's stop: it takes back by itself what it began."""
    before = take(cold_tool, pair.host)
    with compiling(cold_tool, pair, tmp_path) as command:
        command.send_signal(number)
    assert command.returncode == 130
    assert list(tmp_path.iterdir()) == []
    assert_same(before, lambda: take(cold_tool, pair.host), where="interrupted")
