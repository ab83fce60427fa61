# SPDX-License-Identifier: GPL-2.0-or-later
"""What each network manager is told of a group."""

import re
from configparser import RawConfigParser
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfailover.errors import ConfigError
from pyfailover.model import GroupSpec, Link, Side
from pyfailover.netconf import Configuration, Dhcp, Manager, Subject, configuration
from pyfailover.netconf.files import stem
from pyfailover.netconf.networkd import _literal
from pyfailover.netconf.subject import Slave, subject
from pyfailover.rules import Device


def slave(rule: str, *present: str) -> Slave:
    return Slave(rule=rule, present=present)


GROUP = Subject(
    master="fo0",
    there=True,
    slaves=(
        slave("eth2", "eth2"),
        slave("driver=iavf,pci=0000:03:00.1"),
        slave("fo0-low"),
    ),
)

OFF = "\n[Link]\nUnmanaged=yes\nRequiredForOnline=no\n"
NETWORKD = {
    "etc/systemd/network/05-pyfailover-fo0.network": """\
[Match]
Name=fo0

[Link]
RequiredForOnline=yes

[Network]
DHCP=yes
IgnoreCarrierLoss=10s
KeepConfiguration=dhcp-on-stop
""",
    "etc/systemd/network/06-pyfailover-fo0.slave0.network": (
        f"[Match]\nName=eth2\n{OFF}"
    ),
    "etc/systemd/network/06-pyfailover-fo0.slave1.network": (
        f"[Match]\nDriver=iavf\nPath=pci-0000:03:00.1\n{OFF}"
    ),
    "etc/systemd/network/06-pyfailover-fo0.slave2.network": (
        f"[Match]\nName=fo0-low\n{OFF}"
    ),
}
NETWORKMANAGER = {
    "etc/NetworkManager/conf.d/90-pyfailover-fo0.conf": """\
[device-pyfailover-fo0]
match-device=interface-name:=fo0
managed=1
carrier-wait-timeout=10000

[device-pyfailover-fo0.slave0]
match-device=interface-name:=eth2
managed=0

[device-pyfailover-fo0.slave2]
match-device=interface-name:=fo0-low
managed=0
""",
    "etc/NetworkManager/system-connections/pyfailover-fo0.nmconnection": """\
[connection]
id=pyfailover-fo0
uuid=6ac89ffb-4784-5954-9f25-f0db9213ef51
type=ethernet
interface-name=fo0
autoconnect-retries=0

[ethernet]
cloned-mac-address=preserve

[ipv4]
method=auto

[ipv6]
method=auto
""",
    "etc/udev/rules.d/90-pyfailover-fo0.networkmanager.rules": (
        'SUBSYSTEM=="net", ACTION=="add|change|move", NAME!="fo0", '
        'ENV{ID_NET_DRIVER}=="iavf", ENV{ID_PATH}=="pci-0000:03:00.1", '
        'ENV{NM_UNMANAGED}="1"\n'
    ),
}
IFUPDOWN = {
    "etc/network/interfaces.d/pyfailover-fo0": """\
auto fo0
allow-hotplug fo0
iface fo0 inet dhcp
iface fo0 inet6 auto

iface eth2 inet manual
iface fo0-low inet manual
""",
    "etc/udev/rules.d/81-pyfailover-fo0.ifupdown.rules": (
        'SUBSYSTEM=="net", ACTION=="add", NAME!="fo0", '
        'ENV{ID_NET_DRIVER}=="iavf", ENV{ID_PATH}=="pci-0000:03:00.1", '
        'RUN="/bin/true"\n'
    ),
}


def texts(found: Configuration) -> dict[str, str]:
    return {str(file.path): file.text for file in found.files}


@pytest.mark.parametrize(
    ("manager", "files"),
    [
        (Manager.NETWORKD, NETWORKD),
        (Manager.NETWORKMANAGER, NETWORKMANAGER),
        (Manager.IFUPDOWN, IFUPDOWN),
    ],
)
def test_all_of_it(manager: Manager, files: dict[str, str]) -> None:
    """Every file of every manager, to the letter."""
    assert texts(configuration(GROUP, manager)) == files


