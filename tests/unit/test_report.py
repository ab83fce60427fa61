# SPDX-License-Identifier: GPL-2.0-or-later
"""Status: health by what is there, lines of 80 columns, and what to do.

Records are real; links, programs and attachments are as the test says.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pyfailover import report
from pyfailover.datapath.abi import GroupCounter, RxRule, SlaveCounter
from pyfailover.datapath.hooks import Attachment
from pyfailover.datapath.readings import Counters
from pyfailover.journal import Journal, Record
from pyfailover.model import GroupSpec, Hook, Link, Policy, Role, Side, TcMode, Word
from pyfailover.place import Roots
from pyfailover.report import GroupStatus, Health, SlaveStatus, groups, table
from pyfailover.steps import Attach, MakeVeth, OpenGroup, Seat, Step, to_data

MASTER = 1
GOOD = Link(ifindex=0, name="", mac="02::1", mtu=1500, up=True, carrier=True)
GONE = None
DOWN, CUT = replace(GOOD, up=False, carrier=False), replace(GOOD, carrier=False)
WIDEST_COUNTER = 999_999_999_999
LONG = ("abcdefghijklmno", "primaryprimaryp", "standbystandbys")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A group fo0 over eth0, eth1, … with ifindexes 2, 3, …, and its health."""

    description: str
    slaves: Sequence[Link | None] = (GOOD, GOOD)
    active: int | None = 0
    detached: Sequence[int] = ()  # ifindexes whose program is not attached
    master: Link | None = GOOD
    attached: bool = True  # the group
    loaded: bool = True  # the programs
    tested: bool = False  # they look at links
    pinned: int | None = None
    policy: Policy = Policy.ALWAYS
    health: Health
    advice: Sequence[str] = ()


REATTACH = " a program was detached: run the attach command again"
SWITCH = " traffic is lost: 'pyfailover switch fo0 {}'"

SCENES = [
    Scene(description="all is well", health=Health.OK),
    Scene(description="on the standby all is well too", active=1, health=Health.OK),
    Scene(description="a slave alone is ok", slaves=[GOOD], health=Health.OK),
    *(
        Scene(
            description=f"the other slave is {what}",
            slaves=[GOOD, other],
            health=Health.DEGRADED,
        )
        for what, other in {"unplugged": GONE, "down": DOWN, "cut": CUT}.items()
    ),
    *(
        Scene(
            description=f"the active slave is {what}: the other could do it",
            slaves=[active, GOOD],
            health=Health.DOWN,
            advice=[SWITCH.format("eth1")],
        )
        for what, active in {"unplugged": GONE, "down": DOWN, "cut": CUT}.items()
    ),
    Scene(
        description="nobody is active, the second could be",
        slaves=[CUT, GOOD, GOOD],
        active=None,
        health=Health.DOWN,
        advice=[SWITCH.format("eth1")],
    ),
    *(
        Scene(
            description=f"the active slave is {what}: the next packet leaves it",
            slaves=[active, GOOD],
            tested=True,
            health=Health.DEGRADED,
        )
        for what, active in {"unplugged": GONE, "down": DOWN, "cut": CUT}.items()
    ),
    Scene(
        description="nobody is active, the next packet goes by the second",
        slaves=[CUT, GOOD],
        active=None,
        tested=True,
        health=Health.DEGRADED,
    ),
    Scene(
        description="nobody could do it, and the programs know it",
        slaves=[CUT, GONE],
        tested=True,
        health=Health.DOWN,
    ),
    Scene(
        description="the active slave is ready and detached: nobody leaves it",
        detached=[2],
        tested=True,
        health=Health.DOWN,
        advice=[SWITCH.format("eth1"), REATTACH],
    ),
    Scene(
        description="nobody could do it",
        slaves=[CUT, GONE],
        health=Health.DOWN,
    ),
    Scene(
        description="the other slave's program is detached",
        detached=[3],
        health=Health.DEGRADED,
        advice=[REATTACH],
    ),
    Scene(
        description="the active slave's program is detached",
        detached=[2],
        health=Health.DOWN,
        advice=[SWITCH.format("eth1"), REATTACH],
    ),
    Scene(
        description="the master's program is detached",
        detached=[MASTER],
        health=Health.DOWN,
        advice=[REATTACH],
    ),
    Scene(
        description="the master's program is detached, a standby active",
        active=1,
        detached=[MASTER],
        health=Health.DOWN,
        advice=[REATTACH],
    ),
    Scene(
        description="the master is gone",
        master=GONE,
        health=Health.DOWN,
        advice=[" its master is gone: 'pyfailover detach fo0'"],
    ),
    Scene(
        description="the programs are gone",
        loaded=False,
        detached=[MASTER, 2, 3],
        health=Health.DOWN,
        advice=[REATTACH],
    ),
    Scene(
        description="made, and not attached",
        attached=False,
        health=Health.IDLE,
        advice=[" idle: 'pyfailover attach fo0 …' or 'destroy fo0'"],
    ),
]


