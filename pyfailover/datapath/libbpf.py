# SPDX-License-Identifier: GPL-2.0-or-later
"""libbpf through ctypes: objects, pins, maps, test runs, tcx links, tc filters.

One thin function per call, file descriptors as integers, failures as OSError
with libbpf's errno. Nothing here knows what the programs are for. Works with
libbpf 1.1 (Debian 12) and later; the layouts are those of its headers.
"""

import ctypes as ct
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from pyfailover.errors import UnsupportedError

TCX_INGRESS = 46  # enum bpf_attach_type
TCX_EGRESS = 47
TC_INGRESS = 1  # enum bpf_tc_attach_point
TC_EGRESS = 2
TC_F_REPLACE = 1
_MAX_PROGS = 64  # programs on one hook that a query shows
_LICENCE = b"GPL"  # of all programs; some helpers are for such alone
_INSTRUCTION_SIZE = 8
_SKB_SIZE, _SKB_IFINDEX = 192, 40  # struct __sk_buff, and its ifindex
_LOG_SIZE = 16 << 20  # of what a verifier has to say; the most that it takes
_BATCH_BYTES = 1 << 20  # of values that are asked for at once
_F_RDONLY = 1 << 3  # BPF_F_RDONLY


class _TestRunOpts(ct.Structure):
    _fields_ = (
        ("sz", ct.c_size_t),
        ("data_in", ct.c_void_p),
        ("data_out", ct.c_void_p),
        ("data_size_in", ct.c_uint32),
        ("data_size_out", ct.c_uint32),
        ("ctx_in", ct.c_void_p),
        ("ctx_out", ct.c_void_p),
        ("ctx_size_in", ct.c_uint32),
        ("ctx_size_out", ct.c_uint32),
        ("retval", ct.c_uint32),
        ("repeat", ct.c_int),
        ("duration", ct.c_uint32),
        ("flags", ct.c_uint32),
        ("cpu", ct.c_uint32),
        ("batch_size", ct.c_uint32),
    )


class _QueryOpts(ct.Structure):
    _fields_ = (
        ("sz", ct.c_size_t),
        ("query_flags", ct.c_uint32),
        ("attach_flags", ct.c_uint32),
        ("prog_ids", ct.c_void_p),
        ("prog_cnt", ct.c_uint32),
        ("prog_attach_flags", ct.c_void_p),
    )


class _TcHook(ct.Structure):
    _fields_ = (
        ("sz", ct.c_size_t),
        ("ifindex", ct.c_int),
        ("attach_point", ct.c_int),
        ("parent", ct.c_uint32),
    )


class _TcOpts(ct.Structure):
    _fields_ = (
        ("sz", ct.c_size_t),
        ("prog_fd", ct.c_int),
        ("flags", ct.c_uint32),
        ("prog_id", ct.c_uint32),
        ("handle", ct.c_uint32),
        ("priority", ct.c_uint32),
    )


class _GetOpts(ct.Structure):
    _fields_ = (("sz", ct.c_size_t), ("file_flags", ct.c_uint32))


class _MapOpts(ct.Structure):
    _fields_ = (
        ("sz", ct.c_size_t),
        ("btf_fd", ct.c_uint32),
        ("btf_key_type_id", ct.c_uint32),
        ("btf_value_type_id", ct.c_uint32),
        ("btf_vmlinux_value_type_id", ct.c_uint32),
        ("inner_map_fd", ct.c_uint32),
        ("map_flags", ct.c_uint32),
        ("map_extra", ct.c_uint64),
        ("numa_node", ct.c_uint32),
        ("map_ifindex", ct.c_uint32),
    )