def test_commands() -> None:
    """What a person is to run speaks of what is there, and of nothing else."""
    assert {each: configuration(GROUP, each).reread for each in Manager} == {
        Manager.NETWORKD: ("networkctl reload",),
        Manager.NETWORKMANAGER: (
            "udevadm control --reload",
            "udevadm trigger --subsystem-match=net",
            "nmcli general reload",
            "nmcli connection reload",
            "nmcli device set eth2 managed no",
            "ip address flush dev eth2",
            "nmcli device set fo0 managed yes",
        ),
        Manager.IFUPDOWN: (
            "udevadm control --reload",
            "ifdown --force eth2",
            "rm -f /run/network/interfaces.d/eth2",
            "ip link set eth2 up",
            "ifup fo0",
        ),
    }
    absent = Subject(master="fo0", slaves=(slave("eth2"),))
    assert configuration(absent, Manager.IFUPDOWN).reread == ()


@pytest.mark.parametrize("manager", list(Manager))
def test_every_file_is_marked(manager: Manager) -> None:
    """A file begins with what makes it ours, and tells how to be rid of it."""
    found = configuration(GROUP, manager)
    for file in found.files:
        first, second, blank, *_ = found.content(file).splitlines()
        assert first == f"# Written by pyfailover netconf: fo0, {manager}."
        assert f"'pyfailover netconf fo0 --for {manager} --remove'" in second
        assert blank == ""


@pytest.mark.parametrize("manager", list(Manager))
def test_every_file_is_known_again(manager: Manager) -> None:
    """Files have names that are looked for when they are to go, and no group's file
    has a name of another's."""
    for master in ("fo0", "fo0.1", "fo0-1", "x"):
        found = configuration(Subject(master=master, slaves=GROUP.slaves), manager)
        for file in found.files:
            owners = [
                other
                for other in ("fo0", "fo0.1", "fo0-1", "x")
                for place in found.places
                if place.directory == file.path.parent
                and place.named(other).fullmatch(file.path.name)
            ]
            assert owners == [master]


@given(st.text(min_size=1, max_size=15), st.text(min_size=1, max_size=15))
def test_stems(one: str, other: str) -> None:
    """Two masters never share a name of a file, and interfaces(5) reads them all."""
    one, other = (each.encode(errors="replace").decode() for each in (one, other))
    assert (stem(one) == stem(other)) == (one == other)
    assert stem(one).isascii()
    assert stem(one).replace("-", "").replace("_", "").isalnum()


# --- DHCP -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("dhcp", "networkd", "v4", "v6", "stanzas"),
    [
        (Dhcp.YES, "yes", "auto", "auto", ["inet dhcp", "inet6 auto"]),
        (Dhcp.IPV4, "ipv4", "auto", "disabled", ["inet dhcp"]),
        (Dhcp.IPV6, "ipv6", "disabled", "auto", ["inet6 dhcp"]),
    ],
)
def test_families(
    dhcp: Dhcp, networkd: str, v4: str, v6: str, stanzas: list[str]
) -> None:
    """Each manager asks for the addresses that are wanted."""
    one, *_ = configuration(GROUP, Manager.NETWORKD, dhcp).files
    assert f"\nDHCP={networkd}\n" in one.text
    _, profile, _ = configuration(GROUP, Manager.NETWORKMANAGER, dhcp).files
    read = RawConfigParser()
    read.read_string(profile.text)
    assert (read["ipv4"]["method"], read["ipv6"]["method"]) == (v4, v6)
    text = configuration(GROUP, Manager.IFUPDOWN, dhcp).files[0].text
    found = [line for line in text.splitlines() if line.startswith("iface fo0 ")]
    assert found == [f"iface fo0 {each}" for each in stanzas]


def test_without_dhcp() -> None:
    """The slaves are kept off; the master is the operator's to describe."""
    networkd = configuration(GROUP, Manager.NETWORKD, Dhcp.NO)
    assert len(networkd.files) == 3
    assert all("Unmanaged=yes" in file.text for file in networkd.files)
    conf, rules = configuration(GROUP, Manager.NETWORKMANAGER, Dhcp.NO).files
    assert "managed=1" in conf.text  # whose profile it is
    assert "[main]\nno-auto-default+=interface-name:=fo0\n" in conf.text
    assert rules.path.name.endswith(".rules")
    ifupdown = configuration(GROUP, Manager.IFUPDOWN, Dhcp.NO)
    assert "fo0 " not in ifupdown.files[0].text
    assert not any(command.startswith("ifup ") for command in ifupdown.reread)


VM = Subject(
    master="vnet0",
    there=True,
    slaves=(slave("eth2"), slave("vnet0", "vnet0")),
    somebody_elses=True,
)


