# SPDX-License-Identifier: GPL-2.0-or-later
"""Real network managers: off the slaves, on the master.

    machine (systemd, udev, a manager)     far
    fo0 . eth2 -------------------------- p2 \\
        . eth1 -------------------------- p1 - br0  192.0.2.2, a DHCP server

The manager is told to run DHCP on everything, as distributions and cloud images do.
The slaves have MAC addresses of their own, so the server sees who asks; once they
are in the group they have the master's, and a slave that asks gets no answer.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pyfailover import netconf
from pyfailover.lab import Lab, Namespace, eventually
from pyfailover.netconf import Manager, Subject
from tests.netconf.booted import booted
from tests.netconf.server import Server, server
from tests.support.daemon import controller
from tests.support.machine import Machine
from tests.support.tool import Tool
from tests.support.topology import FAR_V4, Duo, duo

ETH1, ETH2, ODD = (f"02:00:5e:10:00:{number:02x}" for number in (1, 2, 3))
_PATIENCE_S = 40.0  # managers have timers of their own

# Whichever is the first may have to wait until the machine's root is made.
pytestmark = pytest.mark.timeout(900)


def soon(cond: Callable[[], bool], what: str) -> None:
    """Wait for what a manager, or the kernel, is to do."""
    eventually(cond, timeout=_PATIENCE_S, what=what)


@dataclass(frozen=True)
class Scene:
    """A machine whose manager configures whatever it finds."""

    pair: Duo
    machine: Machine
    server: Server
    manager: Manager

    def addressed(self) -> set[str]:
        """Interfaces with an IPv4 address of the server's."""
        links = json.loads(self.pair.host.ip("-j -4 addr show scope global"))
        return {link["ifname"] for link in links}

    def wait(self, *names: str) -> None:
        """Wait until these interfaces, and no others, have an address."""
        soon(
            lambda: self.addressed() == set(names),
            f"addresses on {' and '.join(names) or 'nobody'} alone",
        )

    def replug(self, number: int, mac: str) -> None:
        """Take a slave away, and give a new one of the same name and address."""
        self.pair.unplug(number)
        soon(lambda: f"p{number}" not in self.pair.far.ip("-br link"), "its end")
        self.pair.plug(number, mac=mac)

    def ignores(self, name: str) -> bool:
        """Whether the manager has seen an interface, and let it be."""
        run = self.machine.run
        run("udevadm", "settle")
        match self.manager:
            case Manager.NETWORKD:
                lines = run("networkctl", "--no-legend").stdout.splitlines()
                rows = {words[1]: words[-1] for words in map(str.split, lines)}
            case Manager.NETWORKMANAGER:
                asked = ("nmcli", "-t", "-e", "no", "-f", "STATE,DEVICE", "device")
                lines = run(*asked).stdout.splitlines()
                rows = {row.split(":")[1]: row.split(":")[0] for row in lines}
            case Manager.IFUPDOWN:
                made = self.machine.root / "run/network/interfaces.d" / name
                up = run("ifquery", "--state", name, check=False).stdout
                info = run("udevadm", "info", f"/sys/class/net/{name}").stdout
                seen = "USEC_INITIALIZED" in info and not made.exists() and not up
                rows = {name: "unmanaged" if seen else "taken"}
        return rows.get(name) == "unmanaged"

    def files(self) -> set[str]:
        """Names of all files of ours in it."""
        return {path.name for path in (self.machine.root / "etc").rglob("*pyfailover*")}


def networkd(machine: Machine) -> None:
    """DHCP on everything by a file of the lowest rank."""
    machine.write(
        "/etc/systemd/network/90-all.network",
        "[Match]\nName=e* fo*\n[Network]\nDHCP=ipv4\n",
    )
    start(machine, "systemd-networkd")


def networkmanager(machine: Machine) -> None:
    """It makes a profile with DHCP for each Ethernet device, by itself."""
    start(machine, "NetworkManager")