class _LoadOpts(ct.Structure):
    _fields_ = (
        ("sz", ct.c_size_t),
        ("attempts", ct.c_int),
        ("expected_attach_type", ct.c_int),
        ("prog_btf_fd", ct.c_uint32),
        ("prog_flags", ct.c_uint32),
        ("prog_ifindex", ct.c_uint32),
        ("kern_version", ct.c_uint32),
        ("attach_btf_id", ct.c_uint32),
        ("attach_prog_fd", ct.c_uint32),
        ("attach_btf_obj_fd", ct.c_uint32),
        ("fd_array", ct.c_void_p),
        ("func_info", ct.c_void_p),
        ("func_info_cnt", ct.c_uint32),
        ("func_info_rec_size", ct.c_uint32),
        ("line_info", ct.c_void_p),
        ("line_info_cnt", ct.c_uint32),
        ("line_info_rec_size", ct.c_uint32),
        ("log_level", ct.c_uint32),
        ("log_size", ct.c_uint32),
        ("log_buf", ct.c_void_p),
    )


class _ProgInfo(ct.Structure):
    """Head of struct bpf_prog_info; the kernel fills as much as is asked."""

    _fields_ = (
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("tag", ct.c_uint8 * 8),
        ("jited_prog_len", ct.c_uint32),
        ("xlated_prog_len", ct.c_uint32),
        ("jited_prog_insns", ct.c_uint64),
        ("xlated_prog_insns", ct.c_uint64),
        ("load_time", ct.c_uint64),
        ("created_by_uid", ct.c_uint32),
        ("nr_map_ids", ct.c_uint32),
        ("map_ids", ct.c_uint64),
        ("name", ct.c_char * 16),
    )


class _MapInfo(ct.Structure):
    """Head of struct bpf_map_info."""

    _fields_ = (
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("key_size", ct.c_uint32),
        ("value_size", ct.c_uint32),
        ("max_entries", ct.c_uint32),
    )


class _LinkInfo(ct.Structure):
    """Head of struct bpf_link_info, as a tcx link fills it."""

    _fields_ = (
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("prog_id", ct.c_uint32),
        ("_pad", ct.c_uint32),
        ("ifindex", ct.c_uint32),
        ("attach_type", ct.c_uint32),
    )


@dataclass(frozen=True, slots=True)
class ProgInfo:
    """What the kernel tells of a program.

    `tag` is a digest of its instructions, without which maps they refer to.
    """

    id: int
    name: str
    tag: str


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """A tcx link; `ifindex` is 0 once its device is gone."""

    prog_id: int
    ifindex: int


@dataclass(frozen=True, slots=True)
class RunResult:
    """Of BPF_PROG_TEST_RUN; `duration_ns` is the mean of one repetition."""

    retval: int
    data: bytes
    duration_ns: int


@cache
def _lib() -> ct.CDLL:
    try:
        lib = ct.CDLL("libbpf.so.1", use_errno=True)
    except OSError as exc:
        raise UnsupportedError(
            "cannot use BPF: libbpf.so.1 is missing", hint="apt install libbpf1"
        ) from exc
    # Its own messages on stderr would be a second voice beside our errors.
    lib.libbpf_set_print(None)
    lib.bpf_map_lookup_elem.argtypes = (ct.c_int, ct.c_void_p, ct.c_void_p)
    lib.bpf_map_update_elem.argtypes = (ct.c_int, ct.c_void_p, ct.c_void_p, ct.c_uint64)
    return lib


def _check(result: int, what: str) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result), what)
    return result


def _sized(struct: type[ct.Structure], **fields: object) -> ct.Structure:
    return struct(sz=ct.sizeof(struct), **fields)


def possible_cpus() -> int:
    """CPUs that a per-CPU value has a slice for."""
    return _check(_lib().libbpf_num_possible_cpus(), "possible cpus")


@cache
def _quick() -> ct.PyDLL:
    """libbpf for calls of some microseconds that do not sleep: they keep the GIL.

    To have it back from a thread that computes takes up to a switch interval, which
    is a hundred times as long.
    """
    lib = ct.PyDLL("libbpf.so.1", use_errno=True)
    lib.bpf_map_lookup_elem.argtypes = (ct.c_int, ct.c_void_p, ct.c_void_p)
    lib.bpf_map_update_elem.argtypes = (ct.c_int, ct.c_void_p, ct.c_void_p, ct.c_uint64)
    return lib


