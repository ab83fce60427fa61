# SPDX-License-Identifier: GPL-2.0-or-later
"""The doctor, on hosts made of files: what is found, what it costs, how it reads."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfailover import doctor
from pyfailover.datapath import abi, cache, hooks, libbpf
from pyfailover.doctor import Finding, Level, System, host
from pyfailover.doctor.claimants import claims, managers, opaque_managers
from pyfailover.doctor.groups import carrying
from pyfailover.doctor.host import essentials, surroundings, toolchain
from pyfailover.errors import UnsupportedError
from pyfailover.model import Link, Policy, Role, Side, TcMode
from pyfailover.place import Roots, sole_controller
from pyfailover.privileges import Account
from pyfailover.report import GroupStatus, Health, SlaveStatus

ALL_RIGHTS = "000001ffffffffff"
ETH1 = Link(ifindex=7, name="eth1", mac="02::1", mtu=1500, up=True, carrier=True)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """A host in which all is well and nothing runs; libbpf and bcc are there."""
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self/status").write_text(f"Name:\tx\nCapEff:\t{ALL_RIGHTS}\n")
    (proc / "1/net").mkdir(parents=True)
    (proc / "1/net/dev").touch()
    (proc / "thread-self").symlink_to("1")
    headers = tmp_path / "modules/6.18.0/build/include/generated"
    headers.mkdir(parents=True)
    (headers / "autoconf.h").touch()
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc/libbcc.py").touch()
    found = ModuleSpec("bcc", None, is_package=True)
    found.submodule_search_locations = [str(tmp_path / "bcc")]
    monkeypatch.setattr(host, "find_spec", {"bcc": found}.get)
    monkeypatch.setattr(libbpf, "possible_cpus", lambda: 2)
    return System(
        proc=proc,
        btf=tmp_path / "btf",
        modules=tmp_path / "modules",
        networkd=tmp_path / "networkd",
        networkmanager=tmp_path / "nm",
        ifupdown_made=tmp_path / "made",
        ifupdown=tmp_path / "network",
        release="6.18.0",
    )


def levels(findings: Sequence[Finding]) -> dict[str, Level]:
    """Level by what was looked at."""
    return {finding.what: finding.level for finding in findings}


def text(*findings: Finding) -> str:
    """The table with its line breaks taken out."""
    return " ".join(" ".join(doctor.table(findings)).split())


# --- the host -------------------------------------------------------------


def test_a_host_that_can(system: System) -> None:
    """With all rights, a new kernel, libbpf, bcc and headers nothing is amiss."""
    nowhere = Path("/nowhere")
    found = [*essentials(system), *toolchain(system, nowhere, loaded=False)]
    assert levels(found) == {
        "privileges": Level.OK,
        "kernel": Level.OK,
        "libbpf": Level.OK,
        "program cache": Level.OK,
        "bcc": Level.OK,
        "kernel headers": Level.OK,
    }
    assert not any(finding.cost or finding.mend for finding in found)


@pytest.mark.parametrize(
    ("release", "level"),
    {
        "5.4.0-150-generic": Level.FATAL,
        "5.13.19": Level.FATAL,
        "5.14.0": Level.OK,
        "6.1.0-18-amd64": Level.OK,
        "6.12": Level.OK,
        "10.0-rc1": Level.OK,
    }.items(),
)
def test_kernel(system: System, release: str, level: Level) -> None:
    """A kernel before 5.14 cannot."""
    found = essentials(replace(system, release=release))
    assert levels(found)["kernel"] is level
    assert doctor.would_fail_over(found) is (level is not Level.FATAL)


_NET_ADMIN, _SYS_ADMIN, _BPF = 12, 21, 39


@pytest.mark.parametrize(
    ("capabilities", "level"),
    [
        ((), Level.FATAL),
        ((_NET_ADMIN,), Level.FATAL),
        ((_BPF, _SYS_ADMIN), Level.FATAL),
        ((_NET_ADMIN, _BPF), Level.COST),
        ((_NET_ADMIN, _SYS_ADMIN), Level.OK),
        ((_NET_ADMIN, _SYS_ADMIN, _BPF), Level.OK),
    ],
)
def test_privileges(system: System, capabilities: Sequence[int], level: Level) -> None:
    """What counts are the capabilities, not that somebody is root."""
    held = sum(1 << number for number in capabilities)
    (system.proc / "self/status").write_text(f"CapPrm:\tff\nCapEff:\t{held:016x}\n")
    assert levels(essentials(system))["privileges"] is level


def test_no_libbpf(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without libbpf nothing works; the error's own hint is the mend."""

    def missing() -> int:
        raise UnsupportedError("cannot use BPF: it is missing", hint="apt install it")

    monkeypatch.setattr(libbpf, "possible_cpus", missing)
    found = essentials(system)
    assert levels(found)["libbpf"] is Level.FATAL
    assert "it is missing" in text(*found)
    assert "mend: apt install it" in text(*found)


