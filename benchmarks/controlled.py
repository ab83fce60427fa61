# SPDX-License-Identifier: GPL-2.0-or-later
"""A controller over many groups, in namespaces made for it.

Every group has a primary and a standby, veth pairs whose other ends are in a
namespace of their own; or the primaries are functions of one NIC, and lose their
carrier all at once with it. No group is ever damped.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pyfailover import lifecycle
from pyfailover.lab import Lab, Namespace, eventually
from pyfailover.model import GroupSpec
from pyfailover.place import Roots
from pyfailover.transaction import locked_namespace, paths

# Few interfaces at a time: to attach a group reads all that there are.
_WAVE = 25
_INDEXES = 10_000  # beyond those that the kernel gives by itself
_READY_WITHIN_S = 300.0
_WHILE_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Groups fo0, fo1, … over a0, b0, a1, …; far ends pa0, pb0, …"""

    host: Namespace
    far: Namespace
    roots: Roots
    groups: int

    @property
    def pins(self) -> Path:
        """Where the programs of the host are pinned."""
        with self.host.enter():
            return paths(self.roots)[0]

    @property
    def run(self) -> Path:
        """Where the host's run-time files are."""
        with self.host.enter():
            return paths(self.roots)[1]


def site(
    lab: Lab,
    roots: Roots,
    groups: int,
    *,
    like_nics: bool = False,
    one_nic: bool = False,
) -> Site:
    """Make and attach groups, with an address of each family on every master.

    Args:
        one_nic: the primaries are macvlans on the far end's `nic`, whose carrier is
            that of `port`.
        like_nics: the kernel tells of a lost carrier as it does for a NIC: late, if
            another link event was not long ago.
    """
    made = Site(
        host=lab.namespace("host"),
        far=lab.namespace("far"),
        roots=roots,
        groups=groups,
    )
    if one_nic:
        made.far.batch(
            "link add nic type veth peer name port",
            "link set nic up",
            "link set port up",
        )
    for first in range(0, groups, _WAVE):
        wave = range(first, min(first + _WAVE, groups))
        plug(made.host, made.far, wave, like_nics=like_nics, one_nic=one_nic)
        with made.host.enter(), locked_namespace(roots) as namespace:
            for n in wave:
                spec = GroupSpec(
                    name=f"fo{n}",
                    primary=f"a{n}",
                    standbys=(f"b{n}",),
                    flap_changes=0,
                )
                lifecycle.create(namespace, spec, max_groups=groups)
        made.host.batch(
            *(
                f"addr add {address} dev fo{n} nodad"
                for n in wave
                for address in (f"198.18.{n >> 8}.{n & 255}/32", f"2001:db8::{n:x}/128")
            )
        )
    return made


def plug(
    host: Namespace,
    far: Namespace,
    groups: Iterable[int],
    *,
    like_nics: bool = False,
    one_nic: bool = False,
) -> None:
    """Make the slaves of groups, with carrier."""
    pairs = [(rank, n) for n in groups for rank in ("b" if one_nic else "ab")]
    if one_nic:
        far.batch(
            *(
                f"link add link nic name a{n} netns {host.name} address {_mac(n)} "
                "type macvlan mode private"
                for n in groups
            )
        )
    host.batch(*(_pair(far, rank, n, like_nics=like_nics) for rank, n in pairs))
    far.batch(*(f"link set p{rank}{n} up" for rank, n in pairs))


def _pair(far: Namespace, rank: str, n: int, *, like_nics: bool) -> str:
    """Equal ifindexes at both ends are what makes the kernel tell late."""
    index = f"index {_INDEXES + 2 * n + (rank == 'b')}"
    end = f"link add name {rank}{n} {index} address {_mac(n)} type veth"
    peer = f"peer name p{rank}{n} netns {far.name}"
    return f"{end} {peer} {index}" if like_nics else f"{end} {peer}"


def _mac(n: int) -> str:
    """Of the master and the slaves of a group."""
    return f"02:00:5e:10:{n >> 8:02x}:{n & 255:02x}"


def command(host: Namespace, roots: Roots, *args: str) -> list[str]:
    """The command line of the real command."""
    return [
        sys.executable,
        "-m",
        "pyfailover",
        f"--netns={host.name}",
        f"--pin-root={roots.pins}",
        f"--run-root={roots.run}",
        f"--config-root={roots.etc}",
        f"--cache-root={roots.cache}",
        *args,
    ]


class Batch:
    """An `ip -batch` that stays: a change costs no start of a process."""

    def __init__(self, namespace: Namespace) -> None:
        self._ip = subprocess.Popen(
            ["ip", "-n", namespace.name, "-batch", "-"],
            stdin=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Batch":
        return self

    def __exit__(self, *_: object) -> None:
        self._ip.kill()
        self._ip.wait()

    def do(self, *lines: str) -> None:
        """Have lines carried out; does not wait for it."""
        assert self._ip.stdin is not None
        self._ip.stdin.write("".join(f"{line}\n" for line in lines))
        self._ip.stdin.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """A `pyfailover run` that is ready."""

    process: subprocess.Popen[bytes]
    ready_after_s: float  # from the start of the process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()


@contextmanager
def controller(host: Namespace, roots: Roots) -> Iterator[Controller]:
    """Run the real controller; it is told to end, and leaves the groups as they are.

    It may be killed before.

    Raises:
        RuntimeError: it did not come up, or did not end well; says what it said.
    """
    with TemporaryDirectory(prefix="pyfailover-bench-") as scratch:
        log = Path(scratch) / "log"
        argv = command(host, roots, "run")
        environment = {**os.environ, "NOTIFY_SOCKET": f"{scratch}/notify"}
        with (
            log.open("wb") as err,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
        ):
            told.bind(f"{scratch}/notify")
            start = time.monotonic()
            process = subprocess.Popen(argv, stderr=err, env=environment)
            try:
                ready = _ready(told, process, argv, log)
                yield Controller(process=process, ready_after_s=ready - start)
                if process.returncode == -signal.SIGKILL:
                    return
                process.send_signal(signal.SIGTERM)
                if process.wait(30) != 0:
                    raise RuntimeError(_complaint(argv, process, log))
            finally:
                process.kill()
                process.wait()


def settle(running: Controller) -> None:
    """Wait until a controller has done what it does at its start."""
    eventually(lambda: _idle(running.pid), timeout=_READY_WITHIN_S, what="calm")


def _idle(pid: int) -> bool:
    """Whether a process takes less than a tenth of a CPU for a while."""
    before = cpu_ticks(pid)
    time.sleep(_WHILE_S)
    return (cpu_ticks(pid) - before) / 100 < _WHILE_S / 10


def cpu_ticks(pid: int) -> int:
    """Hundredths of a second (proc(5): utime, stime)."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(words[11]) + int(words[12])


def _ready(
    told: socket.socket,
    process: subprocess.Popen[bytes],
    argv: Sequence[str],
    log: Path,
) -> float:
    """When it said that it is ready, in time.monotonic()."""
    told.settimeout(0.5)
    deadline = time.monotonic() + _READY_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if b"READY=1" in told.recv(4096):
                return time.monotonic()
        except TimeoutError:
            continue
    raise RuntimeError(_complaint(argv, process, log))


def _complaint(argv: Sequence[str], process: subprocess.Popen[bytes], log: Path) -> str:
    return f"'{shlex.join(argv)}': {process.poll()}\n{log.read_text()}"
