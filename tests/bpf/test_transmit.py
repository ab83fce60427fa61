# SPDX-License-Identifier: GPL-2.0-or-later
"""fo_stack_tx and fo_wire_tx as tables: verdict, bytes and every counter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from pyfailover.datapath import abi, libbpf
from pyfailover.model import NOBODY, Word
from tests.support import frames
from tests.support.progrun import (
    GROUP,
    HIGH_IFINDEX,
    MAX_GROUPS,
    OURS,
    Bench,
    KindCase,
    Verdict,
)

BOTH = ("fo_stack_tx", "fo_wire_tx")
STACK, WIRE = BOTH
UNICAST = frames.udp4(frames.PEER, src=OURS)


def on(slot: int, *, approved: int = 0) -> Word:
    """A word with this active slot."""
    return Word(generation=97, active=slot, approved=approved)


ACTIVE_0 = on(0, approved=0xFF)


@dataclass(frozen=True, kw_only=True)
class Case(KindCase):
    """A frame that the master's user sends, and what becomes of it."""

    programs: Sequence[str] = BOTH
    word: Word = ACTIVE_0
    after: Word | None = None  # None: as before
    plugged: Sequence[int] = range(8)
    frame: bytes = UNICAST
    gso_segs: int = 0
    verdict: Verdict = Verdict.REDIRECT
    group: Mapping[str, int] = field(default_factory=dict)
    slaves: Mapping[int, Mapping[str, int]] = field(default_factory=dict)


def carried(slot: int, *lengths: int) -> Mapping[int, Mapping[str, int]]:
    """Counters of a slave that got frames of these lengths."""
    return {slot: {"tx_packets": len(lengths), "tx_bytes": sum(lengths)}}


# What becomes of a frame where nobody is approved: with the carrier test, without.
LAST_RESORT = Word(generation=1, active=0, by_kernel=True)
LOST: Mapping[str, object] = {
    "after": None,
    "verdict": Verdict.SHOT,
    "group": {"tx_drop_no_active": 1},
    "slaves": {},
}

KINDS = {
    "IPv6": frames.udp6(frames.PEER, src=OURS),
    "broadcast ARP": frames.arp_request(src=OURS),
    "multicast": frames.udp6(frames.MULTICAST, src=OURS),
    "VLAN-tagged": frames.tagged(UNICAST),
    "unknown protocol": frames.ethernet(frames.PEER, frames.EXPERIMENTAL, src=OURS),
    "an Ethernet header alone": frames.ethernet(frames.PEER, frames.EXPERIMENTAL),
    "3,000 bytes": frames.ethernet(frames.PEER, frames.IPV4, src=OURS, size=3000),
    "no link-local address, by one": frames.control(
        "01:80:c2:00:00:10", frames.EXPERIMENTAL
    ),
    "no link-local address, by one byte": frames.control(
        "01:80:c2:00:01:00", frames.EXPERIMENTAL
    ),
    "to a BPDU's address but for its first byte": frames.bpdu("03:80:c2:00:00:00"),
}

CASES = [
    *(
        Case(
            description=f"the active slave in slot {slot} carries",
            word=on(slot),
            slaves=carried(slot, len(UNICAST)),
        )
        for slot in range(8)
    ),
    *(
        Case(
            description=f"any frame is carried: {kind}",
            word=on(1),
            frame=frame,
            slaves=carried(1, len(frame)),
        )
        for kind, frame in KINDS.items()
    ),
    Case(
        description="a GSO frame counts as its segments",
        frame=frames.ethernet(frames.PEER, frames.IPV4, src=OURS, size=3000),
        gso_segs=7,
        slaves={0: {"tx_packets": 7, "tx_bytes": 3000}},
    ),
    Case(
        description="without any slave it is dropped",
        word=NOBODY,
        plugged=(),
        verdict=Verdict.SHOT,
        group={"tx_drop_no_active": 1},
    ),
    Case(
        description="a slave that nobody approved carries if it is seen to be ready",
        word=NOBODY,
        after=LAST_RESORT,
        slaves=carried(0, len(UNICAST)),
        plain=LOST,
    ),
    Case(
        description="an empty active slot without another is a drop",
        word=on(3, approved=0b1000),
        plugged=(),
        verdict=Verdict.SHOT,
        group={"tx_drop_no_active": 1},
    ),
    Case(
        description="an active slot beyond the slots is none",
        word=replace(NOBODY, active=8),
        after=LAST_RESORT,
        slaves=carried(0, len(UNICAST)),
        plain=LOST,
    ),
    Case(
        description="a dropped GSO frame is as many drops",
        word=NOBODY,
        plugged=(),
        gso_segs=45,
        verdict=Verdict.SHOT,
        group={"tx_drop_no_active": 45},
    ),
    *(
        Case(
            description=f"this host's own {name} goes out",
            programs=(STACK,),
            frame=frame,
            slaves=carried(0, len(frame)),
        )
        for name, frame in {
            "LLDP": frames.control("01:80:c2:00:00:0e", src=OURS),
            "BPDU": frames.bpdu(src=OURS),
        }.items()
    ),
    *(
        Case(
            description=f"a guest's frame to 01:80:c2:00:00:{last:02x} is not carried",
            programs=(WIRE,),
            frame=frames.control(f"01:80:c2:00:00:{last:02x}", frames.EXPERIMENTAL),
            verdict=Verdict.UNSPEC,
            group={"tx_link_local": 1},
        )
        for last in range(16)
    ),
    *(
        Case(
            description=f"a guest's frame of type {proto:#x} is not carried to {dst}",
            programs=(WIRE,),
            frame=frames.control(dst, proto),
            verdict=Verdict.UNSPEC,
            group={"tx_link_local": 1},
        )
        for proto in (frames.LLDP, frames.EAPOL, frames.SLOW)
        for dst in (OURS, frames.PEER, frames.BROADCAST)
    ),
    Case(
        description="a guest's BPDU is not carried, active slave or not",
        programs=(WIRE,),
        word=NOBODY,
        frame=frames.bpdu(),
        verdict=Verdict.UNSPEC,
        group={"tx_link_local": 1},
    ),
]