def ifupdown(machine: Machine) -> None:
    """What Debian's cloud images have, from net_failover.rst and their templates: a
    udev rule runs a helper for each interface, which writes a stanza with DHCP."""
    machine.write(
        "/etc/network/interfaces",
        "auto lo\niface lo inet loopback\n"
        "source-directory /etc/network/interfaces.d\n"
        "source-directory /run/network/interfaces.d\n",
    )
    machine.write(
        "/etc/udev/rules.d/75-cloud-ifupdown.rules",
        'SUBSYSTEM=="net", ACTION=="add", ENV{INTERFACE}=="eth*|en*", '
        'RUN+="/etc/network/cloud-ifupdown-helper"\n',
    )
    machine.write(
        "/etc/network/cloud-ifupdown-helper",
        """#!/bin/sh
cfgdir=/run/network/interfaces.d
mkdir -p "$cfgdir"
ifup --no-act "$INTERFACE" >/dev/null 2>&1 && exit 0  # ifupdown knows it
{
  echo "auto $INTERFACE"
  echo "allow-hotplug $INTERFACE"
  echo "iface $INTERFACE inet dhcp"
} >"$cfgdir/.$INTERFACE"
mv "$cfgdir/.$INTERFACE" "$cfgdir/$INTERFACE"
""",
    )
    machine.run("chmod", "755", "/etc/network/cloud-ifupdown-helper")
    machine.run("udevadm", "control", "--reload")
    start(machine, "networking")
    machine.run("udevadm", "trigger", "--subsystem-match=net", "--action=add")


def start(machine: Machine, service: str) -> None:
    machine.run("rm", f"/etc/systemd/system/{service}.service")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", service)


STARTED: dict[Manager, Callable[[Machine], None]] = {
    Manager.NETWORKD: networkd,
    Manager.NETWORKMANAGER: networkmanager,
    Manager.IFUPDOWN: ifupdown,
}


@contextmanager
def monitor(ns: Namespace, what: str) -> Iterator[Path]:
    """A file to which `ip monitor` writes."""
    with TemporaryDirectory(prefix="pyfailover-monitor-") as scratch:
        path = Path(scratch) / "out"
        with path.open("wb") as stream:
            process = subprocess.Popen(
                ["ip", "-n", ns.name, "monitor", what],
                stdin=subprocess.DEVNULL,
                stdout=stream,
            )
        try:
            yield path
        finally:
            process.kill()
            process.wait()


@pytest.fixture(params=list(Manager))
def scene(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Scene]:
    """For each manager: the machine is up, its manager does not run."""
    pair = duo(lab, equal_macs=False)
    with server(pair.far, "br0") as dhcp, booted(pair.host) as machine:
        yield Scene(pair, machine, dhcp, request.param)


@pytest.fixture
def taken(scene: Scene) -> Scene:
    """Its manager runs, and has taken both slaves."""
    STARTED[scene.manager](scene.machine)
    scene.wait("eth1", "eth2")
    assert scene.server.leases() == {ETH1, ETH2}
    return scene


def declare(
    tool: Tool, taken: Scene, *, primary: str = "eth2", standby: str = "eth1"
) -> None:
    """A lasting group, which no controller has attached yet."""
    tool.roots.etc.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = tool.roots.etc / "fo0.toml"
    path.write_text(
        'master = "fo0"\ncreate = true\n'
        f'primary = "{primary}"\nstandbys = ["{standby}"]\n'
        f'mac = "clone"\nnetns = "{taken.pair.host.name}"\n'
    )
    path.chmod(0o600)


def tell(tool: Tool, taken: Scene) -> None:
    """Install, and run the commands that it names."""
    at = (f"--for={taken.manager}", f"--root={taken.machine.root}")
    tool.command(taken.pair.host, "netconf", "fo0", *at, "--install")
    with taken.pair.host.enter():
        roots = replace(tool.roots, netns=taken.pair.host.name)
        subject = netconf.find_subject(roots, "fo0")
    for command in netconf.configuration(subject, taken.manager).reread:
        taken.machine.run("sh", "-c", command)


