# SPDX-License-Identifier: GPL-2.0-or-later
"""One program, one packet: BPF_PROG_TEST_RUN over the production programs.

The kernel takes skb->dev from the ifindex in the context, which must exist in
the caller's namespace, and pkt_type by comparing the destination with that
device's address. It does not carry out a redirect.
"""

import ctypes as ct
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum, auto
from pathlib import Path
from typing import Any, Self

import pytest

from pyfailover.datapath import abi, libbpf, loading, readings
from pyfailover.datapath.abi import RxRule
from pyfailover.datapath.programs import ProgramSet
from pyfailover.lab import Lab, Namespace, Switches, scratch_roots
from pyfailover.model import MAX_SLAVES, NOBODY, Word
from pyfailover.place import ensure_bpffs, locked
from pyfailover.transaction import paths

MAX_GROUPS = 11  # neither the default nor a power of two
GROUP = 7
OURS = "02:00:5e:10:00:01"  # of the master and of all slaves
HIGH_IFINDEX = 70_000  # more than 16 bits

_CTX_GSO_SEGS = 164  # of struct __sk_buff
_CTX_GSO_SIZE = 176

# Counters by (group, slot); slot None is the group itself. Zeros left out.
Tally = Mapping[tuple[int, int | None], Mapping[str, int]]


class Verdict(IntEnum):
    """What a tc program returns, as the u32 of a test run."""

    UNSPEC = 0xFFFFFFFF
    SHOT = 2
    REDIRECT = 7


class Kind(StrEnum):
    """Which kind of the programs it is: the two are one source."""

    CARRIER_TEST = "carrier test"
    PLAIN = "plain"


class Link(StrEnum):
    """What an end of a veth pair may be; the plain programs see no difference."""

    DOWN = auto()
    NO_CARRIER = auto()  # the far end is down
    READY = auto()


# Tests of what the plain programs do not have: a mark.
CARRIER_TEST_ALONE = pytest.mark.parametrize(
    "loaded_bench", [(Kind.CARRIER_TEST, False)], indirect=True, ids=["carrier test"]
)


@dataclass(frozen=True, kw_only=True)
class KindCase:
    """What a row of a table of tests has in common with all others."""

    description: str
    plain: Mapping[str, Any] = field(default_factory=dict)  # what is another then

    def of(self, kind: Kind) -> Self:
        """The row for a kind of programs."""
        return replace(self, **self.plain) if kind is Kind.PLAIN else self


@dataclass(frozen=True)
class Device:
    """An end of a veth pair in the namespace of the bench; `peer` is far away."""

    name: str
    ifindex: int
    peer: str