@dataclass
class FakePrograms:
    """What a set says of one group."""

    now: Word
    carrier_test: bool = False
    program_ids: frozenset[int] = frozenset()

    def word(self, index: int) -> Word:
        """The word in force."""
        assert index == 5
        return self.now

    def stepped_at(self, index: int) -> float:
        """When a program stepped last."""
        assert index == 5
        return 97.5

    def counters(self, index: int, slots: int) -> Counters:
        """Slot n has sent 100 n + 1 packets."""
        assert index == 5
        names = [counter.name.lower() for counter in SlaveCounter]
        return Counters(
            group={counter.name.lower(): 7 for counter in GroupCounter},
            slaves={n: dict.fromkeys(names, 100 * n + 1) for n in range(slots)},
        )


Stage = Callable[..., list[GroupStatus]]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Have groups() see a scene."""

    def see(
        scene: Scene, controller: Mapping[str, Any] | None = None
    ) -> list[GroupStatus]:
        word = Word(generation=97, active=scene.active, approved=0b11)
        programs = FakePrograms(word, scene.tested) if scene.loaded else None
        found = links(scene)
        intact = set(found) - set(scene.detached)

        def is_attached(hook: Attachment, _: Collection[int]) -> bool:
            return hook.ifindex in intact

        monkeypatch.setattr(report, "paths", lambda _: (tmp_path, tmp_path))
        monkeypatch.setattr(report, "read_programs", lambda *_: programs)
        monkeypatch.setattr(report, "all_links", lambda: list(found.values()))
        monkeypatch.setattr(Attachment, "attached", is_attached)
        Journal(tmp_path).put(record(scene))
        return groups(Roots(), None, controller)

    return see


def links(scene: Scene) -> dict[int, Link]:
    """The interfaces of a scene, named and numbered."""
    named = {MASTER: ("fo0", scene.master)}
    named |= {n + 2: (f"eth{n}", link) for n, link in enumerate(scene.slaves)}
    return {
        ifindex: replace(link, ifindex=ifindex, name=name)
        for ifindex, (name, link) in named.items()
        if link is not None
    }


def record(scene: Scene) -> Record:
    """What was written when the group of a scene was attached."""
    names = [f"eth{n}" for n in range(len(scene.slaves))]
    spec = GroupSpec(
        name="fo0", primary=names[0], standbys=tuple(names[1:]), policy=scene.policy
    )
    made = MakeVeth(
        name="fo0", low="fo0-low", mac="02::1", low_mac="02::2", mtu=1500, queues=1
    )
    steps: list[Step] = [made]
    if scene.attached:
        steps.append(OpenGroup(index=5, master=MASTER))
        for slot in range(len(names)):
            place = {"ifindex": slot + 2}
            seat = Seat(index=5, slot=slot, master=MASTER, rule=RxRule.ACTIVE, **place)
            program = Attach(
                hook=Hook.INGRESS, tc=TcMode.TCX, program="fo_stack_rx", **place
            )
            steps += [seat, program]
        steps.append(
            Attach(
                ifindex=MASTER, hook=Hook.EGRESS, tc=TcMode.TCX, program="fo_stack_tx"
            )
        )
    data = [to_data(step) for step in steps]
    return Record(
        spec=spec,
        index=5,
        tc=TcMode.TCX,
        steps=data,
        committed=len(data),
        pinned=scene.pinned,
    )


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.description)
def test_health_and_advice(stage: Stage, scene: Scene) -> None:
    """A group is as healthy as its traffic, and what can be done is said."""
    (group,) = stage(scene)
    assert group.health is scene.health
    shown = list(table(group))[4 + len(scene.slaves) :]
    dropped = [" 7 packets dropped: no active slave"]
    counted = dropped if scene.attached and scene.loaded else []
    assert shown == [*counted, *scene.advice]


def test_values(stage: Stage) -> None:
    """Everything of a group is there: names, roles, links, word, counters."""
    scene = Scene(
        description="",
        slaves=[CUT, GOOD, GONE],
        active=1,
        health=Health.DEGRADED,
    )
    (group,) = stage(scene)
    assert (group.name, group.master, group.active) == ("fo0", "fo0", "eth1")
    assert (group.generation, group.decided_by, group.created) == (97, "user", True)
    assert (group.policy, group.pinned) == ("always", None)
    assert [
        (s.slot, s.rank, s.role, s.name, s.ifindex, s.link, s.active, s.approved)
        for s in group.slaves
    ] == [
        (0, 0, "primary", "eth0", 2, "no carrier", False, True),
        (1, 1, "standby", "eth1", 3, "up", True, True),
        (2, 2, "standby", "eth2", None, "unplugged", False, False),
    ]
    assert [s.counters["tx_packets"] for s in group.slaves] == [1, 101, 201]
    assert group.counters == {"tx_drop_no_active": 7, "tx_link_local": 7}


def test_one_group_or_none(stage: Stage, tmp_path: Path) -> None:
    """A name chooses its group; one that is not there is no group."""
    stage(SCENES[0])
    Journal(tmp_path).put(
        replace(record(SCENES[0]), spec=GroupSpec(name="fo1", primary="x", standbys=()))
    )
    assert [group.name for group in groups(Roots())] == ["fo0", "fo1"]
    assert [group.name for group in groups(Roots(), "fo1")] == ["fo1"]
    assert groups(Roots(), "fo2") == []


# --- what the controller knows --------------------------------------------

Said = tuple[str, float | None, int]  # verdict, left_s, damped
USABLE: Said = ("usable", None, 0)
SINCE = 1795590091.5  # 2026-11-25T07:01:31 UTC


def answer(
    *slaves: Said,
    trouble: str | None = None,
    since: float | None = None,
    by: str | None = None,
) -> dict[str, Any]:
    """What a controller says of itself and of fo0."""
    known = {
        "decided_by": by,
        "policy": "always",
        "pinned": None,
        "usable": 2,
        "slaves": [
            {"verdict": verdict, "left_s": left_s, "damped": damped}
            for verdict, left_s, damped in slaves
        ],
        "carrier": "follows",
        "degraded_since": since,
    }
    return {
        "pid": 97,
        "troubles": {"fo7": "another's"} | ({"fo0": trouble} if trouble else {}),
        "groups": {"fo0": known},
    }


def test_without_a_controller(stage: Stage) -> None:
    """Nobody judges the slaves, and what only a controller does is not told."""
    (group,) = stage(SCENES[0])
    assert [(s.verdict, s.left_s, s.damped) for s in group.slaves] == [
        (None, None, 0)
    ] * 2
    assert (group.carrier, group.degraded_since, group.trouble) == (None, None, None)
    assert list(table(group))[2] == " policy always"


def test_with_a_controller(stage: Stage) -> None:
    """What it knows is told beside what the kernel says, each slave's with it."""
    said = answer(USABLE, ("damped", 7.25, 3), trouble="no luck", since=SINCE)
    (group,) = stage(SCENES[0], said)
    assert [(s.name, s.verdict, s.left_s, s.damped) for s in group.slaves] == [
        ("eth0", "usable", None, 0),
        ("eth1", "damped", 7.25, 3),
    ]
    assert (group.carrier, group.degraded_since) == ("follows", SINCE)
    assert group.trouble == "no luck"
    assert group.slaves[1].counters["tx_packets"] == 101


