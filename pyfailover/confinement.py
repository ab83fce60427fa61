# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that can only read: for one that has the controller's user and shall
change nothing of what is that user's.

Landlock (Linux 5.13) keeps it from writing any file, a seccomp filter from what
changes maps, processes and mounts. Both hold for all that it starts, for good.
"""

import ctypes
import logging
import os
import platform
import struct
from collections.abc import Iterable, Mapping

from pyfailover.errors import PyFailoverError, UnsupportedError
from pyfailover.privileges import Account, drop

log = logging.getLogger(__name__)

# linux/landlock.h: what may be done to files but for EXECUTE (its bit is 0), READ_FILE
# (2) and READ_DIR (3), by the first ABI that knows it.
_FS_WRITES = {1: 0b1_1111_1111_0010, 2: 1 << 13, 3: 1 << 14}
_FS_EXECUTE = 1
_SCOPE_SIGNAL = {6: 1 << 1}
_CREATE_RULESET_VERSION = 1
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446  # on every architecture

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_RET_ALLOW, _RET_EPERM, _RET_KILL = 0x7FFF0000, 0x00050001, 0x80000000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET = 0x20, 0x15, 0x35, 0x45
_RETURN = 0x06
_NUMBER_AT, _ARCH_AT = 0, 4  # struct seccomp_data; arguments from 16 on, 8 bytes each
_COMMAND_AT, _PROT_AT, _FLAGS_AT = 16, 32, 40  # of bpf() and mmap(), lower halves
_X32 = 0x40000000  # the same calls once more, by numbers that have this bit
_PROT_WRITE, _MAP_SHARED = 2, 1  # the latter also of MAP_SHARED_VALIDATE

# Of bpf(2), what only reads: lookups, the next key, opening a pin, descriptions.
_BPF_READS = (1, 4, 7, 15, 24)

# AUDIT_ARCH of linux/audit.h, and the numbers of calls that change other processes,
# mounts, or of files what Landlock does not know.
_ARCHES: Mapping[str, tuple[int, Mapping[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {
            "bpf": 321,
            "mmap": 9,
            "kill": 62,
            "tkill": 200,
            "rt_sigqueueinfo": 129,
            "rt_tgsigqueueinfo": 297,
            "pidfd_send_signal": 424,
            "ptrace": 101,
            "process_vm_writev": 311,
            "pidfd_getfd": 438,
            "execve": 59,
            "execveat": 322,
            "mount": 165,
            "umount2": 166,
            "setns": 308,
            "unshare": 272,
            "setpriority": 141,
            "prlimit64": 302,
            "sched_setaffinity": 203,
            "sched_setscheduler": 144,
            "io_uring_setup": 425,
            **{"chmod": 90, "fchmod": 91, "fchmodat": 268, "fchmodat2": 452},
            **{"chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260},
            **{"setxattr": 188, "lsetxattr": 189, "fsetxattr": 190},
            **{"removexattr": 197, "lremovexattr": 198, "fremovexattr": 199},
            **{"utime": 132, "utimes": 235, "futimesat": 261, "utimensat": 280},
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "bpf": 280,
            "mmap": 222,
            "kill": 129,
            "tkill": 130,
            "rt_sigqueueinfo": 138,
            "rt_tgsigqueueinfo": 240,
            "pidfd_send_signal": 424,
            "ptrace": 117,
            "process_vm_writev": 271,
            "pidfd_getfd": 438,
            "execve": 221,
            "execveat": 281,
            "mount": 40,
            "umount2": 39,
            "setns": 268,
            "unshare": 97,
            "setpriority": 140,
            "prlimit64": 261,
            "sched_setaffinity": 122,
            "sched_setscheduler": 119,
            "io_uring_setup": 425,
            **{"fchmod": 52, "fchmodat": 53, "fchmodat2": 452},
            **{"fchown": 55, "fchownat": 54, "utimensat": 88},
            **{"setxattr": 5, "lsetxattr": 6, "fsetxattr": 7},
            **{"removexattr": 14, "lremovexattr": 15, "fremovexattr": 16},
        },
    ),
}


def become_reader(who: Account | None) -> None:
    """Be somebody without capabilities who can change nothing; before there are
    threads.

    What this kernel cannot do for it is said in the log; the rest is done.

    Raises:
        PyFailoverError: the kernel refuses to take rights from us.
    """
    drop(who)
    for confine in (_write_no_file, _change_nobody):
        try:
            confine()
        except UnsupportedError as exc:
            log.warning("%s", exc)


def _write_no_file() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(
        _LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION
    )
    if version < 1:
        raise UnsupportedError("files are not protected from us: no Landlock here")
    handled = _FS_EXECUTE | _of_version(_FS_WRITES, version)
    attributes = struct.pack("QQQ", handled, 0, _of_version(_SCOPE_SIGNAL, version))
    size = 24 if version >= 6 else 8
    fd = libc.syscall(
        _LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0)
    )
    if fd < 0:
        raise _refused("landlock_create_ruleset")
    try:
        if libc.syscall(_LANDLOCK_RESTRICT_SELF, fd, ctypes.c_uint32(0)) != 0:
            raise _refused("landlock_restrict_self")
    finally:
        os.close(fd)


def _of_version(rights: Mapping[int, int], version: int) -> int:
    return sum(mask for since, mask in rights.items() if since <= version)


def _change_nobody() -> None:
    machine = platform.machine()
    if machine not in _ARCHES:
        raise UnsupportedError(f"calls are not filtered: not known on {machine}")
    arch, calls = _ARCHES[machine]
    code = _filter(arch, calls)
    program = struct.pack("HxxxxxxP", len(code) // 8, _address(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0) != 0:
        raise _refused("seccomp")


def _address(code: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(code)


def _filter(arch: int, calls: Mapping[str, int]) -> ctypes.Array[ctypes.c_char]:
    """A program for seccomp(2): refuse these calls; of bpf() all but reading, of mmap()
    what writes into what others have, as the ring and some maps are."""
    refuse = _instruction(_RETURN, _RET_EPERM)
    allow = _instruction(_RETURN, _RET_ALLOW)
    partly = ("bpf", "mmap")
    code = [
        _instruction(_LOAD, _ARCH_AT),
        _instruction(_JUMP_EQUAL, arch, yes=1),
        _instruction(_RETURN, _RET_KILL),  # of a 32-bit process: other numbers
        _instruction(_LOAD, _NUMBER_AT),
        _instruction(_JUMP_AT_LEAST, _X32, no=1),
        refuse,
        *_each((calls[name] for name in calls if name not in partly), refuse),
        _instruction(_JUMP_EQUAL, calls["mmap"], no=6),
        _instruction(_LOAD, _PROT_AT),
        _instruction(_JUMP_SET, _PROT_WRITE, no=3),
        _instruction(_LOAD, _FLAGS_AT),
        _instruction(_JUMP_SET, _MAP_SHARED, no=1),
        refuse,
        allow,
        _instruction(_JUMP_EQUAL, calls["bpf"], yes=1),
        allow,
        _instruction(_LOAD, _COMMAND_AT),
        *_each(_BPF_READS, allow),
        refuse,
    ]
    raw = b"".join(code)
    return ctypes.create_string_buffer(raw, len(raw))


def _each(values: Iterable[int], then: bytes) -> Iterable[bytes]:
    for value in values:
        yield _instruction(_JUMP_EQUAL, value, no=1)
        yield then


def _instruction(code: int, k: int, *, yes: int = 0, no: int = 0) -> bytes:
    """A struct sock_filter; `yes` and `no` are how many to skip."""
    return struct.pack("HBBI", code, yes, no, k)


def _refused(call: str) -> PyFailoverError:
    reason = os.strerror(ctypes.get_errno())
    return PyFailoverError(f"cannot give up rights: {call}: {reason}")
