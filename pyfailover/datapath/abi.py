# SPDX-License-Identifier: GPL-2.0-or-later
"""Mirror of bpf/failover.h: the layout that programs and user space share.

A test compiles the header and compares every size, offset and number here.
"""

import ctypes as ct
from enum import IntEnum

from pyfailover.model import MAX_SLAVES, Word

ABI_VERSION = 3
NO_SLOT = 0xFF
FLAG_KERNEL = 1
PORT_PROBES = 16
MAX_SOURCES = 4096
LOOK_VALID = 1 << 16
STEPS_BYTES = 16 * 4096  # of the ring, whole pages
_PORT_HASH = 2654435769

# Kernel functions that the programs call, and what stands in for each.
KFUNCS = {"bpf_cast_to_kern_ctx": 0x70000001, "bpf_rdonly_cast": 0x70000002}


class RxRule(IntEnum):
    """enum fo_rx_rule: which frames of a slave reach the master."""

    ACTIVE = 0
    ALWAYS = 1
    NO_PRIMARY = 2


class SlaveCounter(IntEnum):
    """enum fo_slave_counter."""

    TX_PACKETS = 0
    TX_BYTES = 1
    RX_PACKETS = 2
    RX_BYTES = 3
    RX_GRACE = 4
    RX_LINK_LOCAL = 5
    RX_DROP_INACTIVE = 6
    LEFT = 7


class GroupCounter(IntEnum):
    """enum fo_group_counter."""

    TX_DROP_NO_ACTIVE = 0
    TX_LINK_LOCAL = 1


class LinkState(IntEnum):
    """enum fo_link: what the programs see of a slave's link.

    The plain programs cannot look: a slave is ready while its slot is taken.
    """

    NONE = 0
    NO_CARRIER = 1
    READY = 2


class SeatVerdict(IntEnum):
    """enum fo_seat_verdict: what the program fo_seat returns."""

    TAKEN = 1
    NO_SUCH = 2
    BAD_REQUEST = 3
    OTHER = 4


class CasVerdict(IntEnum):
    """enum fo_cas_verdict: what the program fo_cas returns."""

    SWAPPED = 1
    REFUSED = 2
    NO_GROUP = 3
    BAD_REQUEST = 4


class State(ct.Structure):
    """struct fo_state."""

    _fields_ = (
        ("word", ct.c_uint64),
        ("grace", ct.c_uint64),
        ("lost_ns", ct.c_uint64),
        ("stepped_ns", ct.c_uint64),
        ("opened_ns", ct.c_uint64),
    )


class Seat(ct.Structure):
    """struct fo_seat."""

    _fields_ = (
        ("dev", ct.c_uint64),
        ("net", ct.c_uint64),
        ("id", ct.c_uint64),
        ("ifindex", ct.c_uint32),
        ("pad", ct.c_uint32),
    )


class Group(ct.Structure):
    """struct fo_group."""

    _fields_ = (("seat", Seat * MAX_SLAVES), ("down_delay_ns", ct.c_uint64))


class Port(ct.Structure):
    """struct fo_port."""

    _fields_ = (
        ("ifindex", ct.c_uint32),
        ("group", ct.c_uint32),
        ("slot", ct.c_uint32),
        ("master", ct.c_uint32),
        ("rx_rule", ct.c_uint32),
    )


class Step(ct.Structure):
    """struct fo_step."""

    _fields_ = (
        ("ns", ct.c_uint64),
        ("group", ct.c_uint32),
        ("generation", ct.c_uint32),
        ("before", ct.c_uint8),
        ("after", ct.c_uint8),
        ("pad", ct.c_uint8 * 6),
    )


class About(ct.Structure):
    """struct fo_about."""

    _fields_ = (
        ("carrier_test", ct.c_uint32),
        ("pad", ct.c_uint32),
        ("sources", ct.c_uint8 * 32),
    )


class SeatRequest(ct.Structure):
    """struct fo_seat_request."""

    _fields_ = (
        ("ethernet", ct.c_uint64 * 2),
        ("group", ct.c_uint32),
        ("slot", ct.c_uint32),
        ("check", ct.c_uint32),
        ("pad", ct.c_uint32),
    )


class LookRequest(ct.Structure):
    """struct fo_look_request."""

    _fields_ = (
        ("ethernet", ct.c_uint64 * 2),
        ("group", ct.c_uint32),
        ("pad", ct.c_uint32),
    )


class CasRequest(ct.Structure):
    """struct fo_cas_request."""

    _fields_ = (
        ("ethernet", ct.c_uint64 * 2),
        ("group", ct.c_uint32),
        ("grace_slot", ct.c_uint32),
        ("expected", ct.c_uint64),
        ("desired", ct.c_uint64),
        ("grace_ns", ct.c_uint64),
    )


class Source(ct.Structure):
    """struct fo_source."""

    _fields_ = (
        ("mac_head", ct.c_uint32),
        ("mac_tail", ct.c_uint16),
        ("vlan", ct.c_uint16),
        ("group", ct.c_uint32),
        ("pad", ct.c_uint32),
    )


class LastSource(ct.Structure):
    """struct fo_last_source."""

    _fields_ = (("source", Source), ("jiffies", ct.c_uint64))


SlaveStats = ct.c_uint64 * len(SlaveCounter)
GroupStats = ct.c_uint64 * len(GroupCounter)


def port_bits(max_groups: int) -> int:
    """Bits of a table of ports that is at most an eighth full."""
    return (max_groups * (MAX_SLAVES + 1) * 8 - 1).bit_length()


def port_places(ifindex: int, bits: int) -> list[int]:
    """fo_port_place(): where a port may be in a table of 2^bits, in order."""
    first = (ifindex * _PORT_HASH & 0xFFFFFFFF) >> (32 - bits)
    return [(first + probe) % (1 << bits) for probe in range(PORT_PROBES)]


def pack_word(word: Word) -> int:
    """The u64 that stands for a word."""
    active = NO_SLOT if word.active is None else word.active
    flags = FLAG_KERNEL if word.by_kernel else 0
    return (
        word.generation & 0xFFFFFFFF
        | active << 32
        | word.left << 40
        | word.approved << 48
        | flags << 56
    )


def unpack_word(raw: int) -> Word:
    """The word that a u64 stands for."""
    active = raw >> 32 & 0xFF
    return Word(
        generation=raw & 0xFFFFFFFF,
        active=None if active == NO_SLOT else active,
        left=raw >> 40 & 0xFF,
        approved=raw >> 48 & 0xFF,
        by_kernel=bool(raw >> 56 & FLAG_KERNEL),
    )
