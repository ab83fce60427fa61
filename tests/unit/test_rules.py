# SPDX-License-Identifier: GPL-2.0-or-later
"""Which rules there are, and which interface each of them means."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from pyfailover import rules
from pyfailover.errors import ConfigError
from pyfailover.model import Link, Rule, RuleKey, parse_rule


@dataclass(frozen=True, kw_only=True)
class Card:
    """What `ethtool -i` says."""

    name: str
    bus: str = ""


def link(ifindex: int, name: str, **changes: Any) -> Link:
    """An interface that is up."""
    plain = Link(
        ifindex=ifindex,
        name=name,
        mac=f"02:00:00:00:00:{ifindex:02x}",
        mtu=1500,
        up=True,
        carrier=True,
    )
    return replace(plain, **changes)


LO = link(1, "lo", mac="00:00:00:00:00:00", loopback=True)
ETH0 = link(2, "eth0", altnames=("enp3s0f0", "lan"))
ETH1 = link(3, "eth1", altnames=("enp3s0f1",))
# A cloned address, its own in perm_mac; and an altname like another's name.
VF0 = link(4, "vf0", mac=ETH0.mac, perm_mac="02:00:00:00:00:aa", altnames=("eth9",))
DUMMY = link(5, "Dummy0")
ETH9 = link(6, "eth9")
HOST = {each.ifindex: each for each in (LO, ETH0, ETH1, VF0, DUMMY, ETH9)}

CARDS = {
    "eth0": Card(name="mlx5_core", bus="0000:03:00.0"),
    "eth1": Card(name="mlx5_core", bus="0000:03:00.1"),
    "vf0": Card(name="mlx5_core", bus="0000:03:00.2"),
    "eth9": Card(name="virtio_net", bus="virtio0"),
    "Dummy0": Card(name="dummy"),
}

GOOD: dict[str, Rule] = {
    "name=eth*": {RuleKey.NAME: "eth*"},
    "altname=enp3s0f[01]": {RuleKey.ALTNAME: "enp3s0f[01]"},
    "mac=02:00:00:00:00:AA": {RuleKey.MAC: "02:00:00:00:00:aa"},
    "pci=0000:03:00.1": {RuleKey.PCI: "0000:03:00.1"},
    "pci=10000:E1:1F.7": {RuleKey.PCI: "10000:e1:1f.7"},
    "driver=mlx5_core": {RuleKey.DRIVER: "mlx5_core"},
    "driver=mlx5_core,pci=0000:03:00.1": {
        RuleKey.DRIVER: "mlx5_core",
        RuleKey.PCI: "0000:03:00.1",
    },
    "name=a=b": {RuleKey.NAME: "a=b"},
    "name=a name": {RuleKey.NAME: "a name"},
}

ONCE = "once each, of name, altname, mac, pci, driver: KEY=VALUE"
BAD = {
    "speed=1000": (
        "'speed=1000' is not a rule for a slave",
        "an interface name, or name, altname, mac, pci, driver as KEY=VALUE, "
        "joined by commas",
    ),
    "eth0,driver=e1000e": (
        "'eth0,driver=e1000e' is not a rule for a slave",
        "an interface name, or name, altname, mac, pci, driver as KEY=VALUE, "
        "joined by commas",
    ),
    "MAC=02:00:00:00:00:aa": (
        "'MAC=02:00:00:00:00:aa' is not a rule for a slave",
        "an interface name, or name, altname, mac, pci, driver as KEY=VALUE, "
        "joined by commas",
    ),
    "name=": ("'name=' is not a condition of the rule 'name='", ONCE),
    "name=a,": ("'' is not a condition of the rule 'name=a,'", ONCE),
    "name=a,eth0": ("'eth0' is not a condition of the rule 'name=a,eth0'", ONCE),
    "name=a,pci": ("'pci' is not a condition of the rule 'name=a,pci'", ONCE),
    "name=a,mtu=9": ("'mtu=9' is not a condition of the rule 'name=a,mtu=9'", ONCE),
    "name=a, mac=b": (
        "' mac=b' is not a condition of the rule 'name=a, mac=b'",
        ONCE,
    ),
    "name=a,name=b": (
        "'name=b' is not a condition of the rule 'name=a,name=b'",
        ONCE,
    ),
    "mac=02:00:00:00:00": (
        "'02:00:00:00:00' is not a mac in the rule 'mac=02:00:00:00:00'",
        "like aa:bb:cc:dd:ee:ff",
    ),
    "mac=02-00-00-00-00-aa": (
        "'02-00-00-00-00-aa' is not a mac in the rule 'mac=02-00-00-00-00-aa'",
        "like aa:bb:cc:dd:ee:ff",
    ),
    "mac=02:00:00:00:00:aa:bb": (
        "'02:00:00:00:00:aa:bb' is not a mac in the rule 'mac=02:00:00:00:00:aa:bb'",
        "like aa:bb:cc:dd:ee:ff",
    ),
    "name=a,pci=03:00.1": (
        "'03:00.1' is not a pci in the rule 'name=a,pci=03:00.1'",
        "like 0000:03:00.1",
    ),
    "pci=0000:03:00.8": (
        "'0000:03:00.8' is not a pci in the rule 'pci=0000:03:00.8'",
        "like 0000:03:00.1",
    ),
}


def driver(name: str) -> rules.Device | None:
    """As ethtool answers; loopback and the like have none."""
    return CARDS.get(name)


def picked(text: str, *taken: Link, host: Mapping[int, Link] = HOST) -> Link | None:
    """What a rule means on the host."""
    return rules.pick(text, host, [each.ifindex for each in taken], driver)


@pytest.mark.parametrize(("text", "expected"), GOOD.items(), ids=GOOD)
def test_good_rule(text: str, expected: Rule) -> None:
    """A rule is its conditions, digits in small letters."""
    assert parse_rule(text) == expected


@pytest.mark.parametrize("text", ["eth0", "enp3s0f0.97", "name", "mac,pci", "eth*"])
def test_name_is_no_rule(text: str) -> None:
    """What an interface may be called has no conditions."""
    assert parse_rule(text) is None


@pytest.mark.parametrize(("text", "said"), BAD.items(), ids=BAD)
def test_bad_rule(text: str, said: tuple[str, str]) -> None:
    """What is neither a name nor a rule is refused, in so many words."""
    with pytest.raises(ConfigError) as refused:
        parse_rule(text)
    assert (refused.value.message, refused.value.hint) == said


@pytest.mark.parametrize("text", ["", "eth 0", "a" * 16, "eth/0", "name:eth0"])
def test_bad_name(text: str) -> None:
    """What no interface can be called is no name either."""
    with pytest.raises(ConfigError, match="is not an interface name"):
        parse_rule(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("eth0", ETH0),
        ("enp3s0f1", ETH1),
        ("eth9", ETH9),  # a name rather than another's altname
        ("eth", None),
        ("eth*", None),  # a name, no glob
        ("ETH0", None),
        ("lo", LO),  # refused by admission, which says why
        ("name=eth0", ETH0),
        ("name=vf?", VF0),
        ("name=[Dd]ummy*", DUMMY),
        ("name=dummy*", None),
        ("name=lan", None),
        ("name=lo", None),
        ("name=l*", None),
        ("altname=lan", ETH0),
        ("altname=*f1", ETH1),
        ("altname=eth9", VF0),
        ("altname=eth0", None),
        ("mac=02:00:00:00:00:03", ETH1),
        ("mac=02:00:00:00:00:AA", VF0),
        ("mac=02:00:00:00:00:02", ETH0),  # not who has it by cloning
        ("mac=00:00:00:00:00:00", None),  # the loopback's
        ("pci=0000:03:00.1", ETH1),
        ("pci=0000:03:00.7", None),
        ("driver=virtio_net", ETH9),
        ("driver=virtio*", None),
        ("driver=mlx5_core,pci=0000:03:00.2", VF0),
        ("pci=0000:03:00.2,driver=mlx5_core", VF0),
        ("driver=virtio_net,pci=0000:03:00.2", None),
        ("driver=mlx5_core,name=eth*,altname=*f0", ETH0),
        ("driver=mlx5_core,name=eth*,altname=*f2", None),
    ],
)
def test_picked(text: str, expected: Link | None) -> None:
    """A rule means the one interface that meets all its conditions, or none."""
    assert picked(text) == expected


@pytest.mark.parametrize(
    ("text", "taken", "expected"),
    [
        ("eth0", [ETH0], None),
        ("eth9", [ETH9], VF0),
        ("eth9", [ETH9, VF0], None),
        ("name=eth?", [ETH0, ETH9], ETH1),
        ("driver=mlx5_core", [ETH0, ETH1], VF0),
        ("driver=virtio_net", [ETH9], None),
    ],
)
def test_taken(text: str, taken: list[Link], expected: Link | None) -> None:
    """An interface that has its place already is out of the question."""
    assert picked(text, *taken) == expected


def test_ambiguous() -> None:
    """Where several fit they are named, with what tells them apart."""
    with pytest.raises(ConfigError) as refused:
        picked("name=[!l]*", ETH0)
    assert refused.value.message == (
        "cannot tell which interface is 'name=[!l]*': "
        "'eth1' (02:00:00:00:00:03, mlx5_core, 0000:03:00.1), "
        "'vf0' (02:00:00:00:00:02, mlx5_core, 0000:03:00.2), "
        "'Dummy0' (02:00:00:00:00:05, dummy), "
        "'eth9' (02:00:00:00:00:06, virtio_net, virtio0) fit"
    )
    assert refused.value.hint == (
        "add a condition that only one of them meets, like pci=… or name=…"
    )


def test_device_that_has_no_driver() -> None:
    """A device that says nothing of its driver fits no rule that asks for it, and is
    shown by its address alone."""
    host = {n: link(n, f"t{n}") for n in (7, 8)}
    assert picked("driver=tun", host=host) is None
    assert picked("pci=0000:03:00.1", host=host) is None
    with pytest.raises(ConfigError) as refused:
        picked("name=t*", host=host)
    assert "'t7' (02:00:00:00:00:07), 't8' (02:" in refused.value.message


def test_drivers_are_asked_for_in_need() -> None:
    """Nobody is asked for a driver that no condition is about."""

    def nobody(name: str) -> rules.Device | None:
        raise AssertionError(f"asked for {name}")

    for text in ("eth0", "name=eth0,altname=lan", "mac=02:00:00:00:00:03"):
        assert rules.pick(text, HOST, [], nobody) is not None
    assert rules.pick("name=none,driver=mlx5_core", HOST, [], nobody) is None


@pytest.mark.parametrize(
    ("text", "fitting"),
    [
        ("eth9", [VF0, ETH9]),
        ("name=eth?", [ETH0, ETH1, ETH9]),
        ("driver=mlx5_core", [ETH0, ETH1, VF0]),
        ("name=*", [ETH0, ETH1, VF0, DUMMY, ETH9]),
        ("lo", [LO]),
    ],
)
def test_fits(text: str, fitting: list[Link]) -> None:
    """Each interface by itself fits or does not, whoever else there is."""
    assert [one for one in HOST.values() if rules.fits(text, one, driver)] == fitting
