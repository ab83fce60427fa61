# SPDX-License-Identifier: GPL-2.0-or-later
"""Throw-away network namespaces for the demo, the tests and the benchmarks.

Its secret is how a quiet topology is made with iproute2, and taken away whole
whatever happens in between. It must not use our own netlink code: it is the
independent witness of it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self, TypeVar

from pyfailover.errors import PyFailoverError
from pyfailover.place import NETNS_DIR, PIN_ROOT, Roots, in_namespace, join_namespace

T = TypeVar("T")
Arg = str | os.PathLike[str]

INTERRUPTS = {signal.SIGINT, signal.SIGTERM}
_POLL_S = 0.005
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
_IFREQ = struct.Struct("=16sH22x")
_KILL_WAIT_MS = 5000
_KILL_ROUNDS = 20

# A report of multicast groups is repeated after a random part of this many
# milliseconds: 23 days is never, for us. (The first one cannot be prevented.)
_NEVER_MS = 2_000_000_000
_QUIET = {
    "accept_dad": 0,
    "dad_transmits": 0,
    "accept_ra": 0,
    "router_solicitations": 0,
    "mldv1_unsolicited_report_interval": _NEVER_MS,
    "mldv2_unsolicited_report_interval": _NEVER_MS,
}


class LabError(PyFailoverError):
    """A command of the lab failed: which, how, and what it said."""

    def __init__(self, command: str, returncode: int, stderr: str) -> None:
        super().__init__(f"'{command}' ended with {returncode}: {stderr.strip()}")
        self.command = command
        self.returncode = returncode
        self.stderr = stderr


class Namespace:
    """A named network namespace, and how to act inside it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Namespace({self.name!r})"

    @property
    def path(self) -> Path:
        """The file that stands for the namespace."""
        return NETNS_DIR / self.name

    def argv(self, *argv: Arg) -> list[str]:
        """The command line that runs `argv` inside.

        By nsenter, because `ip netns exec` mounts another /sys and any bpffs
        below it would be out of sight.
        """
        return ["nsenter", f"--net={self.path}", *(os.fspath(a) for a in argv)]

    def run(
        self,
        *argv: Arg,
        check: bool = True,
        input: str | None = None,
        timeout: float | None = 60.0,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside and wait for its end.

        Raises:
            LabError: it ended with another code than 0 (unless `check` is off).
        """
        command = self.argv(*argv)
        return _run(command, check=check, input=input, timeout=timeout, env=env)

    def ip(self, *args: str) -> str:
        """What `ip -n NAME ARGS` prints; a single string is split as by a shell."""
        words = shlex.split(args[0]) if len(args) == 1 else args
        return _run(["ip", "-n", self.name, *words]).stdout

    def batch(self, *lines: str) -> None:
        """Give several lines to one `ip`; the first that fails ends it."""
        _run(["ip", "-n", self.name, "-batch", "-"], input="\n".join(lines) + "\n")

    def join(self) -> None:
        """Move the calling thread into the namespace for good."""
        join_namespace(self.path)

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Put the calling thread into the namespace for the length of a `with`."""
        with in_namespace(self.path):
            yield

    def ifindex(self, name: str) -> int:
        """The interface index of a device."""
        return int(str(self._link(name)["ifindex"]))

    def mac(self, name: str) -> str:
        """The hardware address of a device, as aa:bb:cc:dd:ee:ff."""
        return str(self._link(name)["address"])

    def _link(self, name: str) -> dict[str, object]:
        found: list[dict[str, object]] = json.loads(
            self.ip("-j", "link", "show", "dev", name)
        )
        return found[0]


class Lab:
    """Namespaces and links between them, gone when the `with` ends.

    With KEEP_TOPOLOGY=1 in the environment nothing is undone, deferred calls
    included, and the command that enters each namespace goes to stderr.
    """

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._namespaces: list[Namespace] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if os.environ.get("KEEP_TOPOLOGY", "0") not in ("", "0"):
            self._undo.pop_all()
            for ns in self._namespaces:
                sys.stderr.write(f"kept {ns.name}: {shlex.join(ns.argv('bash'))}\n")
            return
        self._undo.close()

    def defer(self, undo: Callable[[], object]) -> None:
        """Have `undo` called at the end, the last given first."""
        self._undo.callback(undo)

    def namespace(self, label: str) -> Namespace:
        """A new, quiet namespace with a unique name `pf-LABEL-xxxxxx`."""
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,50}", label):
            raise ValueError(f"not a label for a namespace: {label!r}")
        ns = Namespace(f"pf-{label}-{secrets.token_hex(3)}")
        # Before it exists: an interrupt right after its making finds it listed.
        self._namespaces.append(ns)
        self.defer(lambda: _remove(ns))
        _run(["ip", "netns", "add", ns.name])
        with ns.enter():
            for group in ("all", "default", "lo"):
                # /proc/sys/net shows the namespace of the thread that looks.
                conf = Path("/proc/sys/net/ipv6/conf") / group
                for key, value in _QUIET.items():
                    # A kernel without IPv6 is quiet already.
                    with suppress(FileNotFoundError):
                        (conf / key).write_text(str(value))
        ns.ip("link set lo up")
        return ns

    def veth(
        self,
        ns_a: Namespace,
        name_a: str,
        ns_b: Namespace,
        name_b: str,
        *,
        mac_a: str | None = None,
        mac_b: str | None = None,
        mtu: int | None = None,
        index_a: int | None = None,
        index_b: int | None = None,
        up: bool = True,
    ) -> None:
        """Join two namespaces by a veth pair, both ends up.

        With equal indexes on both ends a loss of carrier is reported as on an
        ordinary NIC: late, when another link event was not long ago.
        """
        end_a = _veth_end(name_a, ns_a, mac_a, mtu, index_a)
        end_b = _veth_end(name_b, ns_b, mac_b, mtu, index_b)
        _run(["ip", "link", "add", *end_a, "type", "veth", "peer", *end_b])
        if up:
            # Not in the command above: a veth cannot open before it has a peer.
            ns_a.ip("link", "set", name_a, "up")
            ns_b.ip("link", "set", name_b, "up")

    def bridge(self, ns: Namespace, name: str, *ports: str) -> None:
        """A bridge that forwards from the first moment and says nothing itself.

        It has an address of its own: without one it takes a port's, and changes
        it when that port goes, which looks like a loss of ours.
        """
        mac = bytes([0x02, *secrets.token_bytes(5)]).hex(":")
        ns.batch(
            f"link add {name} address {mac} up type bridge"
            " stp_state 0 forward_delay 0 mcast_snooping 0",
            *(f"link set {port} master {name} up" for port in ports),
        )

    def address(self, ns: Namespace, dev: str, *addresses: str) -> None:
        """Give a device addresses with prefix lengths, usable at once."""
        ns.batch(
            *(
                f"addr add {address} dev {dev}" + (" nodad" if ":" in address else "")
                for address in addresses
            )
        )


