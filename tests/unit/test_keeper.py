# SPDX-License-Identifier: GPL-2.0-or-later
"""What a group in a controller's care makes of what it is told of its slaves."""

from dataclasses import dataclass, replace
from typing import cast

import pytest

from pyfailover.announce import Announcer
from pyfailover.core import Sight
from pyfailover.datapath.programs import ProgramSet
from pyfailover.ethtool import Ethtool
from pyfailover.journal import Record
from pyfailover.keeper import Keeper, View
from pyfailover.model import NOBODY, GroupSpec, Link, TcMode, Word

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
    """Programs of which only the word is asked for."""

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
