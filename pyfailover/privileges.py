# SPDX-License-Identifier: GPL-2.0-or-later
"""What this process may do: less and less (capabilities(7), prctl(2)).

For good, and before there are threads: the kernel keeps rights by thread.
"""

import ctypes
import os
import pwd
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from pyfailover.errors import ConfigError, PyFailoverError

DEFAULT_USER = "pyfailover"

_NOBODY = 0xFFFFFFFF  # as a number: stay who you are

_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE, _PR_CAP_AMBIENT_CLEAR_ALL = 2, 4
_CAPABILITY_VERSION_3 = 0x20080522


class Cap(IntEnum):
    """Capabilities that we know by name (linux/capability.h)."""

    CHOWN = 0
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    NET_ADMIN = 12
    NET_RAW = 13
    SYS_ADMIN = 21
    PERFMON = 38
    BPF = 39


# What a controller does after its start: links and filters, announcements, programs
# that read the kernel's memory, programs and maps.
CONTROLLER = frozenset({Cap.NET_ADMIN, Cap.NET_RAW, Cap.PERFMON, Cap.BPF})


@dataclass(frozen=True, slots=True)
class Account:
    """Whom to be."""

    uid: int
    gid: int


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


def account(name: str) -> Account | None:
    """The account of a name, or of UID or UID:GID; None if there is none.

    Raises:
        ConfigError: a number that is none.
    """
    if not name[:1].isdecimal():
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            return None
        return Account(found.pw_uid, found.pw_gid)
    uid, _, gid = name.partition(":")
    gid = gid or uid
    if not (uid.isdecimal() and gid.isdecimal()) or max(int(uid), int(gid)) >= _NOBODY:
        raise ConfigError(
            f"{name!r} is not a user", hint="a name, or a number, or UID:GID"
        )
    return Account(int(uid), int(gid))


def held() -> frozenset[int]:
    """Capabilities that the calling thread has."""
    status = Path("/proc/thread-self/status").read_text()
    (mask,) = (
        int(line.split()[1], 16)
        for line in status.splitlines()
        if line.startswith("CapEff:")
    )
    return frozenset(cap for cap in range(64) if mask >> cap & 1)


def can_become_another() -> bool:
    """Whether we may be somebody else, and give him what is ours."""
    return {Cap.CHOWN, Cap.SETGID, Cap.SETUID} <= held()


def drop(who: Account | None, keep: Collection[Cap] = frozenset()) -> None:
    """Be somebody else with few capabilities, now and in all programs to be run.

    Args:
        who: None: stay who we are; so without the right to change that.
        keep: capabilities; what we do not have we do not get.

    Raises:
        PyFailoverError: the kernel refuses.
    """
    had = held()
    kept = had & frozenset(keep)
    try:
        if Cap.SETPCAP in had:
            for cap in _known_capabilities() - frozenset(keep):
                _prctl(_PR_CAPBSET_DROP, cap)
        if who is not None and os.geteuid() == 0 and who.uid != 0:
            _prctl(_PR_SET_KEEPCAPS, 1)
            os.setgroups([])
            os.setresgid(who.gid, who.gid, who.gid)
            os.setresuid(who.uid, who.uid, who.uid)
        _capset(kept, inheritable=frozenset())
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    except OSError as exc:
        raise PyFailoverError(
            f"cannot give up rights: {exc.strerror}",
            hint="--user 0 keeps the user",
        ) from exc


@contextmanager
def handed_down(*caps: Cap) -> Iterator[None]:
    """Have programs that the calling thread runs meanwhile keep capabilities.

    One of root does anyway, as far as there are any.
    """
    given = held() & frozenset(caps)
    if os.geteuid() == 0 or not given:
        yield
        return
    _capset(held(), inheritable=given)
    try:
        for cap in given:
            _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, cap)
        yield
    finally:
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
        _capset(held(), inheritable=frozenset())


def _known_capabilities() -> frozenset[int]:
    """All that this kernel has."""
    libc = ctypes.CDLL(None)
    known = range(64)
    return frozenset(c for c in known if libc.prctl(_PR_CAPBSET_READ, c, 0, 0, 0) >= 0)


def _capset(caps: Collection[int], *, inheritable: Collection[int]) -> None:
    data = (_Data * 2)()
    for word in range(2):
        mask = _mask(caps) >> 32 * word & 0xFFFFFFFF
        passed = _mask(inheritable) >> 32 * word & 0xFFFFFFFF
        data[word] = _Data(effective=mask, permitted=mask, inheritable=passed)
    header = _Header(version=_CAPABILITY_VERSION_3)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(ctypes.byref(header), data) != 0:
        raise _failure("capset")


def _mask(caps: Collection[int]) -> int:
    return sum(1 << cap for cap in caps)


def _prctl(option: int, first: int, second: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_ulong(n) for n in (first, second, 0, 0))
    if libc.prctl(option, *arguments) != 0:
        raise _failure("prctl")


def _failure(call: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), call)
