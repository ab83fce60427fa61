# SPDX-License-Identifier: GPL-2.0-or-later
"""Status: health by what is there, lines of 80 columns, and what to do.

Records are real; links, programs and attachments are as the test says.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pyfailover import report
from pyfailover.datapath.abi import GroupCounter, RxRule, SlaveCounter
from pyfailover.datapath.programs import Counters
from pyfailover.journal import Journal, Record
from pyfailover.model import GroupSpec, Hook, Link, Role, Side, TcMode, Word
from pyfailover.place import Roots
from pyfailover.report import GroupStatus, Health, SlaveStatus, groups, table
from pyfailover.steps import Attach, Host, MakeVeth, OpenGroup, Seat, Step, to_data

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
    """A ProgramSet of one group."""

    now: Word

    def word(self, index: int) -> Word:
        """The word in force."""
        assert index == 5
        return self.now

    def counters(self, index: int) -> Counters:
        """Slot n has sent 100 n + 1 packets."""
        assert index == 5
        names = [counter.name.lower() for counter in SlaveCounter]
        return Counters(
            group={counter.name.lower(): 7 for counter in GroupCounter},
            slaves={n: dict.fromkeys(names, 100 * n + 1) for n in range(8)},
        )

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class FakeNetlink:
    """The links that there are."""

    found: Mapping[int, Link] = field(default_factory=dict)

    def __enter__(self) -> "FakeNetlink":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def links(self) -> Mapping[int, Link]:
        """All interfaces by ifindex."""
        return self.found


Stage = Callable[[Scene], list[GroupStatus]]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Have groups() see a scene."""

    def see(scene: Scene) -> list[GroupStatus]:
        word = Word(generation=97, active=scene.active, approved=0b11)
        programs = FakePrograms(word) if scene.loaded else None
        netlink = FakeNetlink(links(scene))
        intact = set(netlink.found) - set(scene.detached)

        def is_intact(step: Attach, _: Host) -> bool:
            return step.ifindex in intact

        monkeypatch.setattr(report, "paths", lambda _: (tmp_path, tmp_path))
        monkeypatch.setattr(report, "open_programs", lambda _: programs)
        monkeypatch.setattr(report, "Netlink", lambda: netlink)
        monkeypatch.setattr(Attach, "intact", is_intact)
        Journal(tmp_path).put(record(scene))
        return groups(Roots())

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
    spec = GroupSpec(name="fo0", primary=names[0], standbys=tuple(names[1:]))
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
    return Record(spec=spec, index=5, tc=TcMode.TCX, steps=data, committed=len(data))


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.description)
def test_health_and_advice(stage: Stage, scene: Scene) -> None:
    """A group is as healthy as its traffic, and what can be done is said."""
    (group,) = stage(scene)
    assert group.health is scene.health
    shown = list(table(group))[3 + len(scene.slaves) :]
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
        decided_by="kernel",
        slaves=status,
        counters={c.name.lower(): WIDEST_COUNTER for c in GroupCounter},
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
    _, _, heading, *rows = table(group)
    for row in rows[:2]:
        assert len(row) == len(heading)
        assert row[heading.index("SLAVE") :].startswith(LONG[1:])
        assert row[: heading.index("TX PACKETS") + 10].endswith("999999")