@contextmanager
def scratch_roots(beside: Path = PIN_ROOT) -> Iterator[Roots]:
    """Pins, records and files apart from an installation's, gone afterwards."""
    pins = beside.with_name(f"{beside.name}-{secrets.token_hex(4)}")
    with TemporaryDirectory(prefix="pyfailover-run-") as scratch:
        Path(scratch).chmod(0o711)  # a controller's user passes
        try:
            run, etc, cache = (Path(scratch, name) for name in ("run", "etc", "cache"))
            yield Roots(pins=pins, run=run, etc=etc, cache=cache)
        finally:
            if pins.is_dir():
                shutil.rmtree(pins)


def eventually(
    cond: Callable[[], T], *, timeout: float = 5.0, what: str = "condition"
) -> T:
    """Ask `cond` again and again until it is true, and return its value.

    Raises:
        TimeoutError: it did not become true; names the last value seen.
    """
    deadline = time.monotonic() + timeout
    while not (value := cond()):
        if time.monotonic() >= deadline:
            raise TimeoutError(
                f"{what}: not within {timeout:g} s, last observed {value!r}"
            )
        time.sleep(_POLL_S)
    return value


def _run(
    command: list[str],
    *,
    check: bool = True,
    input: str | None = None,
    timeout: float | None = 60.0,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command with its output kept; "" as input means an empty stdin."""
    done = subprocess.run(
        command,
        input=input or "",
        capture_output=True,
        text=True,
        timeout=timeout,
        env=env,
        check=False,
    )
    if check and done.returncode != 0:
        said = done.stderr or done.stdout
        if input:
            said = f"{said.strip()}\ninput was:\n{input}"
        raise LabError(shlex.join(command), done.returncode, said)
    return done


def _veth_end(
    name: str, ns: Namespace, mac: str | None, mtu: int | None, index: int | None
) -> list[str]:
    words = ["name", name, "netns", ns.name]
    for key, value in (("index", index), ("address", mac), ("mtu", mtu)):
        if value is not None:
            words += [key, str(value)]
    return words


def _remove(ns: Namespace) -> None:
    """Kill what runs inside and delete the name; the kernel takes the devices."""
    # An impatient second Ctrl-C must not leave it there.
    with interrupts_held():
        if ns.path.exists():
            _kill_inside(ns)
            _run(["ip", "netns", "del", ns.name])


def _kill_inside(ns: Namespace) -> None:
    """Kill all processes of a namespace, those included that they still fork."""
    for _ in range(_KILL_ROUNDS):
        found = [fd for pid in _pids() if (fd := _pidfd_inside(pid, ns)) is not None]
        if not found:
            return
        for fd in found:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        for fd in found:
            # Readable once it is dead, a zombie of somebody's included.
            end = select.poll()
            end.register(fd, select.POLLIN)
            end.poll(_KILL_WAIT_MS)
            os.close(fd)


def _pids() -> list[int]:
    here = os.getpid()
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and int(entry.name) != here
    ]


def _pidfd_inside(pid: int, ns: Namespace) -> int | None:
    """A handle on the process if it lives in the namespace.

    The handle is taken before the look, so that a number given to another
    process in between cannot get the wrong one killed.
    """
    with suppress(OSError):
        fd = os.pidfd_open(pid)
        with suppress(OSError):
            inside = Path(f"/proc/{pid}/ns/net").stat()
            if os.path.samestat(inside, ns.path.stat()):
                return fd
        os.close(fd)
    return None


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C and SIGTERM back from this thread until the end of the `with`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Switches:
    """Sets interfaces of one namespace up and down at once, by ioctl (netdevice(7)).

    An `ip` would have to start first, and change its mount namespace, which on a
    busy machine has taken seconds.
    """

    def __init__(self, ns: Namespace) -> None:
        with ns.enter():  # where a socket stays
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def set(self, name: str, up: bool) -> None:
        """Set an interface up or down, if it is not so already."""
        asked = _IFREQ.pack(name.encode(), 0)
        _, flags = _IFREQ.unpack(fcntl.ioctl(self._socket, _GET_FLAGS, asked))
        wanted = flags | _UP if up else flags & ~_UP
        if wanted != flags:
            request = _IFREQ.pack(name.encode(), wanted)
            fcntl.ioctl(self._socket, _SET_FLAGS, request)

    def close(self) -> None:
        """Leave the interfaces as they are."""
        self._socket.close()
