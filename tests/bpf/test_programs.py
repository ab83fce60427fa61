# SPDX-License-Identifier: GPL-2.0-or-later
"""ProgramSet over real maps: groups, counters, limits; loading and unloading."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyfailover.datapath import abi, libbpf, loading
from pyfailover.datapath.build import MAPS, PROGRAMS
from pyfailover.datapath.loading import DEFAULT_MAX_GROUPS
from pyfailover.datapath.programs import ProgramSet
from pyfailover.datapath.readings import Counters
from pyfailover.errors import BpfError, StateError
from pyfailover.lab import scratch_roots
from pyfailover.model import MAX_SLAVES, NOBODY, Word
from pyfailover.place import locked
from tests.support import frames
from tests.support.progrun import GROUP, MAX_GROUPS, OURS, Bench

OUT = frames.udp4(frames.PEER, src=OURS)
ONE = Word(generation=97, active=1, approved=0b11)


def test_an_opened_group_is_empty(bench: Bench) -> None:
    """Opening a group once more forgets its slaves, word and counters."""
    bench.arrange(ONE)
    bench.run("fo_stack_tx", OUT, bench.master)
    assert bench.tally()
    bench.programs.open_group(GROUP)
    assert bench.programs.word(GROUP) == NOBODY
    assert bench.programs.slaves(GROUP) == {}
    assert bench.tally() == {}


def test_slaves_are_read_back(bench: Bench) -> None:
    """Slots are as written; those not named are empty."""
    low, high = bench.slave(0).ifindex, bench.devices["high"].ifindex
    bench.programs.seat(GROUP, 0, low)
    bench.programs.seat(GROUP, 7, high)
    assert bench.programs.slaves(GROUP) == {0: low, 7: high}
    bench.programs.unseat(GROUP, 0)
    assert bench.programs.slaves(GROUP) == {7: high}
    assert bench.programs.slaves(GROUP - 1) == bench.programs.slaves(GROUP + 1) == {}


def test_counters_are_sums_over_all_cpus(bench: Bench) -> None:
    """What each CPU counted apart is one number."""
    bench.arrange(ONE)
    everywhere = os.sched_getaffinity(0)
    try:
        for cpu in everywhere:
            os.sched_setaffinity(0, {cpu})
            bench.run("fo_stack_tx", OUT, bench.master, repeat=97 + cpu)
    finally:
        os.sched_setaffinity(0, everywhere)
    total = sum(97 + cpu for cpu in everywhere)
    counters = bench.counters()
    assert counters.slaves[1]["tx_packets"] == total
    assert counters.slaves[1]["tx_bytes"] == total * len(OUT)
    with libbpf.opened(bench.pins / "maps" / "fo_slave_stats") as fd:
        size = 8 * len(abi.SlaveCounter)
        key = GROUP * MAX_SLAVES + 1
        raw = libbpf.map_lookup(fd, key, size * libbpf.possible_cpus())
    assert raw is not None
    apart = memoryview(raw).cast("Q")[:: len(abi.SlaveCounter)].tolist()
    assert {cpu: n for cpu, n in enumerate(apart) if n} == {
        cpu: 97 + cpu for cpu in everywhere
    }


def test_every_counter_has_its_name(bench: Bench) -> None:
    """A group that counted nothing has all names of failover.h, at zero."""
    assert bench.counters() == Counters(
        group={c.name.lower(): 0 for c in abi.GroupCounter},
        slaves={
            slot: {c.name.lower(): 0 for c in abi.SlaveCounter}
            for slot in range(MAX_SLAVES)
        },
    )


ON_A_GROUP: dict[str, Callable[[ProgramSet, int], object]] = {
    "open_group": lambda made, group: made.open_group(group),
    "close_group": lambda made, group: made.close_group(group),
    "seat": lambda made, group: made.seat(group, 0, 1),
    "unseat": lambda made, group: made.unseat(group, 0),
    "set_down_delay": lambda made, group: made.set_down_delay(group, 97),
    "slaves": lambda made, group: made.slaves(group),
    "set_master": lambda made, group: made.set_master(group, 97),
    "word": lambda made, group: made.word(group),
    "change": lambda made, group: made.change(group, lambda word: word),
    "swap": lambda made, group: made.swap(group, NOBODY, ONE),
}


@pytest.mark.parametrize("call", ON_A_GROUP.values(), ids=ON_A_GROUP)
def test_group_beyond_the_limit(
    bench: Bench, call: Callable[[ProgramSet, int], object]
) -> None:
    """The group after the last one is refused, and the error says which it is."""
    call(bench.programs, MAX_GROUPS - 1)
    with pytest.raises(BpfError, match=f"{MAX_GROUPS}"):
        call(bench.programs, MAX_GROUPS)


def test_the_programs_are_known_by_name(bench: Bench) -> None:
    """The kernel knows each program by the name that we load it under."""
    ids = bench.programs.program_ids()
    assert {name: libbpf.prog_name(number) for name, number in ids.items()} == {
        name: name for name in PROGRAMS
    }
    assert len(set(ids.values())) == len(PROGRAMS)


def test_another_process_finds_the_same(bench: Bench) -> None:
    """A second opening of the pins is of the same programs and maps."""
    bench.programs.seat(GROUP, 5, bench.slave(2).ifindex)
    with ProgramSet(bench.pins) as again:
        assert again.slaves(GROUP) == {5: bench.slave(2).ifindex}
        assert again.program_ids() == bench.programs.program_ids()
        assert again.max_groups == MAX_GROUPS


def load(pins: Path, max_groups: int | None, scratch: Path, store: Path) -> bool:
    """Have a set loaded, under a lock in a directory that is a test's own."""
    with locked(scratch) as lock_fd:
        return loading.load(
            pins, max_groups, store=store, lock_fd=lock_fd, scratch=scratch / "headers"
        )