@pytest.mark.parametrize("manager", list(Manager))
def test_a_master_of_somebody_else(manager: Manager) -> None:
    """Nobody's addresses are put on the end of a VM's interface."""
    found = configuration(VM, manager)
    said = "".join(file.text for file in found.files)
    assert "vnet0" in said
    assert "DHCP=" not in said
    assert "managed=1" not in said
    assert "auto vnet0" not in said
    assert "managed yes" not in "".join(found.reread)
    with pytest.raises(ConfigError, match=r"cannot have DHCP on 'vnet0'"):
        configuration(VM, manager, Dhcp.YES)


# --- names and rules ------------------------------------------------------


def matches(manager: Manager, *slaves: Slave) -> list[str]:
    """Lines that say which interfaces are slaves."""
    found = configuration(Subject(master="fo0", slaves=slaves), manager)
    keys = ("Name=", "Driver=", "Path=", "PermanentMAC", "match-device=", "SUBSYSTEM")
    return [
        line
        for file in found.files
        for line in file.text.splitlines()
        if line.startswith((*keys, "iface "))
        and not line.endswith(("fo0", "inet dhcp", "inet6 auto"))
    ]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("eth1", "Name=eth1"),
        ("e[0]*?", "Name=e[[]0][*][?]"),
        ("!eth1", r"Name=\!eth1"),
        ("123", "Name=[1]23"),
        ("""a"b'c""", r"Name=a\"b\'c"),
        ("a\\b", r"Name=a\\\\b"),
        ("#x;y", "Name=#x;y"),
    ],
)
def test_networkd_names(name: str, line: str) -> None:
    """Whatever a list or a glob is made of is escaped."""
    assert matches(Manager.NETWORKD, slave(name)) == [line]


@pytest.mark.parametrize(
    ("rule", "lines"),
    [
        ("name=eth*", ["Name=eth*"]),
        ("name=e[12] x", [r"Name=e[12]\ x"]),
        ("altname=enp3s0*", ["Name=enp3s0*"]),
        ("driver=a*b", ["Driver=a?b"]),
        ("mac=02:00:5E:10:00:01", ["PermanentMACAddress=02:00:5e:10:00:01"]),
        (
            "driver=iavf,pci=0000:03:00.1",
            ["Driver=iavf", "Path=pci-0000:03:00.1"],
        ),
    ],
)
def test_networkd_rules(rule: str, lines: list[str]) -> None:
    """All conditions are told; a MAC address is the one that stays."""
    assert matches(Manager.NETWORKD, slave(rule)) == lines


def test_a_slave_with_several_names() -> None:
    """One that is known by another name is told of by both."""
    both = slave("enp3s0", "eth1")
    assert matches(Manager.NETWORKD, both) == ["Name=enp3s0 eth1"]
    assert matches(Manager.NETWORKMANAGER, both) == [
        "match-device=interface-name:=enp3s0;interface-name:=eth1"
    ]
    assert matches(Manager.IFUPDOWN, both) == [
        "iface enp3s0 inet manual",
        "iface eth1 inet manual",
    ]


UDEV = 'SUBSYSTEM=="net", ACTION=="add|change|move", NAME!="fo0", '


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("a;b,c\\d", r"match-device=interface-name:=a\;b\,c\\d"),
        ("e*", "match-device=interface-name:=e*"),
        ("name=e*", "match-device=interface-name:e*"),
        ("driver=iavf", "match-device=driver:iavf"),
        ("mac=02:00:5e:10:00:01", "match-device=mac:02:00:5e:10:00:01"),
        ("name=e[12]", f'{UDEV}NAME=="e[12]", ENV{{NM_UNMANAGED}}="1"'),
        (
            "mac=02:00:5e:10:00:01,driver=i*",
            f'{UDEV}ATTR{{address}}=="02:00:5e:10:00:01", ENV{{ID_NET_DRIVER}}=="i?", '
            'ENV{NM_UNMANAGED}="1"',
        ),
        (
            'name=a"b|c\\d',
            f'{UDEV}NAME=="a?b?c?d", ENV{{NM_UNMANAGED}}="1"',
        ),
    ],
)
def test_networkmanager_rules(rule: str, line: str) -> None:
    """A list of devices says what it can; what needs more goes to udev."""
    if rule == 'name=a"b|c\\d':
        rule += ",driver=x"
        line = line.replace(", ENV{NM", ', ENV{ID_NET_DRIVER}=="x", ENV{NM')
    assert matches(Manager.NETWORKMANAGER, slave(rule)) == [line]


