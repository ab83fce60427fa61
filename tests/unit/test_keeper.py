# SPDX-License-Identifier: GPL-2.0-or-later
"""What a group in a controller's care makes of what it is told of its slaves."""

from dataclasses import dataclass, replace
from typing import cast

import pytest

from pyfailover.announce import Announcer
from pyfailover.core import Sight
from pyfailover.datapath.abi import LinkState
from pyfailover.datapath.kernel_steps import KernelStep
from pyfailover.datapath.programs import ProgramSet
from pyfailover.ethtool import Ethtool
from pyfailover.journal import Record
from pyfailover.keeper import Keeper, View
from pyfailover.model import NOBODY, GroupSpec, Link, TcMode, Word
from pyfailover.switching import Change

ETH1 = Link(ifindex=7, name="eth1", mac="", mtu=1500, up=True, carrier=True)


class Devices:
    """What the devices themselves say, by name; None: there is none."""

    def __init__(self) -> None:
        self.said: dict[str, bool | None] = {"eth1": True}
        self.asked = 0

    def ready(self, name: str) -> bool | None:
        """As Ethtool does."""
        self.asked += 1
        return self.said.get(name)

    def up(self, name: str) -> bool | None:
        """The same: one that is not ready is down here."""
        return self.said.get(name)


class Maps:
    """Plain programs of which only the word is asked for."""

    carrier_test = False

    def word(self, _: int) -> Word:
        """Nobody is active."""
        return NOBODY


@dataclass(frozen=True)
class Told:
    """A message about eth1, and what the device says when it is asked."""

    known: bool  # whether it was ready before
    link: Link | None  # None: it is gone
    device: bool | None
    sight: Sight


READY = Sight(present=True, up=True, carrier=True)
CUT = replace(ETH1, carrier=False)
DOWN = replace(ETH1, up=False, carrier=False)
TOLD = {
    "true gain": Told(False, ETH1, True, READY),
    "stale gain": Told(False, ETH1, False, replace(READY, carrier=False)),
    "true loss": Told(True, CUT, False, replace(READY, carrier=False)),
    "stale loss": Told(True, CUT, True, READY),
    "true down": Told(True, DOWN, False, Sight(present=True)),
    "stale down": Told(True, DOWN, True, READY),
    "leaving": Told(True, DOWN, None, Sight()),
    "gone": Told(True, None, None, Sight()),
    "gone, another of its name": Told(True, None, True, Sight()),
}


def keeper_of(view: View) -> Keeper:
    """A group with the one slave eth1."""
    seat = {"step": "Seat", "slot": 0, "ifindex": ETH1.ifindex}
    record = Record(
        spec=GroupSpec(name="fo0", primary="eth1"),
        index=0,
        tc=TcMode.TCX,
        steps=[seat],
    )
    return Keeper(record, view, 0.0)


@pytest.mark.parametrize("told", TOLD.values(), ids=TOLD)
def test_a_message_may_be_older_than_the_poll(told: Told) -> None:
    """A message that says something new is held against the device itself: what is
    stale moves nothing, and what is true is taken with its cause."""
    devices = Devices()
    view = View(
        ethtool=cast(Ethtool, devices),
        announcer=cast(Announcer, None),
        programs=cast(ProgramSet, Maps()),
        links={ETH1.ifindex: replace(ETH1, carrier=told.known)},
    )
    keeper = keeper_of(view)
    for ready in (not told.known, told.known):  # the poll saw it flap
        devices.said["eth1"] = ready
        keeper.see_ready(0, ready, 0.5)
    devices.said["eth1"] = told.device
    view.links = {} if told.link is None else {ETH1.ifindex: told.link}
    keeper.see(0, 1.0)
    assert keeper.group.slots[0].sight == told.sight