@pytest.mark.parametrize(
    ("by", "shown"),
    [("controller", "controller"), ("kernel", "kernel"), (None, "user")],
)
def test_who_decided(stage: Stage, by: str | None, shown: str) -> None:
    """A controller knows better than the word who changed it, if it saw that."""
    (group,) = stage(SCENES[0], answer(USABLE, USABLE, by=by))
    assert group.decided_by == shown
    assert list(table(group))[1].endswith(f"generation 97 by {shown}")


def test_controller_that_does_not_know_the_group(stage: Stage) -> None:
    """A group that it could not attach has its trouble told, and no more."""
    said = {"troubles": {"fo0": "its slave is lo"}, "groups": {}}
    (group,) = stage(SCENES[0], said)
    assert (group.trouble, group.carrier) == ("its slave is lo", None)


@pytest.mark.parametrize("count", [1, 3])
def test_group_that_was_made_anew_meanwhile(stage: Stage, count: int) -> None:
    """What is known of other slaves than those that there are now is left out."""
    (group,) = stage(SCENES[0], answer(*[USABLE] * count))
    assert [(s.name, s.verdict) for s in group.slaves] == [
        ("eth0", None),
        ("eth1", None),
    ]
    assert group.carrier is None


def test_pin_and_policy(stage: Stage) -> None:
    """The slave that the operator wants is told by name, with the policy."""
    scene = Scene(
        description="", pinned=1, policy=Policy.FAILURE, active=1, health=Health.OK
    )
    (group,) = stage(scene, answer(USABLE, USABLE))
    assert (group.policy, group.pinned) == ("failure", "eth1")
    assert list(table(group))[2] == (" policy failure, pinned to eth1, carrier follows")