@contextmanager
def opened(path: os.PathLike[str]) -> Iterator[int]:
    """The object pinned at a path, as a descriptor that is closed after."""
    fd = obj_get(path)
    try:
        yield fd
    finally:
        os.close(fd)


def obj_get(path: os.PathLike[str]) -> int:
    """Open the pinned object at a path; the caller closes it."""
    return _check(_lib().bpf_obj_get(os.fsencode(path)), os.fspath(path))


@contextmanager
def opened_to_read(path: os.PathLike[str]) -> Iterator[int]:
    """The same of a map or program for which we have no right to write; through the
    descriptor of a map nothing can be changed."""
    opts = _sized(_GetOpts, file_flags=_F_RDONLY)
    found = _lib().bpf_obj_get_opts(os.fsencode(path), ct.byref(opts))
    fd = _check(found, os.fspath(path))
    try:
        yield fd
    finally:
        os.close(fd)


def obj_pin(fd: int, path: os.PathLike[str]) -> None:
    """Pin an object; the path must be on a bpffs and must not exist."""
    _check(_lib().bpf_obj_pin(fd, os.fsencode(path)), os.fspath(path))


def map_create(
    name: str,
    *,
    type: int,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int,
) -> int:
    """Make a map; the caller closes it."""
    opts = _sized(_MapOpts, map_flags=flags)
    return _check(
        _lib().bpf_map_create(
            type, name.encode(), key_size, value_size, max_entries, ct.byref(opts)
        ),
        "map create",
    )


def prog_load(name: str, type: int, instructions: bytes) -> int:
    """Load a program under the GPL; the caller closes it."""
    return _check(_prog_load(name, type, instructions, None), "program load")


def prog_verdict(name: str, type: int, instructions: bytes) -> str:
    """What the verifier says of a program that it does not let load."""
    log = ct.create_string_buffer(_LOG_SIZE)
    opts = _sized(_LoadOpts, log_level=1, log_size=len(log), log_buf=ct.addressof(log))
    fd = _prog_load(name, type, instructions, ct.byref(opts))
    if fd >= 0:
        os.close(fd)
    return log.value.decode(errors="replace")