def test_a_loss_is_believed_if_the_poll_saw_nothing() -> None:
    """Nobody is asked then, for that may take as long as somebody has the rtnl lock."""
    devices = Devices()
    view = View(
        ethtool=cast(Ethtool, devices),
        announcer=cast(Announcer, None),
        programs=cast(ProgramSet, Maps()),
        links={ETH1.ifindex: ETH1},
    )
    keeper = keeper_of(view)
    view.links = {ETH1.ifindex: CUT}
    keeper.see(0, 1.0)
    assert devices.asked == 0
    assert keeper.group.slots[0].sight == replace(READY, carrier=False)


def test_a_message_without_news_asks_nobody() -> None:
    """Most messages are of something else: they cost no look at the device."""
    devices = Devices()
    view = View(
        ethtool=cast(Ethtool, devices),
        announcer=cast(Announcer, None),
        programs=cast(ProgramSet, Maps()),
        links={ETH1.ifindex: ETH1},
    )
    keeper = keeper_of(view)
    view.links = {ETH1.ifindex: replace(ETH1, mtu=1400)}
    keeper.see(0, 1.0)
    assert devices.asked == 0
    assert keeper.group.slots[0].sight == READY


# --- steps of programs ----------------------------------------------------

ETH2 = replace(ETH1, ifindex=8, name="eth2")
ETH3 = replace(ETH1, ifindex=9, name="eth3")
OPENED = 100.0


class Stepping(Maps):
    """Programs that look at links, and have stepped."""

    carrier_test = True

    def __init__(self) -> None:
        self.now = Word(generation=97, active=0, approved=0b111)
        self.states = [LinkState.READY] * 3 + [LinkState.NONE] * 5

    def word(self, _: int) -> Word:
        """The word in force."""
        return self.now

    def opened_at(self, _: int) -> float:
        """When the group was."""
        return OPENED

    def links(self, _: int) -> list[LinkState]:
        """Of the slots."""
        return self.states

    def swap(self, _: int, before: Word, after: Word, **__: object) -> bool:
        """Nobody is faster."""
        assert before == self.now
        self.now = after
        return True

    def step(self, before: int, after: int, at: float) -> KernelStep:
        """Have a program step, because a carrier is lost."""
        self.states[before] = LinkState.NO_CARRIER
        self.now = Word(
            generation=self.now.generation + 1,
            active=after,
            left=self.now.left & ~(1 << after) | 1 << before,
            approved=self.now.approved,
            by_kernel=True,
        )
        return KernelStep(
            at=at,
            group=0,
            generation=self.now.generation,
            before=before,
            after=after,
        )


@pytest.fixture
def programs() -> Stepping:
    """Three slaves, of which the first carries."""
    return Stepping()


@pytest.fixture
def devices() -> Devices:
    """The slaves, all ready."""
    made = Devices()
    made.said = {link.name: True for link in (ETH1, ETH2, ETH3)}
    return made


@pytest.fixture
def trio(programs: Stepping, devices: Devices) -> Keeper:
    """A group of them."""
    links = (ETH1, ETH2, ETH3)
    view = View(
        ethtool=cast(Ethtool, devices),
        announcer=cast(Announcer, None),
        programs=cast(ProgramSet, programs),
        links={link.ifindex: link for link in links},
    )
    record = Record(
        spec=GroupSpec(name="fo0", primary="eth1", standbys=("eth2", "eth3")),
        index=0,
        tc=TcMode.TCX,
        steps=[
            {"step": "Seat", "slot": slot, "ifindex": link.ifindex}
            for slot, link in enumerate(links)
        ],
    )
    return Keeper(record, view, OPENED)


def seen(changes: list[Change]) -> list[tuple[str | None, str | None, str, str]]:
    """From, to, why and by whom."""
    return [(c.before, c.after, c.reason, c.by) for c in changes]


@pytest.mark.parametrize("heard", [True, False])
def test_step_is_adopted(programs: Stepping, trio: Keeper, heard: bool) -> None:
    """A step is a change with its time, if it was heard of; the slave that was left
    is not ready, whatever netlink said last."""
    step = programs.step(0, 1, 200.0)
    if heard:
        assert trio.hear(step) is None
    changes = trio.settle(300.0, 300.0)
    assert seen(changes) == [("eth1", "eth2", "carrier_lost", "kernel")]
    assert (changes[0].generation, changes[0].took_s) == (98, 0.0)
    assert changes[0].at == 200.0 or not heard
    assert not trio.group.slots[0].sight.ready
    assert trio.usable == 2


