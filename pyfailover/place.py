# SPDX-License-Identifier: GPL-2.0-or-later
"""Being in a network namespace: entering it, where its things are, its lock.

Pins under a bpffs, records under /run, both by the cookie of the network
namespace: unlike an inode number the kernel never gives a cookie twice. All
roots are options, so that tests never touch an installation.
"""

import ctypes
import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pyfailover.errors import (
    ConfigError,
    PyFailoverError,
    StateError,
    UnsupportedError,
)

PIN_ROOT = Path("/sys/fs/bpf/pyfailover")
RUN_ROOT = Path("/run/pyfailover")
ETC_ROOT = Path("/etc/pyfailover")
CACHE_ROOT = Path("/var/cache/pyfailover")

NETNS_DIR = Path("/run/netns")

_CLONE_NEWNET = 0x40000000
_SO_NETNS_COOKIE = 71  # Linux 5.14
_BPF_FS_MAGIC = 0xCAFE4A11
_LOCK_WAIT_S = 10.0
_LOOK_S = 0.2  # somebody who looks whether there is a controller


@dataclass(frozen=True, slots=True)
class Roots:
    """The directories that hold all namespaces' pins, records, lasting groups, and
    the compiled programs; and what is special about the namespace that is acted in.
    """

    pins: Path = PIN_ROOT
    run: Path = RUN_ROOT
    etc: Path = ETC_ROOT
    cache: Path = CACHE_ROOT
    netns: str | None = None  # what lasting groups call this namespace
    carrier_test: bool | None = None  # of programs to be loaded; None: if they can


def join_namespace(path: Path) -> None:
    """Move the calling thread into a network namespace for good.

    os.setns() exists from Python 3.12 on only.

    Raises:
        OSError: no such namespace, or CAP_SYS_ADMIN is missing.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(fd)
    finally:
        os.close(fd)


def join_named_namespace(name: str | None) -> None:
    """join_namespace() by the name that `ip netns` shows, or a path.

    Args:
        name: None for the present namespace.

    Raises:
        ConfigError: there is no such namespace.
        PyFailoverError: it cannot be entered.
    """
    if name is None:
        return
    try:
        join_namespace(Path(name) if "/" in name else NETNS_DIR / name)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no network namespace '{name}'", hint="see 'ip netns'"
        ) from None
    except OSError as exc:
        raise PyFailoverError(
            f"cannot enter network namespace '{name}': {exc.strerror}",
            hint="CAP_SYS_ADMIN is needed",
        ) from exc


@contextmanager
def _away(join: Callable[[], None]) -> Iterator[None]:
    """Have the calling thread join a namespace, and come back."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        join()
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


@contextmanager
def in_namespace(path: Path) -> Iterator[None]:
    """Put the calling thread into a network namespace for the length of a `with`.

    Other threads stay where they are; sockets keep the namespace in which they
    were made.

    Raises:
        OSError: no such namespace, or CAP_SYS_ADMIN is missing.
    """
    with _away(partial(join_namespace, path)):
        yield


@contextmanager
def in_named_namespace(name: str | None) -> Iterator[None]:
    """The same by name; see join_named_namespace()."""
    if name is None:
        yield
        return
    with _away(partial(join_named_namespace, name)):
        yield


def _setns(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "setns")


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


def live_cookies() -> set[int] | None:
    """Cookies of the network namespaces that a process is in or that have a name;
    None: we may not look at all of them."""
    paths = [*Path("/proc").glob("[0-9]*/ns/net"), *NETNS_DIR.glob("*")]
    seen: set[tuple[int, int]] = set()
    cookies = {netns_cookie()}
    for path in paths:
        try:
            identity = path.stat()
            if (identity.st_dev, identity.st_ino) in seen:
                continue
            seen.add((identity.st_dev, identity.st_ino))
            with in_namespace(path):
                cookies.add(netns_cookie())
        except PermissionError:
            return None
        except OSError:
            continue  # it ended meanwhile
    return cookies


@contextmanager
def locked(run: Path, *, wait_s: float | None = None) -> Iterator[int]:
    """Hold a namespace's lock; yields its descriptor.

    Args:
        wait_s: how long to wait for it; None is long enough for the commands of
            a script to follow each other.

    Raises:
        StateError: somebody else holds it; says who.
    """
    fd = _open_lock(run, "lock")
    try:
        holder = _flock(fd, _LOCK_WAIT_S if wait_s is None else wait_s)
        if holder is not None:
            raise StateError(
                f"cannot change attachments: process {holder} is doing so",
                hint="wait for it to end and try again",
            )
        yield fd
    finally:
        os.close(fd)


@contextmanager
def sole_controller(run: Path) -> Iterator[None]:
    """Be the controller of a namespace; another lock than that of changes, so that
    a controller which hangs keeps nobody from detaching.

    Raises:
        StateError: there is one; says which process.
    """
    fd = _open_lock(run, "controller")
    try:
        holder = _flock(fd, _LOOK_S)
        if holder is not None:
            raise StateError(
                f"a controller runs here already: process {holder}",
                hint="'pyfailover reload' has it read its files again",
            )
        yield
    finally:
        os.close(fd)


def controller_pid(run: Path) -> int | None:
    """The process that is the controller of a namespace, if there is one."""
    try:
        fd = os.open(run / "controller", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.pread(fd, 32, 0) or b"0")
    finally:
        os.close(fd)
    return None


def _open_lock(run: Path, name: str) -> int:
    try:
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(run / name, flags, 0o600)
    except PermissionError as exc:
        raise PyFailoverError(
            f"cannot write '{run}': {exc.strerror}", hint="run as root"
        ) from exc


def give(directory: Path, uid: int, gid: int) -> None:
    """Have all that is in a directory, and itself, belong to somebody.

    Whose it is may put links into it meanwhile: none is followed, and no file is
    given that has another name elsewhere.
    """
    for _, _, files, fd in os.fwalk(directory):
        if os.fstat(fd).st_uid != uid:
            os.fchown(fd, uid, gid)
        for name in files:
            with suppress(FileNotFoundError):
                found = os.lstat(name, dir_fd=fd)
                if found.st_uid != uid and found.st_nlink == 1:
                    os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)


def held(directory: Path) -> tuple[Path, int]:
    """A way to a directory that stays open to us whatever becomes of our rights to
    those above it: a magic link (proc(5)) is not looked up through them.

    Returns:
        It, and the descriptor that it needs.
    """
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return Path(f"/proc/self/fd/{fd}"), fd


def _flock(fd: int, wait_s: float) -> str | None:
    """Lock a file and write our number into it; who holds it, if not we."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return os.pread(fd, 32, 0).decode().strip() or "unknown"
            time.sleep(0.01)
            continue
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        return None


def ensure_bpffs(root: Path) -> None:
    """Have a bpffs under `root`, mounting one on /sys/fs/bpf if there is none.

    Raises:
        UnsupportedError: none is mounted and a mount of ours would vanish with
            this mount namespace (as inside `ip netns exec`), or is forbidden.
    """
    if on_bpffs(root):
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


def on_bpffs(root: Path) -> bool:
    """Whether a directory is, or would be made, on a bpffs."""
    existing = next(p for p in (root, *root.parents) if p.exists())
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = (ctypes.c_long * 32)()
    if libc.statfs(os.fsencode(existing), ctypes.byref(buffer)) != 0:
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