@pytest.mark.parametrize("manager", [Manager.NETWORKMANAGER, Manager.IFUPDOWN])
def test_what_cannot_be_told(manager: Manager) -> None:
    """Of a rule by an altname the interface that fits now is told, with a note."""
    found = configuration(
        Subject(
            master="fo0", slaves=(slave("altname=enp*", "eth1"), slave("altname=x"))
        ),
        manager,
    )
    assert "eth1" in found.files[0].text
    one, other = found.notes
    assert "the rule 'altname=enp*', but of 'eth1' now: install again" in one
    assert "but of nobody, as none fits it" in other


@pytest.mark.parametrize(
    ("manager", "rule", "why"),
    [
        (Manager.NETWORKD, "ethé", "it takes ASCII alone"),
        (Manager.NETWORKD, "name=a*,altname=b*", "one of the two names would do"),
        (Manager.IFUPDOWN, "a=b", "not a rule"),
        (Manager.IFUPDOWN, "a\\b", "for something else"),
        *((each, "driver=a\nb", "not all of it is printable") for each in Manager),
        *((each, "name=a\x7f", "not all of it is printable") for each in Manager),
    ],
)
def test_refused(manager: Manager, rule: str, why: str) -> None:
    """What would mean something else in a file is not written into it."""
    with pytest.raises(ConfigError, match=why):
        configuration(Subject(master="fo0", slaves=(slave(rule),)), manager)


QUOTES = dict.fromkeys(map(ord, "\"' "))
ASCII = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/:%")


@given(st.text(ASCII, min_size=1, max_size=15))
def test_networkd_escapes(name: str) -> None:
    """A name is one word of a list, and as a glob itself alone."""
    word = _literal(name)
    assert word[0] != "!"
    assert not word.isdigit()
    # As extract_first_word() does: a backslash hides what follows it.
    glob = re.sub(r"\\(.)", r"\1", word)
    assert re.sub(r"\\.", "", word).translate(QUOTES) == re.sub(r"\\.", "", word)
    # As fnmatch() does then.
    assert re.sub(r"\[(.)\]|\\(.)", r"\1\2", glob) == name


# --- what is known of a group ---------------------------------------------


def link(ifindex: int, name: str, altnames: tuple[str, ...] = ()) -> Link:
    return Link(
        ifindex=ifindex,
        name=name,
        mac="02:00:5e:10:00:01",
        mtu=1500,
        up=True,
        carrier=True,
        altnames=altnames,
    )


LINKS = {
    each.ifindex: each
    for each in (
        link(2, "eth1", altnames=("enp3s0",)),
        link(3, "eth2"),
        link(4, "fo0-low"),
        link(5, "fo0"),
        link(6, "eth9"),
    )
}


def nobody(_: str) -> Device | None:
    return None


def test_subject_by_what_is_seated() -> None:
    """A slave in its slot is known by its present name, whatever its rule says."""
    spec = GroupSpec(name="fo0", primary="driver=iavf", standbys=("enp3s0",))
    found = subject(spec, "fo0-low", LINKS, nobody, {0: 6, 1: 2})
    assert found == Subject(
        master="fo0",
        there=True,
        slaves=(
            slave("driver=iavf", "eth9"),
            slave("enp3s0", "eth1"),
            slave("fo0-low"),
        ),
    )


def test_subject_by_rules() -> None:
    """Of those that are not in a slot whoever fits is told of, but no master."""
    spec = GroupSpec(name="fo0", primary="name=*", standbys=("eth7",))
    found = subject(spec, "fo0-low", LINKS, nobody)
    assert [set(each.present) for each in found.slaves] == [
        {"eth1", "eth2", "eth9"},
        set(),
        set(),  # nobody has set that up
    ]


def test_subject_of_a_vm() -> None:
    """A wire master that is not ours is among those that nobody is to set up."""
    spec = GroupSpec(name="fo0", primary="eth1", side=Side.WIRE)
    found = subject(spec, None, LINKS, nobody)
    assert found.somebody_elses
    assert found.slaves == (slave("eth1", "eth1"), slave("fo0", "fo0"))
    ours = subject(spec, "fo0-low", LINKS, nobody)
    assert not ours.somebody_elses


def test_paths_are_from_the_root() -> None:
    """So that an image can have them."""
    for manager in Manager:
        for file in configuration(GROUP, manager).files:
            assert not file.path.is_absolute()
            assert PurePosixPath("etc") in file.path.parents