def test_step_away_from_one_that_is_gone(
    programs: Stepping, devices: Devices, trio: Keeper
) -> None:
    """A slave in another namespace is seen by nobody: before netlink tells of it the
    traffic is not moved back to it."""
    step = programs.step(0, 1, 200.0)
    programs.states[0] = LinkState.NONE
    devices.said["eth1"] = None
    assert trio.hear(step) is None
    changes = trio.settle(300.0, 300.0)
    assert seen(changes) == [("eth1", "eth2", "removed", "kernel")]
    assert programs.now.active == 1


def test_steps_one_after_another(programs: Stepping, trio: Keeper) -> None:
    """Each is told, though they were heard of at once."""
    for step in (programs.step(0, 1, 200.0), programs.step(1, 2, 201.0)):
        assert trio.hear(step) is None
    assert seen(trio.settle(300.0, 300.0)) == [
        ("eth1", "eth2", "carrier_lost", "kernel"),
        ("eth2", "eth3", "carrier_lost", "kernel"),
    ]


def test_step_that_was_not_heard_of(programs: Stepping, trio: Keeper) -> None:
    """Of two the second is not in the ring: the way to it is told all the same."""
    assert trio.hear(programs.step(0, 1, 200.0)) is None
    programs.step(1, 2, 201.0)
    assert seen(trio.settle(300.0, 300.0)) == [
        ("eth1", "eth2", "carrier_lost", "kernel"),
        ("eth2", "eth3", "carrier_lost", "kernel"),
    ]


def test_step_is_told_once(programs: Stepping, trio: Keeper) -> None:
    """One that was adopted from the word is no news when the ring tells of it."""
    step = programs.step(0, 1, 200.0)
    assert len(trio.settle(300.0, 300.0)) == 1
    assert trio.hear(step) is None
    assert trio.settle(301.0, 301.0) == []


def test_step_before_our_time(programs: Stepping, trio: Keeper) -> None:
    """One that was made before the controller came is told with its time and moves
    nothing; one of a group that had the same place is not ours."""
    past = KernelStep(at=OPENED + 1, group=0, generation=97, before=1, after=0)
    told = trio.hear(past)
    assert told is not None
    assert seen([told]) == [("eth2", "eth1", "carrier_lost", "kernel")]
    assert told.at == OPENED + 1
    assert trio.hear(replace(past, at=OPENED - 1)) is None
    assert trio.settle(300.0, 300.0) == []


def test_slave_that_is_taken_unapproved(programs: Stepping, trio: Keeper) -> None:
    """A program took the one slave that is ready again, which netlink has not told
    yet: the controller does not move the traffic to nobody."""
    programs.states[:3] = [LinkState.NO_CARRIER] * 3
    for slot in range(3):
        trio.see_ready(slot, False, 200.0)
    trio.settle(200.0, 200.0)
    assert programs.now.active is None
    programs.states[2] = LinkState.READY
    step = replace(programs.step(0, 2, 201.0), before=None)
    assert trio.hear(step) is None
    changes = trio.settle(202.0, 202.0)
    assert seen(changes) == [(None, "eth3", "recovered", "kernel")]
    assert programs.now.active == 2


def test_programs_know_who_is_ready(programs: Stepping, trio: Keeper) -> None:
    """They are asked first; who they do not see is asked himself."""
    programs.states[:3] = [LinkState.NO_CARRIER, LinkState.READY, LinkState.NONE]
    devices = Devices()
    devices.said = {"eth1": True, "eth2": False, "eth3": True}
    polled = trio.polled()
    assert trio.ready(polled.names, cast(Ethtool, devices)) == {
        0: False,
        1: True,
        2: True,
    }
    assert devices.asked == 1
    assert polled.news(cast(Ethtool, devices)) == [(0, False)]