@pytest.mark.parametrize(
    ("program", "case"),
    [
        pytest.param(program, case, id=f"{program}-{case.description}")
        for case in CASES
        for program in case.programs
    ],
)
def test_transmit(bench: Bench, program: str, case: Case) -> None:
    """A frame goes where the word says, as it is, and is counted there alone."""
    case = case.of(bench.kind)
    bench.arrange(case.word, plugged=case.plugged)
    result = bench.run(program, case.frame, bench.master, gso_segs=case.gso_segs)
    assert Verdict(result.retval) is case.verdict
    assert result.data == case.frame
    expected: dict[tuple[int, int | None], Mapping[str, int]] = {}
    expected.update({(GROUP, slot): seen for slot, seen in case.slaves.items()})
    if case.group:
        expected[GROUP, None] = case.group
    assert bench.tally() == expected
    assert bench.programs.word(GROUP) == (case.after or case.word)


@pytest.mark.parametrize("program", BOTH)
def test_unknown_interface_is_let_through(bench: Bench, program: str) -> None:
    """A program on an interface that is in no group does and counts nothing."""
    bench.arrange(on(0))
    result = bench.run(program, UNICAST, bench.devices["x0"])
    assert Verdict(result.retval) is Verdict.UNSPEC
    assert (result.data, bench.tally()) == (UNICAST, {})


@pytest.mark.parametrize("program", BOTH)
@pytest.mark.parametrize("beyond", [MAX_GROUPS, 2**32 - 1], ids=["by one", "far"])
def test_group_out_of_range_is_let_through(
    bench: Bench, program: str, beyond: int
) -> None:
    """A port of a group that the maps have no room for is as an unknown one."""
    ifindex = bench.master.ifindex
    (place, *_) = abi.port_places(ifindex, abi.port_bits(MAX_GROUPS))
    with libbpf.opened(bench.pins / "maps" / "fo_ports") as fd:
        port = abi.Port(ifindex=ifindex, group=beyond, slot=abi.NO_SLOT)
        libbpf.map_update(fd, place, bytes(port))
    result = bench.run(program, UNICAST, bench.master)
    assert Verdict(result.retval) is Verdict.UNSPEC
    assert bench.tally() == {}


@pytest.mark.parametrize("program", BOTH)
def test_high_ifindex(bench: Bench, program: str) -> None:
    """An ifindex beyond 65,535 is a master like any other."""
    high = bench.devices["high"]
    assert high.ifindex == HIGH_IFINDEX
    bench.arrange(on(0), master=high)
    result = bench.run(program, UNICAST, high)
    assert Verdict(result.retval) is Verdict.REDIRECT
    assert bench.tally() == {(GROUP, 0): carried(0, len(UNICAST))[0]}


@pytest.mark.parametrize("program", BOTH)
def test_counters_add_up(bench: Bench, program: str) -> None:
    """97 repetitions are 97 packets."""
    bench.arrange(on(2))
    bench.run(program, UNICAST, bench.master, repeat=97)
    assert bench.tally() == {
        (GROUP, 2): {"tx_packets": 97, "tx_bytes": 97 * len(UNICAST)}
    }


@pytest.mark.parametrize("program", BOTH)
@pytest.mark.parametrize("group", [0, MAX_GROUPS - 1], ids=["first", "last"])
def test_groups_are_apart(bench: Bench, program: str, group: int) -> None:
    """The first and the last group count on their own slots."""
    bench.arrange(on(7), group=group)
    bench.run(program, UNICAST, bench.master)
    assert bench.tally() == {(group, 7): carried(7, len(UNICAST))[7]}