@pytest.mark.parametrize(
    ("loaded", "kept", "level"),
    [
        (False, False, Level.FATAL),
        (True, False, Level.COST),
        (False, True, Level.COST),
        (True, True, Level.COST),
    ],
)
@pytest.mark.parametrize("lack", ["no bcc", "another bcc", "no headers"])
def test_toolchain(
    system: System,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lack: str,
    loaded: bool,
    kept: bool,
    level: Level,
) -> None:
    """What compiles is needed as long as the programs are neither loaded nor kept;
    PyPI's package that is called bcc too does not do."""
    monkeypatch.setattr(cache, "has", lambda *_: kept)
    what = "bcc"
    if lack == "no bcc":
        monkeypatch.setattr(host, "find_spec", lambda _: None)
    elif lack == "another bcc":
        (tmp_path / "bcc/libbcc.py").unlink()
    else:
        what = "kernel headers"
        system = replace(system, modules=tmp_path / "nowhere")
    found = list(toolchain(system, tmp_path, loaded=loaded))
    assert {w: lv for w, lv in levels(found).items() if lv is not Level.OK} == {
        what: level
    }
    assert "mend: apt install " in text(*found)


Surround = Callable[..., list[Finding]]


@pytest.fixture
def surround(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Surround:
    """What is found around a host with a good BTF, a bpffs and tcx."""
    system.btf.write_bytes(b"\0%s\0" % b"\0".join(map(str.encode, abi.KFUNCS)))
    monkeypatch.setattr(host, "on_bpffs", lambda _: True)
    monkeypatch.setattr(hooks, "has_tcx", lambda: True)

    def look(carrier_test: bool | None = None) -> list[Finding]:
        run = tmp_path / "run"
        return list(surroundings(Roots(), run, system, carrier_test=carrier_test))

    monkeypatch.setattr(host, "account", lambda _: Account(97, 98))
    return look


def test_without_the_users_account(
    surround: Surround, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cost, and how to have it."""
    monkeypatch.setattr(host, "account", lambda _: None)
    (found,) = (each for each in surround(None) if each.what == "user")
    assert found.level is Level.COST
    assert found.mend == (
        "useradd --system --no-create-home --shell /usr/sbin/nologin pyfailover"
    )


@pytest.mark.parametrize("loaded", [None, True])
def test_without_a_controller(surround: Surround, loaded: bool | None) -> None:
    """Programs that look at links fail over without a controller; something is lost
    all the same."""
    found = surround(loaded)
    assert {w: lv for w, lv in levels(found).items() if lv is not Level.OK} == {
        "controller": Level.COST
    }
    assert doctor.would_fail_over(found)
    assert (
        "none runs costs: what was left is not brought back, and the network is not "
        "told mend: pyfailover run" in text(*found)
    )


def test_plain_programs(surround: Surround) -> None:
    """Programs that could look at links, and do not, leave that to the controller:
    without one nothing fails over."""
    found = surround(False)
    assert {w: lv for w, lv in levels(found).items() if lv is not Level.OK} == {
        "carrier test": Level.COST,
        "controller": Level.FATAL,
    }
    assert "mend: pyfailover reload --programs --carrier-test" in text(*found)
    assert (
        "none runs costs: a lost carrier would not be noticed, and nothing brought "
        "back mend: pyfailover run" in text(*found)
    )
    assert not doctor.would_fail_over(found)


def test_with_a_controller(surround: Surround, tmp_path: Path) -> None:
    """A controller is named by its process."""
    with sole_controller(tmp_path / "run"):
        found = surround()
    assert set(levels(found).values()) == {Level.OK}
    (said,) = (each for each in found if each.what == "controller")
    assert said.found == f"process {os.getpid()}"


def test_controller_that_was_killed(surround: Surround, tmp_path: Path) -> None:
    """The number that a killed one left is no controller."""
    with sole_controller(tmp_path / "run"):
        pass
    assert levels(surround())["controller"] is Level.COST


@pytest.mark.parametrize("missing", ["all", *abi.KFUNCS])
def test_kernel_without_carrier_test(
    surround: Surround, system: System, missing: str
) -> None:
    """What the kernel lacks is said, and that a controller is needed then."""
    known = [name.encode() for name in abi.KFUNCS if name != missing]
    system.btf.write_bytes(b"\0%s\0" % b"\0".join(known))
    if missing == "all":
        system.btf.unlink()
    for loaded in (None, False):
        found = surround(loaded)
        assert levels(found)["carrier test"] is Level.COST
        assert levels(found)["controller"] is Level.FATAL
        assert ("no BTF" if missing == "all" else f"no {missing}") in text(*found)


# --- network managers -----------------------------------------------------

Start = Callable[..., None]


@pytest.fixture
def start(system: System) -> Start:
    """Have a process run: its comm, its command line, where it is."""

    def run(comm: str, *words: str, elsewhere: bool = False) -> None:
        process = system.proc / str(100 + len(list(system.proc.iterdir())))
        (process / "net").mkdir(parents=True)
        (process / "comm").write_text(f"{comm}\n")
        (process / "cmdline").write_text("\0".join([comm, *words, ""]))
        dev = process / "net/dev"
        if elsewhere:
            dev.touch()
        else:
            os.link(system.proc / "1/net/dev", dev)

    return run


def write(path: Path, content: str) -> None:
    """A file, with the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def claimants(system: System, link: Link = ETH1) -> list[str]:
    """Who would set up an interface; each names it in what keeps him from it."""
    found = dict(claims(link, managers(system), system))
    assert all(link.name in mend for mend in found.values())
    return list(found)


def test_managers_of_this_namespace(system: System, start: Start) -> None:
    """Managers are found by the fifteen bytes of their names, in this network
    namespace alone."""
    start("systemd-network")
    start("NetworkManager", elsewhere=True)
    start("dhclient", "-4", "eth1")
    start("bash")
    found = managers(system)
    assert sorted(found) == ["dhclient", "systemd-networkd"]
    assert "eth1" in found["dhclient"]


def test_process_with_a_name_that_is_no_text(system: System, start: Start) -> None:
    """A name that the kernel cut amid a character is no obstacle."""
    start("dhcpcd")
    start("x")
    (odd,) = (p for p in system.proc.glob("*/comm") if p.read_text() == "x\n")
    odd.write_bytes("abcdefghijklmn\u00e9".encode()[:15] + b"\n")
    assert list(managers(system)) == ["dhcpcd"]


def test_manager_that_ends_meanwhile(system: System, start: Start) -> None:
    """A process that is gone when it is looked at is none."""
    start("dhcpcd")
    (process,) = (p for p in system.proc.iterdir() if (p / "comm").is_file())
    (process / "net/dev").unlink()
    assert managers(system) == {}


@pytest.mark.parametrize(
    ("state", "claimed"),
    [
        ("ADMIN_STATE=configured", True),
        ("ADMIN_STATE=configuring", True),
        ("ADMIN_STATE=pending", True),
        ("ADMIN_STATE=unmanaged", False),
        ("OPER_STATE=routable", False),
    ],
)
def test_networkd(system: System, start: Start, state: str, claimed: bool) -> None:
    """systemd-networkd touches what it does not say to leave unmanaged."""
    start("systemd-network")
    write(system.networkd / "7", f"# private\n{state}\nNETWORK_FILE=/x\n")
    assert claimants(system) == ["systemd-networkd"] * claimed
    assert claimants(system, replace(ETH1, ifindex=8)) == []


def test_networkd_mend(system: System, start: Start, tmp_path: Path) -> None:
    """The drop-in that keeps networkd away matches the interface and no other."""
    start("systemd-network")
    write(system.networkd / "7", "ADMIN_STATE=configured\n")
    ((_, mend),) = claims(ETH1, managers(system), system)
    printed = re.search(r"printf '(.*)' > /etc/systemd/network/\S+\.network;", mend)
    assert printed is not None
    assert printed[1].replace(r"\n", "\n").splitlines() == [
        "[Match]",
        "Name=eth1",
        "[Link]",
        "Unmanaged=yes",
    ]


@pytest.mark.parametrize(
    ("state", "claimed"),
    [
        ("[device]\nmanaged=true\n", True),
        ("[device]\nmanaged=false\n", False),
        ("[device]\n", False),
        ("[device]\nmanaged=unknown\n", False),
    ],
)
def test_networkmanager(
    system: System, start: Start, state: str, claimed: bool
) -> None:
    """NetworkManager touches what it says that it manages."""
    start("NetworkManager", "--no-daemon")
    write(system.networkmanager / "7", state)
    assert claimants(system) == ["NetworkManager"] * claimed


def test_slaves_of_a_group(system: System, start: Start) -> None:
    """Of a slave that is one already the command is named that tells of all."""
    start("systemd-network")
    start("NetworkManager")
    write(system.networkd / "7", "ADMIN_STATE=configured\n")
    write(system.networkmanager / "7", "managed=true\n")
    write(system.ifupdown_made / "eth1", "iface eth1 inet dhcp\n")
    assert dict(claims(ETH1, managers(system), system, master="fo;0")) == {
        "systemd-networkd": "pyfailover netconf 'fo;0' --for networkd --install",
        "NetworkManager": "pyfailover netconf 'fo;0' --for networkmanager --install",
        "ifupdown": f"remove the stanza of eth1 from {system.ifupdown_made / 'eth1'}",
    }


def test_state_of_managers_that_do_not_run_here(system: System, start: Start) -> None:
    """What a manager of another namespace left under /run means nothing: its
    ifindexes are others."""
    start("systemd-network", elsewhere=True)
    start("NetworkManager", elsewhere=True)
    write(system.networkd / "7", "ADMIN_STATE=configured\n")
    write(system.networkmanager / "7", "managed=true\n")
    assert claimants(system) == []


@pytest.mark.parametrize(
    ("file", "stanza", "claimed"),
    [
        ("interfaces", "auto eth1\niface eth1 inet dhcp\n", True),
        ("interfaces.d/lan", "  iface eth1 inet6 auto\n", True),
        ("interfaces", "auto eth1\niface eth1 inet manual\n", False),
        ("interfaces", "# iface eth1 inet dhcp\n", False),
        ("interfaces", "iface eth10 inet dhcp\n", False),
        ("interfaces", "iface\n\niface eth1\n", False),
    ],
)
def test_ifupdown(system: System, file: str, stanza: str, claimed: bool) -> None:
    """ifupdown touches what a stanza configures; `manual` is as good as none."""
    write(system.ifupdown / file, f"iface lo inet loopback\n{stanza}")
    found = dict(claims(ETH1, {}, system))
    assert list(found) == ["ifupdown"] * claimed
    assert all(str(system.ifupdown / file) in mend for mend in found.values())


def test_ifupdown_in_another_namespace(system: System) -> None:
    """ifupdown's files speak of the namespace of the first process alone."""
    write(system.ifupdown / "interfaces", "iface eth1 inet dhcp\n")
    assert claimants(system) == ["ifupdown"]
    other = system.proc / "2/net"
    other.mkdir(parents=True)
    (other / "dev").touch()
    (system.proc / "thread-self").unlink()
    (system.proc / "thread-self").symlink_to("2")
    assert claimants(system) == []


@pytest.mark.parametrize(
    ("running", "level", "mend"),
    [
        ((), Level.OK, ""),
        (("NetworkManager", "systemd-networkd", "dhclient"), Level.OK, ""),
        (
            ("dhcpcd", "NetworkManager"),
            Level.COST,
            "except the slaves: denyinterfaces in /etc/dhcpcd.conf",
        ),
    ],
)
def test_managers_that_do_not_show_what_is_theirs(
    running: Sequence[str], level: Level, mend: str
) -> None:
    """One that does not show which interfaces are its own is a cost of the host."""
    found = opaque_managers(dict.fromkeys(running))
    assert (found.level, found.mend) == (level, mend)
    assert found.found == (", ".join(sorted(running)) or "none runs")


def test_dhclient(system: System, start: Start) -> None:
    """A DHCP client touches the interfaces of its command line."""
    start("dhclient", "-pf", "/run/x", "eth1")
    assert claimants(system) == ["dhclient"]
    assert claimants(system, replace(ETH1, name="eth2")) == []


# --- groups ---------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A group fo0 over eth1, eth2, …: a letter a slave, "+" for one that is ready,
    "x" for one without carrier, "-" for one whose program is detached, "." for one
    that is unplugged."""

    description: str
    slaves: str = "++"
    active: int | None = 0
    master: str | None = "fo0"
    whole: bool = True
    idle: bool = False
    bad: Mapping[str, str]  # what is fatal, with words of it


SCENES = [
    Scene(description="all is well", bad={}),
    Scene(description="two of three", slaves="+x+", bad={}),
    Scene(
        description="the standby has no carrier",
        slaves="+x",
        bad={
            "usable slaves": "1 of 2: eth1 costs: a failure would cut the traffic "
            "mend: see to eth2 (no carrier)"
        },
    ),
    Scene(
        description="the standby is unplugged",
        slaves="+.",
        bad={"usable slaves": "mend: see to eth2 (unplugged)"},
    ),
    Scene(
        description="the standby's program is detached",
        slaves="+-",
        bad={
            "attachments": "missing on eth2",
            "usable slaves": "mend: see to eth2 (detached)",
        },
    ),
    Scene(
        description="a slave alone",
        slaves="+",
        bad={"usable slaves": "mend: attach a second slave"},
    ),
    Scene(
        description="the active one is dead, two others are not",
        slaves="x++",
        bad={
            "active": "eth1, who is not ready costs: traffic is lost now mend: "
            "pyfailover switch fo0 eth2"
        },
    ),
    Scene(
        description="nobody is active",
        active=None,
        bad={"active": "nobody costs: traffic is lost now"},
    ),
    Scene(
        description="the master's program is detached",
        whole=False,
        bad={"attachments": "missing on fo0"},
    ),
    Scene(
        description="the master is gone",
        master=None,
        whole=False,
        bad={"attachments": "mend: pyfailover detach fo0, then attach again"},
    ),
    Scene(
        description="made, not attached",
        slaves="..",
        idle=True,
        active=None,
        master=None,
        whole=False,
        bad={
            "attachments": "none costs: no traffic is carried mend: pyfailover "
            "attach fo0 …, or pyfailover destroy fo0"
        },
    ),
]


def status(scene: Scene) -> GroupStatus:
    """A scene as report shows it."""
    slaves = [
        SlaveStatus(
            slot=slot,
            rank=slot,
            role=Role.STANDBY if slot else Role.PRIMARY,
            name=f"eth{slot + 1}",
            ifindex=None if kind == "." else slot + 7,
            up=kind != ".",
            carrier=kind in "+-",
            ready=kind in "+-",
            active=slot == scene.active,
            approved=True,
            attached=kind in "+x",
            counters={},
        )
        for slot, kind in enumerate(scene.slaves)
    ]
    return GroupStatus(
        name="fo0",
        health=Health.IDLE if scene.idle else Health.OK,
        side=Side.STACK,
        tc=TcMode.TCX,
        created=True,
        master=scene.master,
        master_attached=scene.whole,
        active=None if scene.active is None else f"eth{scene.active + 1}",
        generation=1,
        decided_by="user",
        slaves=slaves,
        counters={},
        policy=Policy.ALWAYS,
        pinned=None,
    )


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.description)
def test_group(scene: Scene) -> None:
    """Failover works with two usable slaves, all programs attached and the traffic
    flowing; whatever of that is amiss is said, and nothing else."""
    found = list(carrying(status(scene)))
    bad = [finding for finding in found if finding.level is not Level.OK]
    assert [finding.what for finding in bad] == list(scene.bad)
    assert doctor.would_fail_over(found) is not bool(scene.bad)
    for finding in bad:
        assert finding.level is Level.FATAL
        assert scene.bad[finding.what] in text(finding)


# --- how it reads ---------------------------------------------------------


def finding(
    level: Level = Level.OK, subject: str = "host", found: str = "x"
) -> Finding:
    """A finding, with a cost and a mend if it is not ok."""
    lack = {} if level is Level.OK else {"cost": "something", "mend": "this"}
    return Finding(level=level, subject=subject, what="what", found=found, **lack)


def test_table() -> None:
    """Findings stand below their subject, costs and mends below what lacks."""
    found = [
        finding(found="first"),
        finding(Level.COST, subject="eth1"),
        finding(found="later"),
    ]
    assert list(doctor.table(found)) == [
        "host",
        "  ok     what           first",
        "  ok     what           later",
        "eth1",
        "  cost   what           x",
        "         costs: something",
        "         mend: this",
        "failover would work",
    ]


@pytest.mark.parametrize(
    ("found", "works"),
    [
        ([], True),
        ([Level.OK, Level.COST], True),
        ([Level.OK, Level.FATAL, Level.COST], False),
    ],
)
def test_verdict(found: Sequence[Level], works: bool) -> None:
    """A cost is no obstacle, a single fatal finding is."""
    findings = [finding(level) for level in found]
    assert doctor.would_fail_over(findings) is works
    *_, last = doctor.table(findings)
    assert last == ("failover would work" if works else "failover would not work")


SENTENCES = st.lists(
    st.text("abcdefghij-/'…", min_size=1, max_size=40), min_size=1, max_size=30
).map(" ".join)


@given(SENTENCES, SENTENCES, st.sampled_from(Level))
def test_lines_are_short(found: str, mend: str, level: Level) -> None:
    """No line has more than 80 columns, and no word of a command is broken."""
    shown = list(
        doctor.table(
            [
                Finding(
                    level=level,
                    subject="abcdefghijklmno",
                    what="kernel headers",
                    found=found,
                    cost=found,
                    mend=mend,
                )
            ]
        )
    )
    assert [line for line in shown if len(line) > 80] == []
    assert {*found.split(), *mend.split()} <= set(" ".join(shown).split())
