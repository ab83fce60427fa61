# SPDX-License-Identifier: GPL-2.0-or-later
"""What the carrier test has to know of the running kernel, from its BTF.

Type ids, offsets of members and ids of kernel functions, read by libbpf. It takes
the kernel's whole BTF into memory for as long as that takes: when something is to be
compiled, not when an image is loaded.
"""

import ctypes as ct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pyfailover.datapath.abi import KFUNCS
from pyfailover.errors import UnsupportedError

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_CHUNK, _NAME_SIZE = 1 << 16, 128  # bytes; no function has a longer name

_STRUCT, _UNION, _FUNC = 4, 5, 12  # BTF_KIND_…
_MODIFIERS = frozenset({8, 9, 10, 11, 18})  # typedef, volatile, const, restrict, tag

# Macro -> structure, and the way to the member.
_OFFSETS = {
    "FO_SK_BUFF_DEV": ("sk_buff", "dev"),
    "FO_NET_DEVICE_STATE": ("net_device", "state"),
    "FO_NET_DEVICE_IFINDEX": ("net_device", "ifindex"),
    "FO_NET_DEVICE_NET": ("net_device", "nd_net.net"),
    "FO_NET_DEVICE_SD": ("net_device", "dev.kobj.sd"),
    "FO_KERNFS_NODE_ID": ("kernfs_node", "id"),
}


@dataclass(frozen=True, slots=True)
class Resolved:
    """What of the running kernel is compiled in."""

    flags: tuple[str, ...] = ()  # -DNAME=VALUE
    kfuncs: Mapping[str, int] = field(default_factory=dict)  # BTF ids by name


class _Type(ct.Structure):
    """struct btf_type."""

    _fields_ = (
        ("name", ct.c_uint32),
        ("info", ct.c_uint32),
        ("size_or_type", ct.c_uint32),
    )

    @property
    def kind(self) -> int:
        return int(self.info >> 24 & 0x1F)


class _Member(ct.Structure):
    """struct btf_member."""

    _fields_ = (
        ("name", ct.c_uint32),
        ("type", ct.c_uint32),
        ("offset", ct.c_uint32),
    )


def lack(path: Path | None = None) -> str | None:
    """Why a kernel with this BTF cannot have the carrier test; None: it can.

    A quick look: the names of all functions are in there.
    """
    missing = list(KFUNCS)
    try:
        with (path or VMLINUX).open("rb", buffering=0) as file:
            seen = b""
            while missing and (chunk := file.read(_CHUNK)):  # not all of 5 MB at once
                text = seen + chunk
                # Without the zero before it: what begins with one is sought slowly.
                missing = [n for n in missing if b"%s\0" % n.encode() not in text]
                seen = text[-_NAME_SIZE:]
    except OSError:
        return "no BTF (CONFIG_DEBUG_INFO_BTF)"
    return f"no {missing[0]} (requires Linux 6.2)" if missing else None


def resolve() -> Resolved:
    """What the carrier test has to know of the running kernel.

    Raises:
        UnsupportedError: it cannot have one; says why.
    """
    kernel = _Kernel()
    try:
        flags = [f"-DFO_NET_DEVICE={kernel.find('net_device', _STRUCT)}"]
        for macro, (struct, path) in _OFFSETS.items():
            flags.append(f"-D{macro}={kernel.offset(struct, path)}")
        kfuncs = {name: kernel.find(name, _FUNC) for name in KFUNCS}
    finally:
        kernel.close()
    return Resolved(tuple(flags), kfuncs)


@cache
def _lib() -> ct.CDLL:
    lib = ct.CDLL("libbpf.so.1", use_errno=True)
    lib.btf__load_vmlinux_btf.restype = ct.c_void_p
    lib.btf__free.argtypes = (ct.c_void_p,)
    lib.btf__find_by_name_kind.argtypes = (ct.c_void_p, ct.c_char_p, ct.c_uint32)
    lib.btf__type_by_id.argtypes = (ct.c_void_p, ct.c_uint32)
    lib.btf__type_by_id.restype = ct.c_void_p
    lib.btf__name_by_offset.argtypes = (ct.c_void_p, ct.c_uint32)
    lib.btf__name_by_offset.restype = ct.c_char_p
    return lib


class _Kernel:
    """The running kernel's BTF."""

    def __init__(self) -> None:
        self._btf = _lib().btf__load_vmlinux_btf() if VMLINUX.exists() else None
        if not self._btf:
            raise cannot("no BTF (CONFIG_DEBUG_INFO_BTF)")

    def close(self) -> None:
        _lib().btf__free(self._btf)

    def find(self, name: str, kind: int) -> int:
        """Id of a type or function."""
        found: int = _lib().btf__find_by_name_kind(self._btf, name.encode(), kind)
        if found < 0:
            what = "function" if kind == _FUNC else "structure"
            raise cannot(f"no {what} {name} (requires Linux 6.2)")
        return found

    def offset(self, struct: str, path: str) -> int:
        """Bytes from the start of a structure to a member of members."""
        type_id, total = self.find(struct, _STRUCT), 0
        for name in path.split("."):
            member = self._member(type_id, name)
            if member is None:
                raise cannot(f"no member {path} in its struct {struct}")
            bits, type_id = member
            total += bits
        return total // 8

    def _member(self, type_id: int, wanted: str) -> tuple[int, int] | None:
        """Offset in bits and type of a member, those of unnamed ones included."""
        for name, inner, bits in self._members(type_id):
            if name == wanted:
                return bits, inner
            if not name and (found := self._member(inner, wanted)) is not None:
                return bits + found[0], found[1]
        return None

    def _members(self, type_id: int) -> Iterator[tuple[str, int, int]]:
        """Name, type and offset in bits of the members of a structure or union."""
        lib = _lib()
        while True:
            address = lib.btf__type_by_id(self._btf, type_id)
            header = _Type.from_address(address)
            if header.kind not in _MODIFIERS:
                break
            type_id = header.size_or_type
        if header.kind not in (_STRUCT, _UNION):
            return
        has_bitfields = header.info >> 31
        members = _Member * (header.info & 0xFFFF)
        for each in members.from_address(address + ct.sizeof(_Type)):
            bits = each.offset & 0xFFFFFF if has_bitfields else each.offset
            name = lib.btf__name_by_offset(self._btf, each.name)
            yield name.decode(), each.type, bits


def cannot(why: str) -> UnsupportedError:
    """The error of a kernel that lacks something."""
    return UnsupportedError(
        f"the programs cannot look at carriers: this kernel has {why}",
        hint="without it failover waits for the controller: --no-carrier-test",
    )
