# SPDX-License-Identifier: GPL-2.0-or-later
"""The units of deploy/, with the wheel installed, under a real systemd.

One machine, booted once, for all of them: each test finds it with traffic running
over the primary, and leaves it so.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pyfailover.lab import Lab, eventually
from tests.support.machine import FILES, VENV, Machine
from tests.support.streams import damage, deliver, exchange
from tests.support.topology import FAR_V4, HOST_V4, HOST_V6, Duo, duo

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT = "pyfailover@host.service"
NEXT = "99.0.0"

# What an operator does, and a stand-in for a network manager.
PREPARE = f"""
{VENV}/bin/pip -q install --no-index --no-deps {FILES}/now/*.whl
ln -s {VENV}/bin/pyfailover /usr/local/bin/
cp -r {FILES}/deploy/pyfailover*@* /etc/systemd/system/
cp {FILES}/deploy/pyfailover.sysusers /usr/lib/sysusers.d/pyfailover.conf
systemd-sysusers pyfailover.conf
cp {FILES}/deploy/pyfailover.tmpfiles /usr/lib/tmpfiles.d/pyfailover.conf
mkdir -m 755 /etc/pyfailover
cat >/etc/pyfailover/fo0.toml <<END
master = "fo0"
primary = "eth1"
standbys = ["eth2"]
create = true
END
cat >/etc/systemd/system/manager.service <<END
[Unit]
DefaultDependencies=no
After=network-pre.target
Before=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip address add {HOST_V4}/24 dev fo0
ExecStart=ip address add {HOST_V6}/64 dev fo0 nodad
[Install]
WantedBy=multi-user.target
END
mkdir -p /etc/systemd/system/{UNIT}.d
printf '[Service]\\nWatchdogSec=3s\\n' >/etc/systemd/system/{UNIT}.d/watchdog.conf
systemctl -q enable {UNIT} manager.service
"""


@dataclass(frozen=True)
class Installed:
    """A machine that pyfailover is installed on, and what it is cabled to."""

    machine: Machine
    pair: Duo

    def status(self) -> dict[str, Any]:
        """The group, as `pyfailover status` in the machine has it."""
        said = self.machine.run("pyfailover", "status", "--json", check=False).stdout
        (group,) = json.loads(said)["groups"]
        assert isinstance(group, dict)
        return group

    def wait_for(self, what: Callable[[dict[str, Any]], bool], text: str) -> None:
        """Wait until the group is in a state."""
        eventually(lambda: what(self.status()), timeout=30, what=text)

    def settle(self) -> None:
        """Wait until all is well."""
        self.wait_for(
            lambda g: (g["active"], g["health"]) == ("eth1", "ok"), "eth1 active"
        )

    def pid(self) -> int:
        """The controller's process, in the machine."""
        return int(self.machine.show(UNIT, "MainPID")["MainPID"])

    def states(self) -> list[str]:
        """Of the unit."""
        return list(self.machine.show(UNIT, "ActiveState", "SubState").values())


def wheel(source: Path, into: Path) -> None:
    """Build one."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", into],
        cwd=source,
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units, this version's wheel, and one of a later version whose programs have
    other sources."""
    made = tmp_path_factory.mktemp("files")
    shutil.copytree(DEPLOY, made / "deploy")
    wheel(ROOT, made / "now")
    later = tmp_path_factory.mktemp("later")
    for name in ("pyfailover", "bpf", "dashboards", "LICENSES"):
        shutil.copytree(ROOT / name, later / name)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, later)
    with (later / "pyfailover/__init__.py").open("a") as file:
        file.write(f'\n__version__ = "{NEXT}"\n')
    version = later / "pyfailover/__init__.py"
    version.write_text(
        "\n".join(
            f'__version__ = "{NEXT}"' if line.startswith("__version__") else line
            for line in version.read_text().splitlines()
        )
    )
    with (later / "bpf/failover_tc.c").open("a") as file:
        file.write("/* A later version. */\n")
    wheel(later, made / "next")
    return made


@pytest.fixture(scope="module")
def booted(files: Path) -> Iterator[Installed]:
    """Booted with the unit enabled, and nothing compiled yet."""
    with Lab() as lab:
        pair = duo(lab)
        with Machine(pair.host, files=files, prepare=PREPARE) as machine:
            pair.settle()
            yield Installed(machine, pair)


@pytest.fixture
def host(booted: Installed) -> Iterator[Installed]:
    """All is well on it."""
    booted.settle()
    yield booted
    sys.stdout.write(booted.machine.journal("-u", UNIT, "-n", "40"))


def test_units_are_verified(host: Installed) -> None:
    """systemd finds nothing to say about them."""
    units = sorted(path.name for path in DEPLOY.glob("*.service"))
    assert units
    names = [name.replace("@", "@host") for name in units] + units
    done = host.machine.run("systemd-analyze", "verify", "--man=no", *names)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("unit", sorted(DEPLOY.glob("*.service")), ids=lambda p: p.name)