def test_one_lease_on_the_master(taken: Scene, tool: Tool) -> None:
    """Slaves that had leases lose them; the master gets the only one, also after the
    primary was plugged again; nobody else asks. A moment without any slave leaves it
    the lease."""
    pair = taken.pair
    declare(tool, taken)
    tell(tool, taken)
    taken.wait()
    taken.server.forget()
    with monitor(pair.host, "address") as changes, controller(tool, pair.host):
        taken.wait("fo0")
        if taken.manager is Manager.NETWORKD:  # it waits for the master alone
            wait_online = "/lib/systemd/systemd-networkd-wait-online"
            taken.machine.run(wait_online, "--timeout=30")
        assert taken.server.leases() == {ETH1}  # a master has its first standby's
        taken.replug(2, ETH2)
        soon(
            lambda: tool.status(pair.host).active == "eth2",
            "the primary that carries again",
        )
        soon(lambda: taken.ignores("eth2"), "the new primary let be")
        for number in (1, 2):
            pair.cut(number)
        soon(lambda: "NO-CARRIER" in pair.host.ip("link show fo0"), "a loss")
        for number in (1, 2):
            pair.mend(number)
        soon(lambda: "NO-CARRIER" not in pair.host.ip("link show fo0"), "its end")
        taken.machine.run("ping", "-c1", "-w10", "-I", "fo0", FAR_V4)
        taken.wait("fo0")
        assert taken.server.leases() == {ETH1}
        assert taken.server.unanswered() == set()
        assert "192.0.2." in changes.read_text()
        assert not re.search(r"Deleted .*\bfo0\b.* 192\.0\.2\.", changes.read_text())


def test_attached_before(scene: Scene, tool: Tool) -> None:
    """A group that carries traffic when the manager comes, and is told of then: the
    slaves' requests end, and the master gets its lease, although the rule of a slave
    fits it too."""
    declare(tool, scene, primary="driver=veth")
    with controller(tool, scene.pair.host):
        STARTED[scene.manager](scene.machine)
        soon(lambda: bool(scene.server.asked()), "a slave that asks")
        tell(tool, scene)
        scene.wait("fo0")
        soon(lambda: scene.ignores("eth1"), "eth1 let be")
        soon(lambda: scene.ignores("eth2"), "eth2 let be")


def test_names_and_rules(taken: Scene, tool: Tool) -> None:
    """A slave whose name has all that a file may take for something else, and one
    that is known by a rule, are let be when they come; the rest is not."""
    odd = "eth0[1]*;x'"
    declare(tool, taken, primary="name=e[t]h2", standby=odd)
    tell(tool, taken)
    taken.wait("eth1")
    taken.server.forget()
    taken.pair.plug(3, name=odd, mac=ODD)
    taken.replug(2, ETH2)
    taken.replug(1, ETH1)  # after these: who gets a lease again shows that they did not
    taken.wait("eth1")
    soon(lambda: taken.ignores(odd), "a strange name let be")
    soon(lambda: taken.ignores("eth2"), "what fits the rule let be")
    assert taken.server.leases() == {ETH1}


def test_without_it(taken: Scene, tool: Tool) -> None:
    """A primary that is plugged again gets a lease of its own, if the manager was
    not told, or no longer is: the tests above can fail."""
    taken.server.forget()
    taken.replug(2, ETH2)
    taken.wait("eth1", "eth2")
    assert ETH2 in taken.server.leases()
    declare(tool, taken)
    tell(tool, taken)
    taken.wait()
    assert taken.files()
    at = (f"--for={taken.manager}", f"--root={taken.machine.root}")
    tool.command(taken.pair.host, "netconf", "fo0", *at, "--remove")
    assert taken.files() == set()
    bare = netconf.configuration(Subject(master="fo0"), taken.manager)
    for command in bare.forget:
        taken.machine.run("sh", "-c", command)
    taken.replug(1, ETH1)
    taken.replug(2, ETH2)
    taken.wait("eth1", "eth2")
