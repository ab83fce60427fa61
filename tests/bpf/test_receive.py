# SPDX-License-Identifier: GPL-2.0-or-later
"""fo_stack_rx and fo_wire_rx as tables: verdict, bytes and every counter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from pyfailover.datapath.abi import RxRule
from pyfailover.model import NOBODY, Word
from tests.support import frames
from tests.support.progrun import GROUP, OURS, Bench, KindCase, Verdict

BOTH = ("fo_stack_rx", "fo_wire_rx")
STACK, WIRE = BOTH
OTHER = "02:00:5e:30:00:03"  # neither ours nor the peer's

UNICAST = frames.udp4(OURS)
UNICAST_OTHER = frames.udp4(OTHER)
ARP = frames.arp_request()
MULTICAST = frames.udp6(frames.MULTICAST)

MINUTE = 60_000  # in ms: longer than this test
ACTIVE_0 = Word(generation=97, active=0, approved=0xFF)
DROPPED = {"rx_drop_inactive": 1}


@dataclass(frozen=True, kw_only=True)
class Case(KindCase):
    """A frame that arrives on slave 0 or 1, and what becomes of it."""

    programs: Sequence[str] = BOTH
    word: Word = ACTIVE_0
    after: Word | None = None  # None: as before
    plugged: Sequence[int] = range(8)
    rule: RxRule = RxRule.ACTIVE
    grace: tuple[int, int] | None = None
    slot: int = 0  # that it arrives on
    frame: bytes = UNICAST
    gso_segs: int = 0
    verdict: Verdict
    counters: Mapping[str, int] = field(default_factory=dict)


def taken(frame: bytes, *, grace: bool = False) -> Mapping[str, int]:
    """Counters of a slave one of whose frames went to the master."""
    counters = {"rx_packets": 1, "rx_bytes": len(frame)}
    return counters | ({"rx_grace": 1} if grace else {})


KINDS = {
    "unicast": UNICAST,
    "unicast to somebody else": UNICAST_OTHER,
    "broadcast": ARP,
    "multicast": MULTICAST,
    "VLAN-tagged": frames.tagged(UNICAST),
    "an Ethernet header alone": frames.ethernet(OURS, frames.EXPERIMENTAL),
    "3,000 bytes": frames.ethernet(OURS, frames.EXPERIMENTAL, size=3000),
    "no link-local address, by one": frames.control(
        "01:80:c2:00:00:10", frames.EXPERIMENTAL
    ),
    "all but a link-local address": frames.control(
        "01:80:c2:00:01:00", frames.EXPERIMENTAL
    ),
}

ACTIVITY = [
    *(
        Case(
            description=f"{kind} on the active slave is taken",
            frame=frame,
            verdict=Verdict.REDIRECT,
            counters=taken(frame),
        )
        for kind, frame in KINDS.items()
    ),
    *(
        Case(
            description=f"{kind} on another slave is dropped",
            slot=1,
            frame=frame,
            verdict=Verdict.SHOT,
            counters=DROPPED,
        )
        for kind, frame in KINDS.items()
    ),
    *(
        Case(
            description=f"slot {slot} is as good as any",
            word=Word(generation=1, active=slot),
            slot=slot,
            verdict=Verdict.REDIRECT,
            counters=taken(UNICAST),
        )
        for slot in range(8)
    ),
    Case(
        description="a GSO frame is taken as its segments",
        gso_segs=7,
        verdict=Verdict.REDIRECT,
        counters={"rx_packets": 7, "rx_bytes": len(UNICAST)},
    ),
    Case(
        description="a GSO frame is dropped as its segments",
        slot=1,
        gso_segs=45,
        verdict=Verdict.SHOT,
        counters={"rx_drop_inactive": 45},
    ),
    Case(
        description="nobody is active, nobody there: dropped",
        word=NOBODY,
        plugged=(),
        verdict=Verdict.SHOT,
        counters=DROPPED,
    ),
    Case(
        description="nobody is active: taken if it is seen to be ready",
        word=NOBODY,
        after=Word(generation=1, active=0, by_kernel=True),
        verdict=Verdict.REDIRECT,
        counters=taken(UNICAST),
        plain={"after": None, "verdict": Verdict.SHOT, "counters": DROPPED},
    ),
]

RULES = [
    Case(
        description=f"rule {rule.name} on {where}",
        rule=rule,
        slot=slot,
        frame=frame,
        grace=(1, MINUTE),
        verdict=Verdict.REDIRECT if rule is RxRule.ALWAYS else Verdict.SHOT,
        counters=taken(frame) if rule is RxRule.ALWAYS else DROPPED,
    )
    for rule in (RxRule.ALWAYS, RxRule.NO_PRIMARY)
    for slot, where in enumerate(("the active slave", "a slave in its grace"))
    for frame in (UNICAST, ARP)
]


def graceful(description: str, **changes: object) -> Case:
    """A frame on slave 1, which the controller left just now, dropped by default."""
    values: dict[str, object] = {"slot": 1, "grace": (1, MINUTE), **changes}
    if values.pop("accepted", False):
        frame = values.get("frame", UNICAST)
        assert isinstance(frame, bytes)
        values |= {"verdict": Verdict.REDIRECT, "counters": taken(frame, grace=True)}
    else:
        values |= {"verdict": Verdict.SHOT, "counters": DROPPED}
    return Case(description=description, **values)  # type: ignore[arg-type]


GRACE = [
    graceful("unicast is taken, and counted apart", accepted=True),
    graceful("an IPv6 one too", frame=frames.udp6(OURS), accepted=True),
    graceful("broadcast is not", frame=ARP),
    graceful("multicast is not", frame=MULTICAST),
    graceful(
        "another's unicast is not, on a stack", programs=(STACK,), frame=UNICAST_OTHER
    ),
    graceful(
        "a guest's unicast is, on a wire",
        programs=(WIRE,),
        frame=UNICAST_OTHER,
        accepted=True,
    ),
    graceful("broadcast is not, on a wire either", programs=(WIRE,), frame=ARP),
    graceful("a grace of nothing is over at once", grace=(1, 0)),
    graceful("none was given", grace=None),
    graceful("it was another slave's", grace=(2, MINUTE)),
    graceful(
        "a program stepped since: that slave was dead",
        word=Word(generation=97, active=0, approved=0xFF, by_kernel=True),
    ),
    graceful(
        "nobody is active: as far as possible", word=NOBODY, plugged=(), accepted=True
    ),
    Case(
        description="GSO segments are counted in grace too",
        slot=1,
        grace=(1, MINUTE),
        gso_segs=7,
        verdict=Verdict.REDIRECT,
        counters={"rx_packets": 7, "rx_bytes": len(UNICAST), "rx_grace": 7},
    ),
    Case(
        description="a slave that is active again is not in grace",
        slot=0,
        grace=(0, MINUTE),
        verdict=Verdict.REDIRECT,
        counters=taken(UNICAST),
    ),
]

LINK_LOCAL = [
    Case(
        description=f"{what} stays on the slave: {state}, rule {rule.name}",
        word=word,
        rule=rule,
        slot=1,
        frame=frame,
        verdict=Verdict.UNSPEC,
        counters={"rx_link_local": 1},
    )
    for what, frame in {
        "01:80:c2:00:00:00": frames.control("01:80:c2:00:00:00", frames.EXPERIMENTAL),
        "01:80:c2:00:00:0f": frames.control("01:80:c2:00:00:0f", frames.EXPERIMENTAL),
        "a BPDU": frames.bpdu(),
        "LACP by unicast": frames.control(OURS, frames.SLOW),
    }.items()
    for state, word in {
        "inactive": ACTIVE_0,
        "active": Word(generation=1, active=1),
        "nobody active": NOBODY,
    }.items()
    for rule in RxRule
] + [
    Case(
        description=f"{what} stays on the slave",
        slot=1,
        frame=frame,
        verdict=Verdict.UNSPEC,
        counters={"rx_link_local": 1},
    )
    for what, frame in {
        **{
            f"01:80:c2:00:00:{last:02x}": frames.control(
                f"01:80:c2:00:00:{last:02x}", frames.EXPERIMENTAL
            )
            for last in range(1, 15)
        },
        **{
            f"type {proto:#x} to {dst}": frames.control(dst, proto)
            for proto in (frames.LLDP, frames.EAPOL, frames.SLOW)
            for dst in (OURS, OTHER, frames.BROADCAST, "01:80:c2:00:00:10")
        },
    }.items()
]


@pytest.mark.parametrize(
    ("program", "case"),
    [
        pytest.param(program, case, id=f"{program}-{name}-{case.description}")
        for name, cases in {
            "activity": ACTIVITY,
            "rules": RULES,
            "grace": GRACE,
            "link-local": LINK_LOCAL,
        }.items()
        for case in cases
        for program in case.programs
    ],
)
def test_receive(bench: Bench, program: str, case: Case) -> None:
    """A frame is taken from the right slave alone, as it is, and counted there."""
    case = case.of(bench.kind)
    bench.arrange(case.word, plugged=case.plugged, rule=case.rule, grace=case.grace)
    device = bench.slave(case.slot)
    result = bench.run(program, case.frame, device, gso_segs=case.gso_segs)
    assert Verdict(result.retval) is case.verdict
    assert result.data == case.frame
    assert bench.tally() == {(GROUP, case.slot): case.counters}
    assert bench.programs.word(GROUP) == (case.after or case.word)
