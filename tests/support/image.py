# SPDX-License-Identifier: GPL-2.0-or-later
"""The container image, built by buildah and run by podman, in storage of their own.

The base image is made by debootstrap and kept beside the venv; all else is gone
afterwards.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pyfailover.lab import Namespace

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/debian:bookworm-slim"
IMAGE = "localhost/pyfailover:test"

_KEPT = Path(sys.prefix) / "tools" / "bookworm-slim.tar"
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_MIRROR = "http://deb.debian.org/debian"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CAPABILITIES = ("BPF", "NET_ADMIN", "NET_RAW", "PERFMON")

_STORAGE = """[storage]
driver = "vfs"
graphroot = "{0}/storage"
runroot = "{0}/run"
"""
# podman would ask for more than a container's root may have.
_CONTAINERS = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
events_logger = "file"
cgroup_manager = "cgroupfs"
"""


@dataclass(frozen=True)
class Engine:
    """buildah and podman, and where they keep things."""

    directory: Path

    def run(self, *argv: str, check: bool = True) -> str:
        """What a command says; it must succeed, unless told otherwise.

        Raises:
            AssertionError: it failed; with all that it said.
        """
        done = subprocess.run(
            argv,
            env={
                **os.environ,
                "STORAGE_DRIVER": "vfs",
                "BUILDAH_ISOLATION": "chroot",
                "CONTAINERS_STORAGE_CONF": f"{self.directory}/storage.conf",
                "CONTAINERS_CONF": f"{self.directory}/containers.conf",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout + done.stderr

    def size(self) -> int:
        """Of the image, in bytes."""
        asked = ("image", "inspect", "--format={{.Size}}", IMAGE)
        return int(self.run("podman", *asked))


@contextmanager
def engine() -> Iterator[Engine]:
    """An engine that has the image."""
    with TemporaryDirectory(prefix="pyfailover-image-") as made:
        directory = Path(made)
        (directory / "storage.conf").write_text(_STORAGE.format(made))
        (directory / "containers.conf").write_text(_CONTAINERS)
        found = Engine(directory)
        try:
            _base(found)
            _build(found)
            yield found
        finally:
            found.run("podman", "rm", "--all", "--force", "--time=0", check=False)


def _base(engine: Engine) -> None:
    """Have the base image, from a Debian that is made once."""
    _KEPT.parent.mkdir(parents=True, exist_ok=True)
    with _KEPT.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _KEPT.exists():
            _bootstrap(_KEPT)
    container = engine.run("buildah", "from", "scratch").strip()
    engine.run("buildah", "add", "--quiet", container, str(_KEPT), "/")
    settings = ("--cmd=bash", f"--env=PATH={_PATH}")
    engine.run("buildah", "config", *settings, container)
    engine.run("buildah", "commit", "--quiet", "--rm", container, BASE)


def _bootstrap(into: Path) -> None:
    with TemporaryDirectory(prefix="pyfailover-debian-") as made:
        tree, fresh = Path(made) / "root", into.with_suffix(".new")
        argv = [
            "unshare",
            "--mount",
            "debootstrap",
            "--variant=minbase",
            "--include=ca-certificates",
        ]
        log = Path(made) / "log"
        with log.open("wb") as said:
            done = subprocess.run(
                [*argv, "bookworm", str(tree), _MIRROR], stdout=said, check=False
            )
        assert done.returncode == 0, log.read_text()[-2000:]
        shutil.rmtree(tree / "var/cache/apt/archives")
        subprocess.run(["tar", "-C", str(tree), "-cf", str(fresh), "."], check=True)
        fresh.replace(into)


def _build(engine: Engine) -> None:
    """As anybody would, but with this host's certificate authorities."""
    pip = engine.directory / "pip.conf"
    pip.write_text(f"[global]\ncert = {_AUTHORITIES}\n")
    engine.run(
        *("buildah", "bud", "--format=docker", "--pull-never", "--layers=false"),
        f"--volume={_AUTHORITIES}:{_AUTHORITIES}:ro",
        f"--volume={pip}:/etc/pip.conf:ro",
        f"--tag={IMAGE}",
        str(ROOT),
    )


@dataclass(frozen=True)
class Container:
    """A controller in a container, on the network of a namespace."""

    engine: Engine
    name: str
    pins: Path

    def pyfailover(self, *args: str, check: bool = True) -> str:
        """The command, in the container."""
        words = ("pyfailover", f"--pin-root={self.pins}", *args)
        return self.engine.run("podman", "exec", self.name, *words, check=check)

    def log(self) -> str:
        """What it said so far."""
        return self.engine.run("podman", "logs", self.name)

    def healthy(self) -> bool:
        """Whether its health check succeeds."""
        said = self.engine.run("podman", "healthcheck", "run", self.name, check=False)
        return "unhealthy" not in said

    def stop(self) -> None:
        """As at an upgrade."""
        self.engine.run("podman", "stop", "--time=10", self.name)


@contextmanager
def container(
    engine: Engine, ns: Namespace, pins: Path, run: Path, *, seccomp: Path
) -> Iterator[Container]:
    """A container that was started, with the rights that the documents name."""
    name = f"{ns.name}-{os.urandom(3).hex()}"
    caps = [f"--cap-add={cap}" for cap in CAPABILITIES]
    engine.run(
        *("podman", "run", "--detach", "--rm", f"--name={name}", "--cap-drop=ALL"),
        *caps,
        f"--network=ns:/run/netns/{ns.name}",
        f"--security-opt=seccomp={seccomp}",
        "--no-healthcheck",  # that needs a systemd to ask again and again
        *("--volume=/sys/fs/bpf:/sys/fs/bpf", f"--volume={run}:/run/pyfailover"),
        *(IMAGE, f"--pin-root={pins}", "run", "--metrics=127.0.0.1:9909"),
    )
    made = Container(engine, name, pins)
    try:
        yield made
    except BaseException as exc:
        exc.add_note(f"the container said:\n{made.log()}")
        raise
    finally:
        engine.run("podman", "rm", "--force", "--time=0", name, check=False)
