# SPDX-License-Identifier: GPL-2.0-or-later
"""What the maps of a namespace say at one moment.

Read in a few calls, however many groups there are, and through descriptors that
can change nothing. It works on pins alone and needs no privilege beyond theirs.
"""

import ctypes as ct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pyfailover.datapath import abi, libbpf
from pyfailover.datapath.build import PROGRAMS
from pyfailover.model import MAX_SLAVES, Word


@dataclass(frozen=True, slots=True)
class Counters:
    """Sums over all CPUs, by counter name in lower case."""

    group: Mapping[str, int]
    slaves: Mapping[int, Mapping[str, int]]  # by slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Of the groups up to some index.

    Attributes:
        carrier_test: whether the programs look at the slaves' carrier.
        program_ids: of the programs: what is ours on a hook.
    """

    carrier_test: bool
    program_ids: frozenset[int]
    states: memoryview
    group_stats: memoryview
    slave_stats: memoryview
    cpus: int

    def word(self, index: int) -> Word:
        """The word that was in force."""
        return abi.unpack_word(self._state(index).word)

    def stepped_at(self, index: int) -> float | None:
        """When a program stepped last, in unix seconds to the millisecond."""
        ns = self._state(index).stepped_ns
        return round(time.time() - time.monotonic() + ns / 1e9, 3) if ns else None

    def _state(self, index: int) -> abi.State:
        size = ct.sizeof(abi.State)
        return abi.State.from_buffer_copy(self.states, index * size)

    def counters(self, index: int, slots: int = MAX_SLAVES) -> Counters:
        """What a group and its first slots have counted since it was attached."""
        first = index * MAX_SLAVES
        return Counters(
            group=self._sum(self.group_stats, index, abi.GroupCounter),
            slaves={
                slot: self._sum(self.slave_stats, first + slot, abi.SlaveCounter)
                for slot in range(slots)
            },
        )

    def _sum(
        self,
        values: memoryview,
        key: int,
        names: type[abi.SlaveCounter | abi.GroupCounter],
    ) -> dict[str, int]:
        width = len(names)
        size = width * self.cpus
        mine = values[key * size : (key + 1) * size]
        return {c.name.lower(): sum(mine[c::width]) for c in names}


def read(pins: Path, groups: int) -> Readings:
    """Read a set that is loaded.

    Args:
        groups: one more than the highest index that will be asked for.

    Raises:
        FileNotFoundError: none is loaded.
        OSError: it may not be read.
    """
    cpus = libbpf.possible_cpus()

    def values(name: str, count: int, size: int) -> memoryview:
        with libbpf.opened_to_read(pins / "maps" / name) as fd:
            raw = libbpf.map_values(fd, count, size)
        return memoryview(raw.ljust(count * size, b"\0"))

    slave, group = (8 * len(each) for each in (abi.SlaveCounter, abi.GroupCounter))
    about = abi.About.from_buffer_copy(values("fo_about", 1, ct.sizeof(abi.About)))
    return Readings(
        carrier_test=bool(about.carrier_test),
        program_ids=frozenset(map(_id, (pins / "progs" / name for name in PROGRAMS))),
        states=values("fo_states", groups, ct.sizeof(abi.State)),
        group_stats=values("fo_group_stats", groups, group * cpus).cast("Q"),
        slave_stats=values("fo_slave_stats", groups * MAX_SLAVES, slave * cpus).cast(
            "Q"
        ),
        cpus=cpus,
    )


def _id(pin: Path) -> int:
    with libbpf.opened_to_read(pin) as fd:
        return libbpf.prog_info(fd).id