@dataclass(frozen=True)
class Bench:
    """A set of programs in a namespace of its own, with interfaces for a group.

    host                      far
    m0 .................... m0p
    s0 … s7 ............... s0p … s7p
    x0 (in no group) ...... x0p
    high (ifindex 70,000) . highp
    """

    kind: Kind
    lab: Lab
    host: Namespace
    far: Namespace
    near_ends: Switches
    far_ends: Switches
    pins: Path
    programs: ProgramSet
    devices: Mapping[str, Device]

    @property
    def master(self) -> Device:
        """The master of the group."""
        return self.devices["m0"]

    def slave(self, slot: int) -> Device:
        """The slave of a slot."""
        return self.devices[f"s{slot}"]

    def clear(self) -> None:
        """Have no port, no slave, no active, all counters at zero and links ready."""
        for device in self.devices.values():
            self.set_link(device, Link.READY)
        for ifindex in self.programs.ports():
            self.programs.drop_port(ifindex)
        for group in range(self.programs.max_groups):
            self.programs.open_group(group)

    def arrange(
        self,
        word: Word,
        *,
        plugged: Iterable[int] = range(MAX_SLAVES),
        rule: RxRule = RxRule.ACTIVE,
        group: int = GROUP,
        master: Device | None = None,
        slaves: Mapping[int, Device] | None = None,
        grace: tuple[int, int] | None = None,
    ) -> None:
        """Make a group in a state, its counters at zero.

        Args:
            plugged: the slots whose slave is there; the others are empty, but
                their former slaves are still ports.
            slaves: others than s0 to s7, by slot.
            grace: the slot just left, and how many ms it has.
        """
        self.programs.open_group(group)
        mine = master or self.master
        self.programs.set_master(group, mine.ifindex)
        by_slot = {n: self.slave(n) for n in range(MAX_SLAVES)} | dict(slaves or {})
        for slot, device in by_slot.items():
            self.programs.set_slave(
                group, device.ifindex, slot=slot, master=mine.ifindex, rule=rule
            )
        self.plug(plugged, group=group, slaves=by_slot)
        left, ms = grace or (None, 0)
        swapped = self.programs.swap(group, NOBODY, word, grace_slot=left, grace_ms=ms)
        assert swapped

    def plug(
        self,
        plugged: Iterable[int],
        *,
        group: int = GROUP,
        slaves: Mapping[int, Device] | None = None,
    ) -> None:
        """Have just these slots filled."""
        found = slaves or {n: self.slave(n) for n in range(MAX_SLAVES)}
        for slot in self.programs.slaves(group):
            self.programs.unseat(group, slot)
        for slot in plugged:
            self.programs.seat(group, slot, found[slot].ifindex)

    def set_link(self, device: Device, link: Link) -> None:
        """Have a device's link in a state; it is so when this returns."""
        self.near_ends.set(device.name, link is not Link.DOWN)
        self.far_ends.set(device.peer, link is not Link.NO_CARRIER)

    def run(
        self,
        program: str,
        frame: bytes,
        device: Device,
        *,
        gso_segs: int = 0,
        repeat: int = 1,
    ) -> libbpf.RunResult:
        """Run a program over a frame on a device."""
        ctx = context(device.ifindex, gso_segs=gso_segs)
        fd = self.programs.program(program)
        return libbpf.run(fd, frame, ctx=ctx, repeat=repeat)

    def counters(self, group: int = GROUP) -> readings.Counters:
        """All counters of a group."""
        return readings.read(self.pins, group + 1).counters(group)

    def tally(self) -> Tally:
        """Every counter of every group that is not zero."""
        found: dict[tuple[int, int | None], dict[str, int]] = {}
        said = readings.read(self.pins, self.programs.max_groups)
        for group in range(self.programs.max_groups):
            counters = said.counters(group)
            for slot, values in ((None, counters.group), *counters.slaves.items()):
                if any(values.values()):
                    found[group, slot] = {k: v for k, v in values.items() if v}
        return found

    def state(self, group: int = GROUP) -> abi.State:
        """Word, grace and times of a group, raw."""
        return abi.State.from_buffer_copy(self._raw("fo_states", group, abi.State))

    def seats(self, group: int = GROUP) -> abi.Group:
        """Who sits in the slots of a group, and its down-delay, raw."""
        return abi.Group.from_buffer_copy(self._raw("fo_groups", group, abi.Group))

    def put_seats(self, seats: abi.Group, group: int = GROUP) -> None:
        """Write them, as no program or controller would."""
        with libbpf.opened(self.pins / "maps" / "fo_groups") as fd:
            libbpf.map_update(fd, group, bytes(seats))

    def _raw(self, name: str, key: int, struct: type[ct.Structure]) -> bytes:
        with libbpf.opened(self.pins / "maps" / name) as fd:
            raw = libbpf.map_lookup(fd, key, ct.sizeof(struct))
        assert raw is not None
        return raw


def context(ifindex: int, *, gso_segs: int = 0) -> bytes:
    """A struct __sk_buff as BPF_PROG_TEST_RUN takes it."""
    ctx = bytearray(libbpf.skb_context(ifindex))
    struct.pack_into("=I", ctx, _CTX_GSO_SEGS, gso_segs)
    struct.pack_into("=I", ctx, _CTX_GSO_SIZE, 1448 if gso_segs else 0)
    return bytes(ctx)


@contextmanager
def bench(kind: Kind, store: Path) -> Iterator[Bench]:
    """Load the set and make the interfaces; the caller enters the namespace.

    Args:
        store: where compiled programs are kept.
    """
    with Lab() as lab, scratch_roots() as roots:
        host, far = lab.namespace("bpf"), lab.namespace("bpf-far")
        names = ["m0", *(f"s{n}" for n in range(MAX_SLAVES)), "x0", "high"]
        for name in names:
            index = HIGH_IFINDEX if name == "high" else None
            lab.veth(host, name, far, f"{name}p", mac_a=OURS, mtu=9000, index_a=index)
        devices = {n: Device(n, host.ifindex(n), f"{n}p") for n in names}
        with host.enter():
            pins, run = paths(roots)
            ensure_bpffs(roots.pins)
            with locked(run) as lock_fd:
                loading.load(
                    pins,
                    MAX_GROUPS,
                    kind is Kind.CARRIER_TEST,
                    store=store,
                    lock_fd=lock_fd,
                    scratch=run / "headers",
                )
        with (
            ProgramSet(pins) as opened,
            closing(Switches(host)) as near_ends,
            closing(Switches(far)) as far_ends,
        ):
            yield Bench(
                kind, lab, host, far, near_ends, far_ends, pins, opened, devices
            )
