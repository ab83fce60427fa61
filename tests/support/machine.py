# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian of its own whose first process is systemd, booted in namespaces.

Its secrets are how such a root is made, kept and copied, how systemd is brought to
run as the first process, and how all of it goes away again. The network namespace
is one of the lab's, so that streams and links reach into it.
"""

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from pyfailover.lab import Namespace, eventually

PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "ethtool",
    "iproute2",
    "kmod",
    "libbpf1",
    "procps",
    "python3",
    "python3-bpfcc",
    "python3-venv",
)
VENV = Path("/opt/pyfailover")
FILES = Path("/opt/files")

_CACHE = Path(sys.prefix) / "tools/machines"
_BOOT_S = 60.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What a namespace has no use for, or cannot start there.
_MASKED = ("console-getty", "systemd-udev-trigger")

# The environment of these scripts says where. First a cgroup of the machine's own,
# which is the root of its cgroup namespace: systemd takes all below for its own.
_OUTSIDE = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$SCRATCH"
cd "$SCRATCH"
mkdir up work r cgroup
mount -t cgroup2 cgroup2 cgroup
mkdir "cgroup/$NAME"
echo $$ >"cgroup/$NAME/cgroup.procs"
umount cgroup
exec unshare -m -p -f -u -i -C --kill-child bash -c "$INSIDE"
"""
_INSIDE = """
set -e
mount -t overlay overlay -o "lowerdir=$ROOT,upperdir=up,workdir=work" r
mount -t proc proc r/proc
mount -t sysfs sysfs r/sys
mount -t cgroup2 cgroup2 r/sys/fs/cgroup
mount -t bpf bpf r/sys/fs/bpf
for d in run tmp dev; do mount -t tmpfs tmpfs r/$d; done
for n in null zero full random urandom tty; do
  touch r/dev/$n; mount --bind /dev/$n r/dev/$n
done
mkdir -p r/dev/pts r/dev/shm r/usr/lib/modules r/usr/src r/opt/libraries r/opt/files
mount -t devpts devpts r/dev/pts
ln -s pts/ptmx r/dev/ptmx
touch r/dev/console
for d in /usr/lib/modules /usr/src; do
  if [ -d $d ]; then mount --rbind -o ro $d r$d; fi
done
mount --bind -o ro "$LIBRARIES" r/opt/libraries
if [ -n "$FILES" ]; then mount --bind -o ro "$FILES" r/opt/files; fi
for u in $MASKED; do ln -sf /dev/null r/etc/systemd/system/$u.service; done
hostname "$NAME"
cd r
pivot_root . mnt
umount -l /mnt
PATH="$MACHINE_PATH" bash -ec "$PREPARE"
exec env -i container=other PATH="$MACHINE_PATH" /lib/systemd/systemd --system \
  --show-status=0 --unit=multi-user.target
"""
_REMOVE_CGROUP = """
mount --make-rprivate /
mount -t cgroup2 cgroup2 "$SCRATCH"
[ ! -d "$SCRATCH/$NAME" ] || find "$SCRATCH/$NAME" -depth -type d -exec rmdir {} +
"""


def root(packages: Sequence[str] = PACKAGES) -> Path:
    """A Debian with these packages, and a venv at VENV; made once, in minutes."""
    key = hashlib.sha256("\n".join(packages).encode()).hexdigest()[:12]
    made = _CACHE / key
    _CACHE.mkdir(parents=True, exist_ok=True)
    with _locked(_CACHE / "lock"):
        if not made.is_dir():
            fresh = made.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            _bootstrap(fresh, packages)
            fresh.rename(made)
    return made


