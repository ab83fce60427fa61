# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a namespace's things are, and the lock that guards them.

Pins under a bpffs, records under /run, both by the cookie of the network
namespace: unlike an inode number the kernel never gives a cookie twice. Both
roots are options, so that tests never touch an installation.
"""

import ctypes
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyfailover.errors import PyFailoverError, StateError, UnsupportedError

PIN_ROOT = Path("/sys/fs/bpf/pyfailover")
RUN_ROOT = Path("/run/pyfailover")

_SO_NETNS_COOKIE = 71  # Linux 5.14
_BPF_FS_MAGIC = 0xCAFE4A11
_LOCK_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Roots:
    """The directories that hold all namespaces' pins and records."""

    pins: Path = PIN_ROOT
    run: Path = RUN_ROOT


def netns_cookie() -> int:
    """The cookie of the calling thread's network namespace.

    Raises:
        UnsupportedError: the kernel is older than 5.14.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            raw = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        except OSError as exc:
            raise UnsupportedError(
                "cannot tell network namespaces apart: this kernel has no "
                "SO_NETNS_COOKIE (requires Linux 5.14)"
            ) from exc
    return int.from_bytes(raw, "little")


@contextmanager
def locked(run: Path) -> Iterator[int]:
    """Hold a namespace's lock; yields its descriptor.

    Raises:
        StateError: somebody else holds it; says who.
    """
    try:
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError as exc:
        raise PyFailoverError(
            f"cannot write '{run}': {exc.strerror}", hint="run as root"
        ) from exc
    try:
        _flock(fd)
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield fd
    finally:
        os.close(fd)


def _flock(fd: int) -> None:
    """Take the lock; a short wait lets commands of a script follow each other."""
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            holder = os.pread(fd, 32, 0).decode().strip() or "unknown"
            raise StateError(
                f"cannot change attachments: process {holder} is doing so",
                hint="wait for it to end and try again",
            ) from None


def ensure_bpffs(root: Path) -> None:
    """Have a bpffs under `root`, mounting one on /sys/fs/bpf if there is none.

    Raises:
        UnsupportedError: none is mounted and a mount of ours would vanish with
            this mount namespace (as inside `ip netns exec`), or is forbidden.
    """
    existing = next(p for p in (root, *root.parents) if p.exists())
    if _is_bpffs(existing):
        return
    mountpoint = Path("/sys/fs/bpf")
    if mountpoint not in (root, *root.parents) or not mountpoint.is_dir():
        raise UnsupportedError(
            f"cannot pin under '{root}': it is not on a bpffs",
            hint="mount one there (mount -t bpf bpf DIR), or use /sys/fs/bpf",
        )
    if not _in_first_mount_namespace():
        raise UnsupportedError(
            "cannot pin: no bpffs is mounted in this mount namespace, and one "
            "mounted here would vanish with it",
            hint="do not run inside 'ip netns exec': use --netns NAME",
        )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", os.fsencode(mountpoint), b"bpf", 0, b"mode=0700") != 0:
        code = ctypes.get_errno()
        if code != errno.EBUSY:
            raise UnsupportedError(
                f"cannot mount a bpffs on '{mountpoint}': {os.strerror(code)}",
                hint="CAP_SYS_ADMIN is needed once; or mount it beforehand",
            )


def _is_bpffs(path: Path) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = (ctypes.c_long * 32)()
    if libc.statfs(os.fsencode(path), ctypes.byref(buffer)) != 0:
        return False
    return buffer[0] & 0xFFFFFFFF == _BPF_FS_MAGIC


def _in_first_mount_namespace() -> bool:
    """By the mounts' ids, which differ between namespaces: /proc/1/ns needs
    more rights than /proc/1/mountinfo."""
    try:
        return Path("/proc/1/mountinfo").read_text() == (
            Path("/proc/self/mountinfo").read_text()
        )
    except OSError:
        return False
