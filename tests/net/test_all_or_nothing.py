# SPDX-License-Identifier: GPL-2.0-or-later
"""A change that fails, at whatever step, has changed nothing (S14)."""

import pytest

from pyfailover.errors import PyFailoverError
from pyfailover.lab import Lab
from pyfailover.model import TcMode
from tests.support.faults import Checkpoint, fail_at, labels_of
from tests.support.scenes import SCENES, Kind, Scene, keep_programs, scene
from tests.support.tool import Tool

LAST = "after commit"


@pytest.fixture(params=SCENES, ids="-".join)
def stage(request: pytest.FixtureRequest, lab: Lab, tool: Tool) -> Scene:
    """Every kind of group, every way to attach, beside another group."""
    made = scene(lab, tool, *request.param)
    keep_programs(made.pair, tool, made.wanted.tc)
    return made


def test_attach_that_fails_anywhere_changes_nothing(stage: Scene) -> None:
    """An exception at any of its steps, and all is as before, another group too."""
    before = stage.now()
    labels = labels_of(stage.attach)
    assert labels[-1] == LAST
    assert len(labels) > 20
    stage.detach()
    stage.assert_as(before, "attached and detached")
    for position, label in enumerate(labels[:-1]):
        fail_at(position, stage.attach)
        stage.assert_as(before, f"failed at {position}, '{label}'")


@pytest.mark.parametrize("label", ["before load", "after load", "before commit"])
def test_first_attach_that_fails_leaves_no_programs(
    lab: Lab, tool: Tool, label: str
) -> None:
    """Where it was the first of the namespace the programs are gone as well."""
    stage = scene(lab, tool, Kind.CREATE, TcMode.TCX)
    before = stage.now()

    def attach(checkpoint: Checkpoint) -> None:
        stage.attach(lambda passed: checkpoint(passed) if passed == label else None)

    fail_at(0, attach)
    stage.assert_as(before, f"failed {label}")


def test_detach_with_a_step_that_cannot_be_undone(
    lab: Lab, tool: Tool, tc: TcMode
) -> None:
    """Each step that fails to be undone is kept for later, the others are undone;
    the error says so, and the next detach finishes it."""
    stage = scene(lab, tool, Kind.STACK, tc)
    keep_programs(stage.pair, tool, tc)
    before = stage.now()
    stage.attach()
    labels = labels_of(stage.detach)
    for position, label in enumerate(labels):
        stage.attach()
        fail_at(position, stage.detach, PyFailoverError, match="cannot undo all of")
        after = stage.now()
        assert after["records"] != before["records"], label
        stage.detach()
        stage.assert_as(before, f"detach failed at {position}, '{label}'")
