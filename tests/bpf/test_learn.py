# SPDX-License-Identifier: GPL-2.0-or-later
"""Who transmits through a master is remembered, to be announced when his way
changes."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from pyfailover.datapath import abi, programs
from pyfailover.datapath.programs import Source
from pyfailover.model import Word
from tests.support import frames
from tests.support.progrun import GROUP, OURS, Bench, Verdict

GUEST, OTHER = "02:00:5e:30:00:01", "02:00:5e:30:00:02"
ACTIVE = Word(generation=97, active=0, approved=0xFF)
PROGRAMS = pytest.mark.parametrize("program", ["fo_stack_tx", "fo_wire_tx"])


def sent_by(mac: str) -> bytes:
    """A frame of somebody behind the master."""
    return frames.udp4(frames.PEER, src=mac)


def learned(*macs: str) -> list[Source]:
    """Without a VLAN."""
    return [Source(mac=mac, vlan=0) for mac in macs]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Frames through a master, and who is known then."""

    description: str
    frames: Sequence[bytes]
    known: Sequence[str]


CASES = [
    Case(description="nobody spoke", frames=[], known=[]),
    Case(description="one", frames=[sent_by(GUEST)] * 3, known=[GUEST]),
    Case(
        description="the master itself and a guest, in turn",
        frames=[sent_by(OURS), sent_by(GUEST), sent_by(OURS)],
        known=[OURS, GUEST],
    ),
    Case(
        description="a source that is a group is nobody",
        frames=[sent_by("03:00:5e:30:00:01")],
        known=[],
    ),
    Case(
        description="no more than an Ethernet header",
        frames=[frames.ethernet(frames.PEER, frames.EXPERIMENTAL, src=GUEST)],
        known=[GUEST],
    ),
]


@PROGRAMS
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.description)
def test_learned(bench: Bench, program: str, case: Case) -> None:
    """Each unicast source once, for the group of the master."""
    bench.arrange(ACTIVE)
    for frame in case.frames:
        verdict = bench.run(program, frame, bench.master).retval
        assert verdict == Verdict.REDIRECT
    found = bench.programs.sources()
    assert sorted(s.mac for s in found.get(GROUP, [])) == sorted(case.known)
    assert set(found) <= {GROUP}


@PROGRAMS
def test_dropped_frames_teach_nothing(bench: Bench, program: str) -> None:
    """Without an active slave nothing leaves, and nobody is where he was not."""
    bench.arrange(Word(generation=97, active=None), plugged=())
    assert bench.run(program, sent_by(GUEST), bench.master).retval == Verdict.SHOT
    assert bench.programs.sources() == {}


def test_received_frames_teach_nothing(bench: Bench) -> None:
    """Who is in front of the master is no concern of ours."""
    bench.arrange(ACTIVE)
    frame = frames.udp4(OURS, src=GUEST)
    bench.run("fo_stack_rx", frame, bench.slave(0))
    assert bench.programs.sources() == {}


def test_groups_are_apart(bench: Bench) -> None:
    """A group that is opened (again) knows nobody, and others keep whom they know."""
    bench.arrange(ACTIVE)
    other = GROUP - 1
    bench.arrange(
        ACTIVE, group=other, master=bench.devices["x0"], slaves={0: bench.slave(1)}
    )
    bench.programs.set_master(GROUP, bench.master.ifindex)
    bench.run("fo_stack_tx", sent_by(GUEST), bench.master)
    bench.run("fo_stack_tx", sent_by(OTHER), bench.devices["x0"])
    expected = {GROUP: learned(GUEST), other: learned(OTHER)}
    assert bench.programs.sources() == expected
    bench.programs.open_group(GROUP)
    assert bench.programs.sources() == {other: learned(OTHER)}
    bench.arrange(ACTIVE)
    bench.run("fo_stack_tx", sent_by(GUEST), bench.master)
    assert bench.programs.sources() == expected


def test_who_is_silent_is_forgotten(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After as long as a switch remembers he may be elsewhere."""
    bench.arrange(ACTIVE)
    bench.run("fo_stack_tx", sent_by(GUEST), bench.master)
    assert bench.programs.sources() == {GROUP: learned(GUEST)}
    monkeypatch.setattr(programs, "_AGE_NS", 0)
    assert bench.programs.sources() == {}


def test_more_than_there_is_room_for(bench: Bench) -> None:
    """The table is full of some: never an error, and frames go on."""
    bench.arrange(ACTIVE)
    for number in range(abi.MAX_SOURCES + 97):
        mac = f"02:00:5e:40:{number >> 8:02x}:{number & 0xFF:02x}"
        verdict = bench.run("fo_wire_tx", sent_by(mac), bench.master).retval
        assert verdict == Verdict.REDIRECT
    found = bench.programs.sources()[GROUP]
    assert abi.MAX_SOURCES / 2 < len(found) <= abi.MAX_SOURCES
    assert mac in {source.mac for source in found}