def test_loading_again_is_no_work(bench: Bench, tmp_path: Path) -> None:
    """A loaded set is found, for its own number of groups or any."""
    store = tmp_path / "nothing"
    assert not load(bench.pins, MAX_GROUPS, tmp_path, store)
    assert not load(bench.pins, None, tmp_path, store)


def test_another_number_of_groups_is_refused(bench: Bench, tmp_path: Path) -> None:
    """A loaded set cannot be had for more groups; the error names both numbers."""
    told = f"to {MAX_GROUPS + 1}: .* {MAX_GROUPS} groups"
    with pytest.raises(StateError, match=told):
        load(bench.pins, MAX_GROUPS + 1, tmp_path, tmp_path / "nothing")


@pytest.fixture(scope="module")
def spares(compiled: Path) -> Iterator[dict[int, Path]]:
    """Two further sets: for one group, and for as many as by default."""
    with scratch_roots() as roots:
        pins = {1: roots.pins / "v3" / "97", DEFAULT_MAX_GROUPS: roots.pins / "v3/98"}
        assert load(pins[1], 1, roots.run, compiled)
        assert load(pins[DEFAULT_MAX_GROUPS], None, roots.run, compiled)
        yield pins


@pytest.mark.parametrize("groups", [1, DEFAULT_MAX_GROUPS])
def test_maps_are_as_large_as_asked(spares: dict[int, Path], groups: int) -> None:
    """Every map has room for the number of groups that was given, and no more."""
    entries = {}
    for name in MAPS:
        with libbpf.opened(spares[groups] / "maps" / name) as fd:
            entries[name] = libbpf.map_entries(fd)
    assert entries == {
        "fo_ports": 1 << abi.port_bits(groups),
        "fo_groups": groups,
        "fo_states": groups,
        "fo_slave_stats": groups * MAX_SLAVES,
        "fo_group_stats": groups,
        "fo_sources": abi.MAX_SOURCES,
        "fo_last_source": groups,
        "fo_steps": abi.STEPS_BYTES,
        "fo_about": 1,
    }


def test_a_set_with_a_hole_is_not_used(spares: dict[int, Path], tmp_path: Path) -> None:
    """Where a pin is missing, the error names it and what takes the rest away; then
    unload() takes away all there is, and the directories above once they are empty.
    """
    first, second = spares.values()
    (first / "maps" / "fo_groups").unlink()
    with pytest.raises(StateError, match="fo_groups' is missing") as no:
        load(first, None, tmp_path, tmp_path / "nothing")
    assert no.value.hint is not None
    assert "detach --force" in no.value.hint
    with pytest.raises(FileNotFoundError):
        ProgramSet(first)
    loading.unload(first)
    assert not first.exists()
    assert second.is_dir()
    loading.unload(second)
    assert not second.parent.parent.exists()
    loading.unload(second)