def _prog_load(name: str, type: int, instructions: bytes, opts: object) -> int:
    count = ct.c_size_t(len(instructions) // _INSTRUCTION_SIZE)
    loaded: int = _lib().bpf_prog_load(
        type, name.encode(), _LICENCE, instructions, count, opts
    )
    return loaded


def _info(fd: int, struct: type[ct.Structure]) -> ct.Structure:
    info = struct()
    size = ct.c_uint32(ct.sizeof(struct))
    _check(
        _lib().bpf_obj_get_info_by_fd(fd, ct.byref(info), ct.byref(size)),
        "object info",
    )
    return info


def prog_info(fd: int) -> ProgInfo:
    """Id, name and tag of an open program."""
    info = _info(fd, _ProgInfo)
    return ProgInfo(info.id, info.name.decode(errors="replace"), bytes(info.tag).hex())


def prog_name(prog_id: int) -> str:
    """Name of a loaded program, or a question mark (gone, or not allowed)."""
    try:
        fd = _check(_lib().bpf_prog_get_fd_by_id(prog_id), "program by id")
    except OSError:
        return "?"
    try:
        return prog_info(fd).name
    finally:
        os.close(fd)


def map_value_size(fd: int) -> int:
    """Bytes of a value of an open map; of one CPU's for a per-CPU map."""
    return int(_info(fd, _MapInfo).value_size)


def map_entries(fd: int) -> int:
    """max_entries of an open map."""
    return int(_info(fd, _MapInfo).max_entries)


def link_info(fd: int) -> LinkInfo:
    """Program and device of an open tcx link."""
    info = _info(fd, _LinkInfo)
    return LinkInfo(info.prog_id, info.ifindex)


def map_lookup(fd: int, key: int, size: int) -> bytes | None:
    """Value at a u32 key; None if there is none.

    Args:
        size: bytes of the whole value, all CPUs of a per-CPU map included.
    """
    value = ct.create_string_buffer(size)
    result = _quick().bpf_map_lookup_elem(fd, ct.byref(ct.c_uint32(key)), value)
    if result == -errno.ENOENT:
        return None
    _check(result, "map lookup")
    return value.raw


def map_update(fd: int, key: int, value: bytes) -> None:
    """Store a value at a u32 key (E2BIG: the map is full)."""
    buffer = ct.create_string_buffer(value, len(value))
    _check(
        _quick().bpf_map_update_elem(fd, ct.byref(ct.c_uint32(key)), buffer, 0),
        "map update",
    )


def map_values(fd: int, count: int, size: int) -> bytes:
    """The first values of an array map, in few calls (Linux 5.6, per CPU 5.13).

    Args:
        size: bytes of a value, all CPUs of a per-CPU map included.
    """
    room = min(count, max(1, _BATCH_BYTES // size))
    keys = (ct.c_uint32 * room)()
    values = ct.create_string_buffer(room * size)
    place, start = ct.c_uint32(), None
    found: list[bytes] = []
    while count > 0:
        got = ct.c_uint32(min(room, count))
        result = _lib().bpf_map_lookup_batch(
            fd, start, ct.byref(place), keys, values, ct.byref(got), None
        )
        if result != -errno.ENOENT:  # which says that the end was reached
            _check(result, "map values")
        found.append(ct.string_at(values, got.value * size))
        count = 0 if result < 0 else count - got.value
        start = ct.byref(place)
    return b"".join(found)


def map_items(
    fd: int, count: int, key_size: int, value_size: int
) -> list[tuple[bytes, bytes]]:
    """All entries of a hash map of at most `count`, in one call (Linux 5.6)."""
    keys = ct.create_string_buffer(count * key_size)
    values = ct.create_string_buffer(count * value_size)
    got, batch = ct.c_uint32(count), ct.c_uint32()
    result = _lib().bpf_map_lookup_batch(
        fd, None, ct.byref(batch), keys, values, ct.byref(got), None
    )
    if result != -errno.ENOENT:  # which says that the end was reached
        _check(result, "map items")
    # `raw` copies all of a buffer.
    all_keys, all_values = keys.raw, values.raw
    return [
        (
            all_keys[n * key_size : (n + 1) * key_size],
            all_values[n * value_size : (n + 1) * value_size],
        )
        for n in range(got.value)
    ]


def map_delete(fd: int, key: bytes) -> None:
    """Delete an entry of a hash map, if it is there."""
    result = _lib().bpf_map_delete_elem(fd, ct.create_string_buffer(key, len(key)))
    if result != -errno.ENOENT:
        _check(result, "map delete")


def skb_context(ifindex: int) -> bytes:
    """A struct __sk_buff for run(): a packet on an interface of this namespace."""
    context = bytearray(_SKB_SIZE)
    context[_SKB_IFINDEX : _SKB_IFINDEX + 4] = ifindex.to_bytes(4, sys.byteorder)
    return bytes(context)


def run(
    fd: int, data: bytes, *, ctx: bytes | None = None, repeat: int = 1
) -> RunResult:
    """Run a program over a packet by BPF_PROG_TEST_RUN.

    Args:
        data: the packet, at least 14 bytes for SCHED_CLS.
        ctx: a struct __sk_buff, see skb_context(), or None.
    """
    out = ct.create_string_buffer(len(data) + 256)
    source = ct.create_string_buffer(data, len(data))
    context = None if ctx is None else ct.create_string_buffer(ctx, len(ctx))
    opts = _sized(
        _TestRunOpts,
        data_in=ct.addressof(source),
        data_out=ct.addressof(out),
        data_size_in=len(data),
        data_size_out=len(out),
        ctx_in=None if context is None else ct.addressof(context),
        ctx_size_in=0 if ctx is None else len(ctx),
        repeat=repeat,
    )
    lib = _quick() if repeat == 1 else _lib()
    _check(lib.bpf_prog_test_run_opts(fd, ct.byref(opts)), "test run")
    return RunResult(opts.retval, out.raw[: opts.data_size_out], opts.duration)


def tcx_progs(ifindex: int, attach_type: int) -> list[int]:
    """Ids of the tcx programs on a hook, in the order they run.

    Raises:
        OSError: EINVAL where the kernel has no tcx (before 6.6).
    """
    ids = (ct.c_uint32 * _MAX_PROGS)()
    opts = _sized(_QueryOpts, prog_ids=ct.addressof(ids), prog_cnt=_MAX_PROGS)
    _check(
        _lib().bpf_prog_query_opts(ifindex, attach_type, ct.byref(opts)), "tcx query"
    )
    return list(ids[: opts.prog_cnt])


def tcx_attach(prog_fd: int, ifindex: int, attach_type: int) -> int:
    """Put a program last on a tcx hook; the link lives while its fd or pin does."""
    return _check(
        _lib().bpf_link_create(prog_fd, ifindex, attach_type, None), "tcx attach"
    )


def link_update(link_fd: int, prog_fd: int) -> None:
    """Put another program in a link's place; no packet passes by."""
    _check(_lib().bpf_link_update(link_fd, prog_fd, None), "link update")


def link_detach(link_fd: int) -> None:
    """Detach now; the link's last reference is dropped some time later."""
    _check(_lib().bpf_link_detach(link_fd), "link detach")


def _hook(ifindex: int, point: int) -> ct.Structure:
    return _sized(_TcHook, ifindex=ifindex, attach_point=point)


def clsact_create(ifindex: int) -> None:
    """Make the clsact qdisc (EEXIST: there is one, or an ingress qdisc)."""
    hook = _hook(ifindex, TC_INGRESS | TC_EGRESS)
    _check(_lib().bpf_tc_hook_create(ct.byref(hook)), "clsact create")


def clsact_destroy(ifindex: int) -> None:
    """Delete the clsact qdisc with all its filters."""
    hook = _hook(ifindex, TC_INGRESS | TC_EGRESS)
    _check(_lib().bpf_tc_hook_destroy(ct.byref(hook)), "clsact destroy")


def filter_attach(
    prog_fd: int, ifindex: int, point: int, *, priority: int, handle: int
) -> None:
    """Make or replace in place a direct-action bpf filter, protocol all."""
    opts = _sized(
        _TcOpts,
        prog_fd=prog_fd,
        flags=TC_F_REPLACE,
        handle=handle,
        priority=priority,
    )
    hook = _hook(ifindex, point)
    _check(_lib().bpf_tc_attach(ct.byref(hook), ct.byref(opts)), "filter attach")


def filter_prog(ifindex: int, point: int, *, priority: int, handle: int) -> int | None:
    """Id of the program of a bpf filter, None if there is no such filter."""
    opts = _sized(_TcOpts, handle=handle, priority=priority)
    hook = _hook(ifindex, point)
    result = _lib().bpf_tc_query(ct.byref(hook), ct.byref(opts))
    if result in (-errno.ENOENT, -errno.EINVAL, -errno.ENODEV):
        return None
    _check(result, "filter query")
    return int(opts.prog_id)


def filter_detach(ifindex: int, point: int, *, priority: int, handle: int) -> None:
    """Delete a bpf filter."""
    opts = _sized(_TcOpts, handle=handle, priority=priority)
    hook = _hook(ifindex, point)
    _check(_lib().bpf_tc_detach(ct.byref(hook), ct.byref(opts)), "filter detach")
