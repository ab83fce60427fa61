# SPDX-License-Identifier: GPL-2.0-or-later
"""Which interfaces a master is made of, and which it is found in again."""

import re
from collections.abc import Mapping, Sequence

import pytest

from pyfailover.errors import RefusedError, StateError
from pyfailover.journal import Record
from pyfailover.model import GroupSpec, Link, Side, TcMode
from pyfailover.plan import find, has_master, make_master, master_of
from pyfailover.steps import MakeVeth, OpenGroup, Step, to_data

TOP_MAC, LOW_MAC = "02:00:5e:10:00:01", "02:00:5e:10:00:99"


def link(ifindex: int, name: str, mac: str = "", *, peer: int | None = None) -> Link:
    """An interface; with a peer, an end of a veth pair."""
    return Link(
        ifindex=ifindex,
        name=name,
        mac=mac,
        mtu=9000,
        up=True,
        carrier=True,
        kind=None if peer is None else "veth",
        peer=peer,
    )


def spec(name: str = "fo0", side: Side = Side.STACK) -> GroupSpec:
    """A group over eth1 and eth2."""
    return GroupSpec(name=name, primary="eth1", standbys=("eth2",), side=side)


def links(*found: Link) -> Mapping[int, Link]:
    """Interfaces by ifindex."""
    return {one.ifindex: one for one in found}


LIKE = link(3, "eth2", TOP_MAC)
MADE = MakeVeth(
    name="fo0", low="fo0-low", mac=TOP_MAC, low_mac=LOW_MAC, mtu=9000, queues=2
)


@pytest.mark.parametrize(
    ("name", "low"),
    [
        ("fo0", "fo0-low"),
        ("elevenchars", "elevenchars-low"),
        ("fifteencharsabc", "fifteenchar-low"),
        ("é" * 5, "é" * 5 + "-low"),
        pytest.param("é" * 7, "é" * 5 + "-low", id="fourteen bytes of two each"),
    ],
)
def test_a_master_is_like_its_standby(name: str, low: str) -> None:
    """The pair has the standby's address and MTU on top, a name that an interface
    can have below, and a queue for every CPU."""
    made = make_master(spec(name), links(LIKE), LIKE, queues=3)
    assert (made.name, made.low) == (name, low)
    assert (made.mac, made.mtu, made.queues) == (TOP_MAC, 9000, 3)


def test_the_lower_end_has_a_name_of_its_own() -> None:
    """A master whose name already ends as a lower end's does has another below, or
    is refused by us."""
    name = "elevenchars-low"
    try:
        made = make_master(spec(name), links(LIKE), LIKE, queues=1)
    except RefusedError:
        return
    assert made.low != name


def test_lower_ends_have_addresses_of_their_own() -> None:
    """Each lower end has a random, local, unicast address: it is known again by it."""
    macs = {make_master(spec(), {}, LIKE, queues=1).low_mac for _ in range(97)}
    assert len(macs) == 97
    for mac in macs:
        assert re.fullmatch(r"[0-9a-f][26ae](:[0-9a-f]{2}){5}", mac)


@pytest.mark.parametrize(
    ("taken", "hint"),
    [
        ("fo0", "'pyfailover attach fo0 …' uses it as it is"),
        ("fo0-low", "choose another name: its lower end needs that one"),
    ],
)
def test_a_name_is_taken(taken: str, hint: str) -> None:
    """An interface of either name is in the way; the hint says what it is good for."""
    with pytest.raises(RefusedError) as refused:
        make_master(spec(), links(LIKE, link(9, taken)), LIKE, queues=1)
    assert refused.value.message == (
        f"cannot create 'fo0': there is an interface '{taken}' already"
    )
    assert refused.value.hint == hint


def record(side: Side, *steps: Step) -> Record:
    """A record of fo0 with these steps."""
    data = [to_data(step) for step in steps]
    return Record(spec=spec(side=side), index=0, tc=TcMode.TCX, steps=data)


OPENED = OpenGroup(index=0, master=7)
TOP, LOW = link(7, "fo0", TOP_MAC, peer=8), link(8, "fo0-low", LOW_MAC, peer=7)
RENAMED = (link(7, "a", TOP_MAC, peer=8), link(8, "b", LOW_MAC, peer=7))


@pytest.mark.parametrize(
    ("group", "found", "port", "face"),
    [
        (record(Side.STACK, MADE), [TOP, LOW], TOP, TOP),
        (record(Side.WIRE, MADE), [TOP, LOW], LOW, TOP),
        (record(Side.WIRE, MADE), RENAMED, RENAMED[1], RENAMED[0]),
        (record(Side.STACK), [link(7, "fo0")], link(7, "fo0"), link(7, "fo0")),
        (record(Side.STACK, OPENED), [link(7, "x")], link(7, "x"), link(7, "x")),
    ],
    ids=[
        "made, stack",
        "made, wire",
        "made, both ends renamed",
        "another's, not attached yet",
        "another's, attached and renamed",
    ],
)
def test_master(group: Record, found: Sequence[Link], port: Link, face: Link) -> None:
    """A master is where its programs are and what its user sees, however named."""
    around = links(LIKE, *found)
    master = master_of(group, around)
    assert (master.port, master.face) == (port, face)
    assert has_master(group, around)


@pytest.mark.parametrize(
    ("group", "found", "message", "hint"),
    [
        (
            record(Side.STACK, MADE),
            [link(7, "fo0", TOP_MAC)],
            "'fo0' was deleted",
            "pyfailover destroy fo0, then create it again",
        ),
        (
            record(Side.WIRE, MADE, OPENED),
            [link(8, "fo0-low", LOW_MAC, peer=None)],
            "'fo0' was deleted",
            "pyfailover destroy fo0, then create it again",
        ),
        (
            record(Side.STACK, OPENED),
            [link(9, "fo0")],
            "'fo0' was deleted",
            "pyfailover detach fo0, then attach again",
        ),
        (
            record(Side.STACK),
            [],
            "there is no interface 'fo0' in this network namespace",
            "see 'ip link'; --netns NAME acts in another namespace",
        ),
    ],
    ids=["made", "made, one end is elsewhere", "attached, made anew", "never there"],
)
def test_no_master(
    group: Record, found: Sequence[Link], message: str, hint: str
) -> None:
    """A master that is gone is not mistaken for another, and the way out is said."""
    around = links(LIKE, *found)
    with pytest.raises(StateError) as gone:
        master_of(group, around)
    assert (gone.value.message, gone.value.hint) == (message, hint)
    assert not has_master(group, around)


def test_find() -> None:
    """An interface is found by its whole name."""
    around = links(LIKE, link(9, "eth22"))
    assert find(around, "eth2") is LIKE
    with pytest.raises(StateError, match="no interface 'eth'"):
        find(around, "eth")