def test_exposure(unit: Path) -> None:
    """What `systemd-analyze security` counts is within what the documentation says."""
    command = ("systemd-analyze", "security", "--offline=true", "--threshold=37")
    done = subprocess.run([*command, unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


def test_groups_are_up_before_the_network(host: Installed) -> None:
    """The unit is active, which it says itself, before network-pre.target is reached;
    so what configures the network finds the master."""
    key = "ActiveEnterTimestampMonotonic"
    ours = host.machine.show(UNIT, "Type", "NRestarts", "ActiveState", key)
    target = host.machine.show("network-pre.target", "ActiveState", key)
    assert (ours["Type"], ours["ActiveState"], ours["NRestarts"]) == (
        "notify",
        "active",
        "0",
    )
    assert target["ActiveState"] == "active"
    assert 0 < int(ours[key]) <= int(target[key])
    assert host.machine.show("manager.service", "Result", "ActiveState") == {
        "Result": "success",
        "ActiveState": "active",
    }
    host.machine.run("ip", "route", "get", FAR_V4)
    assert host.machine.run("systemctl", "is-system-running").stdout == "running\n"


def test_failover(host: Installed) -> None:
    """Inside of the sandbox the programs leave a slave without carrier, and the
    controller brings traffic back."""
    with exchange(host.pair.host, host.pair.far) as streams:
        host.pair.cut(1)
        deliver(*streams[::2])
        host.wait_for(lambda g: g["active"] == "eth2", "failover")
        host.pair.mend(1)
        host.settle()
        deliver(*streams)
        assert damage(*streams[::2]) == [(0, 0)] * 2  # what leaves this host


def test_watchdog(host: Installed) -> None:
    """A controller that hangs is replaced, and not one packet is lost."""
    before = host.pid()
    with exchange(host.pair.host, host.pair.far) as streams:
        host.machine.run("systemctl", "kill", "--kill-whom=main", "-s", "STOP", UNIT)
        eventually(
            lambda: host.pid() not in (0, before) and host.states()[0] == "active",
            timeout=30,
            what="another controller",
        )
        host.settle()
        deliver(*streams)
        assert damage(*streams) == [(0, 0)] * 4
    said = host.machine.show(UNIT, "NRestarts")
    assert said["NRestarts"] == "1"
    assert "Watchdog timeout" in host.machine.journal("-u", UNIT)


def test_stop_leaves_traffic_running(host: Installed) -> None:
    """So does a restart: pins, records and groups stay, the next one adopts them."""
    with exchange(host.pair.host, host.pair.far) as streams:
        host.machine.run("systemctl", "stop", UNIT)
        assert host.states() == ["inactive", "dead"]
        deliver(*streams)
        assert host.status()["active"] == "eth1"
        host.machine.run("systemctl", "start", UNIT)
        host.machine.run("systemctl", "restart", UNIT)
        host.settle()
        deliver(*streams)
        assert damage(*streams) == [(0, 0)] * 4


def test_reload(host: Installed) -> None:
    """It brings about what the files say; one with an error is told, and harmless."""
    path = "/etc/pyfailover/fo0.toml"
    text = (host.machine.root / path.lstrip("/")).read_text()
    try:
        host.machine.write(path, text + 'policy = "failure"\n')
        host.machine.run("systemctl", "reload", UNIT)
        assert host.status()["policy"] == "failure"
        host.machine.write(path, "x")
        done = host.machine.run("systemctl", "reload", UNIT, check=False)
        assert done.returncode != 0
        assert "not TOML" in host.machine.journal("-u", UNIT)
        assert host.states() == ["active", "running"]
    finally:
        host.machine.write(path, text)
        host.machine.run("systemctl", "reload", UNIT)


def test_named_namespace(host: Installed) -> None:
    """pyfailover@NAME is the controller of the namespace NAME, beside the host's."""
    run = host.machine.run
    run("ip", "netns", "add", "lab")
    ends = ("name", "x1", "type", "veth", "peer", "name", "x2")
    run("ip", "-n", "lab", "link", "add", *ends)
    for end in ("x1", "x2"):
        run("ip", "-n", "lab", "link", "set", end, "address", "02:00:5e:10:00:02")
    host.machine.write(
        "/etc/pyfailover/lab.toml",
        'master = "fo1"\nnetns = "lab"\ncreate = true\n'
        'primary = "x1"\nstandbys = ["x2"]\n',
    )
    run("systemctl", "start", "pyfailover@lab.service")
    said = json.loads(run("pyfailover", "--netns=lab", "status", "--json").stdout)
    assert [group["name"] for group in said["groups"]] == ["fo1"]
    run("systemctl", "stop", "pyfailover@lab.service")
    assert host.status()["active"] == "eth1"
    assert host.states() == ["active", "running"]


def test_upgrade_keeps_traffic(host: Installed) -> None:
    """Another version over this one, and a restart: its programs take the place of
    those that run, and not one packet is lost."""
    machine = host.machine
    with exchange(host.pair.host, host.pair.far) as streams:
        (new,) = (machine.root / str(FILES)[1:] / "next").glob("*.whl")
        pip = (str(VENV / "bin/pip"), "-q", "install", "--no-index", "--no-deps")
        machine.run(*pip, str(FILES / "next" / new.name))
        assert NEXT in machine.run("pyfailover", "--version").stdout
        machine.run("systemctl", "restart", UNIT)
        host.settle()
        deliver(*streams)
        assert damage(*streams) == [(0, 0)] * 4
    assert "the programs were replaced" in machine.journal("-u", UNIT)