class Machine:
    """It is booted in a network namespace for the length of a `with`; nothing that
    is written in it lasts.

    Args:
        files: a directory that is FILES in it, to be read.
        prepare: a script that is run in its root before it boots.
    """

    pid: int  # of its first process, as we see it

    def __init__(
        self,
        ns: Namespace,
        *,
        files: Path | None = None,
        prepare: str = "",
        base: Path | None = None,
    ) -> None:
        self.ns = ns
        self._files = files
        self._base = base
        self._prepare = prepare
        self._name = f"pf-machine-{secrets.token_hex(3)}"
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            scratch = undo.enter_context(TemporaryDirectory(prefix="pyfailover-"))
            undo.callback(self._remove_cgroup, scratch)
            self._boot(scratch, undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            sys.stderr.write(self.journal())
        self._undo.close()

    @property
    def root(self) -> Path:
        """Its / as we see it."""
        return Path(f"/proc/{self.pid}/root")

    def argv(self, *argv: str) -> list[str]:
        """The command line that runs `argv` in it."""
        return [
            *("nsenter", f"--target={self.pid}", "-m", "-p", "-u", "-i", "-n", "-C"),
            *("-r", "-w", "env", "-i", f"PATH={_PATH}", *argv),
        ]

    def run(
        self, *argv: str, check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it and wait for its end."""
        done = subprocess.run(
            self.argv(*argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done

    def write(self, path: str, text: str) -> None:
        """Have a file in it."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit, as `systemctl show` has them."""
        said = self.run("systemctl", "show", f"-p{','.join(properties)}", unit).stdout
        return dict(line.split("=", 1) for line in said.splitlines())

    def journal(self, *options: str) -> str:
        """What was logged in it."""
        return self.run("journalctl", "--no-pager", "-b", *options, check=False).stdout

    def _boot(self, scratch: str, undo: ExitStack) -> None:
        environment = {
            "SCRATCH": scratch,
            "NAME": self._name,
            "ROOT": str(self._base or root()),
            "FILES": str(self._files or ""),
            "LIBRARIES": str(_libraries()),
            "MASKED": " ".join(_MASKED),
            "MACHINE_PATH": _PATH,
            "INSIDE": _INSIDE,
            "PREPARE": self._prepare,
            "PATH": os.environ["PATH"],
        }
        output = undo.enter_context(Path(scratch).with_suffix(".log").open("w+"))
        undo.callback(Path(output.name).unlink)
        outer = subprocess.Popen(
            self.ns.argv("unshare", "-m", "bash", "-c", _OUTSIDE),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        undo.callback(_kill, outer)
        deadline = time.monotonic() + _BOOT_S
        while not (first := _first_of(outer.pid)):
            assert outer.poll() is None, Path(output.name).read_text()
            assert time.monotonic() < deadline, "it has no first process"
        self.pid = first
        try:
            eventually(self._is_up, timeout=_BOOT_S, what="a machine that is up")
        except BaseException:
            output.seek(0)
            sys.stderr.write(output.read() + self.journal())
            raise

    def _is_up(self) -> bool:
        if Path(f"/proc/{self.pid}/comm").read_text().strip() != "systemd":
            return False
        asked = self.run("systemctl", "is-system-running", "--wait", check=False)
        return asked.stdout.strip() in ("running", "degraded")

    def _remove_cgroup(self, scratch: str) -> None:
        subprocess.run(
            ["unshare", "-m", "bash", "-c", _REMOVE_CGROUP],
            env=os.environ | {"SCRATCH": scratch, "NAME": self._name},
            check=True,
        )


def _kill(outer: subprocess.Popen[bytes]) -> None:
    """End it, its first process first: all others end with that."""
    if first := _first_of(outer.pid):
        with suppress(ProcessLookupError):
            os.kill(first, signal.SIGKILL)
    else:
        outer.kill()
    outer.wait()


def _first_of(outer: int) -> int | None:
    """Its child that is the first process of a pid namespace."""
    with suppress(FileNotFoundError, ProcessLookupError):
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        for child in children:
            status = Path(f"/proc/{child}/status").read_text()
            if re.search(r"^NSpid:\t.*\t1$", status, re.MULTILINE):
                return int(child)
    return None


def _bootstrap(fresh: Path, packages: Sequence[str]) -> None:
    _run(
        "unshare",  # what it mounts, and does not always unmount, goes with it
        "--mount",
        *("debootstrap", "--variant=minbase", f"--include={','.join(packages)}"),
        *("bookworm", str(fresh)),
    )
    shutil.rmtree(fresh / "var/cache/apt/archives")
    _run("chroot", str(fresh), "python3", "-m", "venv", "--system-site-packages", VENV)
    (packages_of,) = (fresh / VENV.relative_to("/")).glob("lib/python3*/site-packages")
    (packages_of / "libraries.pth").write_text("/opt/libraries\n")


def _run(*argv: str | Path) -> None:
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{argv}: {done.stdout[-2000:]}{done.stderr}"


def _libraries() -> Path:
    """The packages that ours imports; the machine's interpreter is of our version."""
    (found,) = Path(sys.prefix).glob("lib/python3*/site-packages")
    return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