@dataclass(frozen=True, kw_only=True)
class Remark:
    """What a controller says, and the lines below the slaves for it."""

    description: str
    first: Said = USABLE
    second: Said = USABLE
    trouble: str | None = None
    lines: Sequence[str] = ()


REMARKS = [
    Remark(description="all is well"),
    Remark(
        description="not ready speaks for itself",
        second=("not ready", None, 0),
    ),
    Remark(
        description="up delay",
        second=("up delay", 2.349, 0),
        lines=[" eth1: up delay, 2.3 s left"],
    ),
    Remark(
        description="down delay",
        first=("down delay", 0.0, 0),
        lines=[" eth0: down delay, 0.0 s left"],
    ),
    Remark(
        description="damped",
        second=("damped", 40.0, 3),
        lines=[
            " eth1: damped, 40.0 s left",
            " eth1: damped 3 times for changing too often",
        ],
    ),
    Remark(
        description="was damped once",
        first=("usable", None, 1),
        lines=[" eth0: damped 1 time for changing too often"],
    ),
    Remark(
        description="held",
        first=("held", None, 0),
        lines=[" eth0: held until 'pyfailover switch'"],
    ),
    Remark(
        description="trouble",
        trouble="cannot use 'eth1' as a slave",
        lines=[" trouble: cannot use 'eth1' as a slave"],
    ),
]


@pytest.mark.parametrize("remark", REMARKS, ids=lambda remark: remark.description)
def test_remarks(stage: Stage, remark: Remark) -> None:
    """Why the controller does not use a slave is said, and for how long yet."""
    said = answer(remark.first, remark.second, trouble=remark.trouble)
    (group,) = stage(SCENES[0], said)
    _, *shown = list(table(group))[3 + len(group.slaves) :]
    assert shown == [" 7 packets dropped: no active slave", *remark.lines]


