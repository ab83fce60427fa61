# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs and filters of somebody else's, made without the product's code.

They drop frames of one Ethernet type and let all others go on, so that whether
they are passed is seen from outside.
"""

import ctypes as ct
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from pyfailover.datapath import libbpf
from pyfailover.lab import Namespace

_SCHED_CLS, _XDP = 3, 6  # enum bpf_prog_type
_XDP_FLAGS_SKB_MODE = 2
_SKB_PROTOCOL = 16  # offset in struct __sk_buff
_SHOT, _NEXT, _XDP_PASS = 2, -1, 2


def _code(*instructions: tuple[int, int, int, int]) -> bytes:
    """eBPF instructions: (opcode, registers, offset, immediate)."""
    return b"".join(struct.pack("=BBhi", *each) for each in instructions)


def _load(kind: int, name: str, code: bytes) -> int:
    lib = ct.CDLL("libbpf.so.1", use_errno=True)
    fd: int = lib.bpf_prog_load(kind, name.encode(), b"GPL", code, len(code) // 8, None)
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd), f"load {name}")
    return fd


@contextmanager
def tcx_dropper(ns: Namespace, dev: str, number: int, proto: int) -> Iterator[int]:
    """A tcx program that drops one Ethernet type; yields its id.

    Args:
        number: libbpf.TCX_INGRESS or TCX_EGRESS.
    """
    code = _code(
        (0x61, 0x12, _SKB_PROTOCOL, 0),  # r2 = skb->protocol
        (0xB7, 0x00, 0, _NEXT),  # r0 = TCX_NEXT
        (0x55, 0x02, 1, socket.htons(proto)),  # if r2 != proto skip one
        (0xB7, 0x00, 0, _SHOT),
        (0x95, 0x00, 0, 0),
    )
    program = _load(_SCHED_CLS, "stranger", code)
    try:
        with ns.enter():
            link = libbpf.tcx_attach(program, socket.if_nametoindex(dev), number)
        try:
            yield libbpf.prog_info(program).id
        finally:
            os.close(link)
    finally:
        os.close(program)


@contextmanager
def xdp_passer(ns: Namespace, dev: str) -> Iterator[int]:
    """A generic XDP program that passes everything; yields its id.

    It stays attached when this ends, as other tools' do.
    """
    code = _code((0xB7, 0x00, 0, _XDP_PASS), (0x95, 0x00, 0, 0))
    program = _load(_XDP, "stranger_xdp", code)
    try:
        lib = ct.CDLL("libbpf.so.1", use_errno=True)
        with ns.enter():
            index = socket.if_nametoindex(dev)
            result = lib.bpf_xdp_attach(index, program, _XDP_FLAGS_SKB_MODE, None)
        if result < 0:
            raise OSError(-result, os.strerror(-result), f"attach to {dev}")
        yield libbpf.prog_info(program).id
    finally:
        os.close(program)


def clsact(ns: Namespace, dev: str, kind: str = "clsact") -> None:
    """Give a device a clsact or an ingress qdisc."""
    ns.run("tc", "qdisc", "add", "dev", dev, kind)


def filter_dropping(
    ns: Namespace, dev: str, hook: str, proto: int, *words: str
) -> None:
    """A filter that drops one Ethernet type, in classic BPF since a kernel may lack
    cls_u32; the device has a qdisc for it.

    Args:
        words: further words of `tc filter add`, before the kind.
    """
    code = f"4,40 0 0 12,21 0 1 {proto},6 0 0 {_SHOT},6 0 0 4294967295"
    argv = ["tc", "filter", "add", "dev", dev, hook, *words]
    ns.run(*argv, "bpf", "da", "bytecode", code)


def filters(ns: Namespace, dev: str, hook: str) -> str:
    """What `tc filter show` shows of a hook."""
    return ns.run("tc", "filter", "show", "dev", dev, hook).stdout


def bpf_objects(kind: str) -> set[int]:
    """Ids of all programs ("prog"), maps ("map") or links ("link") of the kernel."""
    lib = ct.CDLL("libbpf.so.1", use_errno=True)
    following = getattr(lib, f"bpf_{kind}_get_next_id")
    ids: set[int] = set()
    number = ct.c_uint32(0)
    while following(number, ct.byref(number)) == 0:
        ids.add(number.value)
    return ids
