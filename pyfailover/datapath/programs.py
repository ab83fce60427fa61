# SPDX-License-Identifier: GPL-2.0-or-later
"""The pinned programs and maps of one network namespace.

One set serves all groups of the namespace; it is loaded for the first of them
and removed with the last (loading.py). Everything here works on pins alone: no
process state is needed to open a set or to steer it.
"""

import ctypes as ct
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pyfailover.datapath import abi, libbpf
from pyfailover.datapath.build import MAPS, PROGRAMS
from pyfailover.errors import BpfError, StateError
from pyfailover.model import MAX_SLAVES, NOBODY, RxMode, Word

_AGE_NS = 300 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Somebody who transmits through a master."""

    mac: str
    vlan: int  # 0: untagged


# Of all programs that this process has had open. To ask the kernel for the name of one
# takes CAP_SYS_ADMIN, which a controller has not; its filters outlive their pins.
seen_ids: set[int] = set()


class ProgramSet:
    """The programs and maps of a namespace; a context manager closes them.

    Raises:
        FileNotFoundError: from the constructor, where no set is loaded.
    """

    def __init__(self, pins: Path) -> None:
        self._fds: dict[str, int] = {}
        self._cpus = libbpf.possible_cpus()
        try:
            for sub, names in (("progs", PROGRAMS), ("maps", MAPS)):
                for name in names:
                    self._fds[name] = libbpf.obj_get(pins / sub / name)
        except OSError:
            self.close()
            raise
        self.max_groups = libbpf.map_entries(self._fds["fo_states"])
        about = abi.About.from_buffer_copy(self._get("fo_about", 0, abi.About))
        self.carrier_test = bool(about.carrier_test)
        self.made_of = bytes(about.sources).hex()  # digest of their sources
        self._port_bits = libbpf.map_entries(self._fds["fo_ports"]).bit_length() - 1

    @property
    def steps(self) -> int:
        """Descriptor of the ring of the programs' steps, valid until close()."""
        return self._fds["fo_steps"]

    def __enter__(self) -> "ProgramSet":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors; the pins stay."""
        while self._fds:
            os.close(self._fds.popitem()[1])

    def program(self, name: str) -> int:
        """Descriptor of a program, valid until close()."""
        return self._fds[name]

    def program_ids(self) -> dict[str, int]:
        """Kernel ids of the programs by name: what is ours on a hook."""
        ids = {name: libbpf.prog_info(self._fds[name]).id for name in PROGRAMS}
        seen_ids.update(ids.values())
        return ids

    # --- groups -----------------------------------------------------------

    def open_group(self, index: int, word: Word = NOBODY) -> None:
        """Make a group: no slaves, counters at zero, nobody active unless said.

        Only before its programs are attached: the word is stored, not swapped.
        """
        state = abi.State(word=abi.pack_word(word), opened_ns=time.monotonic_ns())
        self._put("fo_states", self._known(index), bytes(state))
        self._put("fo_groups", index, bytes(abi.Group()))
        self._forget_sources(index)
        zero = bytes(abi.GroupStats()) * self._cpus
        self._put("fo_group_stats", index, zero)
        zero = bytes(abi.SlaveStats()) * self._cpus
        for slot in range(MAX_SLAVES):
            self._put("fo_slave_stats", index * MAX_SLAVES + slot, zero)

    def close_group(self, index: int) -> None:
        """Forget a group: no slave, no active, its ports gone."""
        for ifindex, port in self.ports().items():
            if port.group == index:
                self.drop_port(ifindex)
        self._put(
            "fo_states",
            self._known(index),
            bytes(abi.State(word=abi.pack_word(NOBODY))),
        )
        self._put("fo_groups", index, bytes(abi.Group()))

    def seat(self, index: int, slot: int, ifindex: int) -> None:
        """Put an interface of the calling thread's namespace in a slot.

        A program does it, who learns what he has to know of the device to look at
        its carrier.

        Raises:
            BpfError: there is no such interface.
        """
        try:
            verdict = self._seat(index, slot, ifindex, check=False)
        except OSError as exc:
            raise BpfError(
                f"cannot seat interface {ifindex} in group {index}: {exc.strerror}"
            ) from exc
        if verdict != abi.SeatVerdict.TAKEN:
            raise BpfError(
                f"cannot seat interface {ifindex} in slot {slot} of group {index}: "
                f"verdict {verdict}"
            )

    def seated(self, index: int, slot: int, ifindex: int) -> bool:
        """Whether an interface is in a slot, and no former one of its ifindex; one
        that there is not is in none."""
        try:
            verdict = self._seat(index, slot, ifindex, check=True)
        except OSError:
            return False
        return verdict == abi.SeatVerdict.TAKEN

    def _seat(self, index: int, slot: int, ifindex: int, *, check: bool) -> int:
        request = abi.SeatRequest(group=self._known(index), slot=slot, check=check)
        context = libbpf.skb_context(ifindex)
        return libbpf.run(self._fds["fo_seat"], bytes(request), ctx=context).retval

    def unseat(self, index: int, slot: int) -> None:
        """Empty a slot."""
        group = self._group(index)
        group.seat[slot] = abi.Seat()
        self._put("fo_groups", index, bytes(group))

    def links(self, index: int) -> list[abi.LinkState]:
        """What the programs see of the links of a group, by slot."""
        request = bytes(abi.LookRequest(group=self._known(index)))
        found = libbpf.run(self._fds["fo_look"], request).retval
        if not found & abi.LOOK_VALID:
            raise BpfError(f"cannot look at group {index}: verdict {found}")
        return [abi.LinkState(found >> 2 * n & 3) for n in range(MAX_SLAVES)]

    def slaves(self, index: int) -> dict[int, int]:
        """ifindex by slot of a group, empty slots left out."""
        seats = enumerate(self._group(index).seat)
        return {slot: seat.ifindex for slot, seat in seats if seat.ifindex}

    def set_down_delay(self, index: int, ms: int) -> None:
        """Have the programs wait so long for a carrier that is lost."""
        group = self._group(index)
        if group.down_delay_ns != ms * 1_000_000:
            group.down_delay_ns = ms * 1_000_000
            self._put("fo_groups", index, bytes(group))

    def _group(self, index: int) -> abi.Group:
        raw = self._get("fo_groups", self._known(index), abi.Group)
        return abi.Group.from_buffer_copy(raw)

    def ports(self) -> dict[int, abi.Port]:
        """All interfaces of all groups, by ifindex."""
        places = 1 << self._port_bits
        raw = libbpf.map_values(self._fds["fo_ports"], places, ct.sizeof(abi.Port))
        table = (abi.Port * places).from_buffer_copy(raw)
        return {port.ifindex: port for port in table if port.ifindex}

    def port(self, ifindex: int) -> abi.Port | None:
        """What an interface is to us."""
        return self._find_port(ifindex)[1] if ifindex else None

    def set_master(self, index: int, ifindex: int) -> None:
        """Make an interface the master of a group."""
        self._set_port(
            abi.Port(
                ifindex=ifindex,
                group=self._known(index),
                slot=abi.NO_SLOT,
                master=ifindex,
            )
        )

    def set_slave(
        self, index: int, ifindex: int, *, slot: int, master: int, rule: abi.RxRule
    ) -> None:
        """Make an interface the slave in a slot of a group."""
        self._set_port(
            abi.Port(
                ifindex=ifindex,
                group=self._known(index),
                slot=slot,
                master=master,
                rx_rule=rule,
            )
        )

    def drop_port(self, ifindex: int) -> None:
        """An interface is nothing to us any more."""
        place, port = self._find_port(ifindex)
        if place is not None and port is not None:
            self._put("fo_ports", place, bytes(abi.Port()))

    def _set_port(self, port: abi.Port) -> None:
        place, _ = self._find_port(port.ifindex)
        if place is None:
            raise StateError(
                f"cannot add interface {port.ifindex}: the table of interfaces is full",
                hint="detach all groups and attach the first with more --max-groups",
            )
        self._put("fo_ports", place, bytes(port))

    def _find_port(self, ifindex: int) -> tuple[int | None, abi.Port | None]:
        """Place and port of an interface; or a free place for it, if there is one."""
        free = None
        for place in abi.port_places(ifindex, self._port_bits):
            port = abi.Port.from_buffer_copy(self._get("fo_ports", place, abi.Port))
            if port.ifindex == ifindex:
                return place, port
            if free is None and port.ifindex == 0:
                free = place
        return free, None

    # --- the word ---------------------------------------------------------

    def word(self, index: int) -> Word:
        """The word in force."""
        return abi.unpack_word(self._state(index).word)

    def opened_at(self, index: int) -> float:
        """When a group was opened, of time.monotonic()."""
        return float(self._state(index).opened_ns / 1e9)

    def _state(self, index: int) -> abi.State:
        raw = self._get("fo_states", self._known(index), abi.State)
        return abi.State.from_buffer_copy(raw)

    def change(
        self, index: int, decide: Callable[[Word], Word], *, grace_ms: int = 0
    ) -> tuple[Word, Word]:
        """Replace the word by what `decide` makes of it.

        A program may step at any moment, so the word that was decided upon must
        still be in force when it is replaced; else it is decided again.

        Args:
            grace_ms: how long unicast frames from the slave that is left are
                still taken.

        Returns:
            The word before and the word after.
        """
        while True:
            before = self.word(index)
            after = decide(before)
            left = before.active if before.active != after.active else None
            if self.swap(index, before, after, grace_slot=left, grace_ms=grace_ms):
                return before, after

    def swap(
        self,
        index: int,
        expected: Word,
        desired: Word,
        *,
        grace_slot: int | None = None,
        grace_ms: int = 0,
    ) -> bool:
        """Replace the word if it still is the expected one.

        Returns:
            False if a program was faster.
        """
        request = abi.CasRequest(
            group=self._known(index),
            grace_slot=abi.NO_SLOT if grace_slot is None else grace_slot,
            expected=abi.pack_word(expected),
            desired=abi.pack_word(desired),
            grace_ns=grace_ms * 1_000_000,
        )
        result = libbpf.run(self._fds["fo_cas"], bytes(request))
        if result.retval == abi.CasVerdict.SWAPPED:
            return True
        if result.retval == abi.CasVerdict.REFUSED:
            return False
        raise BpfError(f"cannot change group {index}: verdict {result.retval}")

    # --- who transmits ----------------------------------------------------

    def sources(self) -> dict[int, list[Source]]:
        """Who transmitted lately through each group's master, by group.

        Those who were silent for as long as a switch remembers (IEEE 802.1Q: 300 s)
        are left out: they may be elsewhere now.
        """
        since = time.monotonic_ns() - _AGE_NS
        found: dict[int, list[Source]] = {}
        for key, seen_ns in self._sources():
            if seen_ns >= since:
                source = Source(mac=bytes(key)[:6].hex(":"), vlan=key.vlan)
                found.setdefault(key.group, []).append(source)
        return found

    def _sources(self) -> Iterator[tuple[abi.Source, int]]:
        size = ct.sizeof(abi.Source)
        fd = self._fds["fo_sources"]
        for key, seen_ns in libbpf.map_items(fd, abi.MAX_SOURCES, size, 8):
            source = abi.Source.from_buffer_copy(key)
            yield source, int.from_bytes(seen_ns, sys.byteorder)

    def _forget_sources(self, index: int) -> None:
        for key, _ in list(self._sources()):
            if key.group == index:
                libbpf.map_delete(self._fds["fo_sources"], bytes(key))
        zero = bytes(abi.LastSource()) * self._cpus
        self._put("fo_last_source", index, zero)

    # --- maps -------------------------------------------------------------

    def _known(self, index: int) -> int:
        """A group's index, seen to be one."""
        if not 0 <= index < self.max_groups:
            raise BpfError(
                f"cannot use group {index}: there is room for {self.max_groups}",
                hint="detach all groups and attach the first with more --max-groups",
            )
        return index

    def _get(self, name: str, key: int, struct: type[ct.Structure]) -> bytes:
        raw = libbpf.map_lookup(self._fds[name], key, ct.sizeof(struct))
        if raw is None:
            raise BpfError(f"cannot read map '{name}': it has no entry {key}")
        return raw

    def _put(self, name: str, key: int, value: bytes) -> None:
        try:
            libbpf.map_update(self._fds[name], key, value)
        except OSError as exc:
            raise BpfError(f"cannot write map '{name}': {exc.strerror}") from exc


def rx_rule(mode: RxMode, *, primary: bool, has_primary: bool) -> abi.RxRule:
    """How a mode reads for one slave.

    `kernel` is net_failover_handle_frame: the primary's frames always, a
    standby's never while a primary is plugged.
    """
    if mode is RxMode.ALL or (mode is RxMode.KERNEL and primary):
        return abi.RxRule.ALWAYS
    if mode is RxMode.KERNEL and has_primary:
        return abi.RxRule.NO_PRIMARY
    return abi.RxRule.ACTIVE