@pytest.mark.usefixtures("summer")
@pytest.mark.parametrize(
    ("slaves", "since", "lines"),
    [
        ([GOOD, CUT], SINCE, [" degraded since 2026-11-25 08:01:31"]),
        ([GOOD, CUT], None, []),
        ([CUT, CUT], SINCE, [" degraded since 2026-11-25 08:01:31"]),
        ([GOOD, GOOD], SINCE, []),  # it became whole this moment
    ],
)
def test_degraded_since(
    stage: Stage,
    slaves: Sequence[Link | None],
    since: float | None,
    lines: Sequence[str],
) -> None:
    """Since when there is no redundancy is said in local time, while there is none."""
    scene = Scene(description="", slaves=slaves, health=Health.OK)
    (group,) = stage(scene, answer(USABLE, USABLE, since=since))
    assert [line for line in table(group) if "since" in line] == lines


# --- how it reads ---------------------------------------------------------


def widest(health: Health, side: Side, tc: TcMode, *, attached: bool) -> GroupStatus:
    """A group in which every word and number is as long as it can be."""
    name, *slaves = LONG
    counters = {counter.name.lower(): WIDEST_COUNTER for counter in SlaveCounter}
    status = [
        SlaveStatus(
            slot=slot,
            rank=slot,
            role=Role.PRIMARY if slot == 0 else Role.STANDBY,
            name=slave,
            ifindex=2**31 - 1,
            up=True,
            carrier=attached,
            ready=attached,
            active=slot == 1 and attached,
            approved=True,
            attached=attached,
            counters=counters,
            verdict="down delay",
            left_s=3600.0,
            damped=2**31 - 1,
        )
        for slot, slave in enumerate(slaves)
    ]
    return GroupStatus(
        name=name,
        health=health,
        side=side,
        tc=tc,
        created=True,
        master=name if attached else None,
        master_attached=attached,
        active=slaves[1],
        generation=2**32 - 1,
        decided_by="controller",
        slaves=status,
        counters={c.name.lower(): WIDEST_COUNTER for c in GroupCounter},
        policy=Policy.FAILURE,
        pinned=slaves[0],
        carrier_test=False,
        carrier="not available",
        degraded_since=SINCE,
        trouble=f"cannot attach '{name}': " + "for many a reason " * 20,
    )


@pytest.mark.parametrize("health", Health)
@pytest.mark.parametrize("attached", [True, False])
def test_lines_are_short(health: Health, attached: bool) -> None:
    """With names of 15 characters and counters of 12 digits no line has more than
    80 columns."""
    group = widest(health, Side.STACK, TcMode.CLSACT, attached=attached)
    long = {line: len(line) for line in table(group) if len(line) > 80}
    assert long == {}


def test_columns_are_straight() -> None:
    """Slaves with the longest names and numbers stand below their headings."""
    group = widest(Health.OK, Side.WIRE, TcMode.TCX, attached=True)
    _, _, _, heading, *rows = table(group)
    for row in rows[:2]:
        assert len(row) == len(heading)
        assert row[heading.index("SLAVE") :].startswith(LONG[1:])
        assert row[: heading.index("TX PACKETS") + 10].endswith("999999")


@pytest.mark.parametrize("slave", ["driver=mlx5_core,pci=0000:03:00.1", "é" * 15])
def test_slave_that_is_not_there(slave: str) -> None:
    """The rule of a slave that is not there is cut to the width of a name."""
    good = widest(Health.OK, Side.WIRE, TcMode.TCX, attached=True)
    slaves = [replace(good.slaves[0], name=slave), good.slaves[1]]
    group = replace(good, slaves=slaves, active=slave, pinned=slave, trouble=None)
    head, _, policy, heading, *rows = table(group)
    shown = slave if len(slave) == 15 else f"{slave[:14]}…"
    assert head.endswith(f", active {shown}")
    assert f"pinned to {shown}," in policy
    assert len(rows[0]) == len(heading)
    assert rows[0][heading.index("SLAVE") :].startswith(f"{shown} up")
