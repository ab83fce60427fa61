# SPDX-License-Identifier: GPL-2.0-or-later
"""What a group may be: names, numbers, ranks; and what a link says about itself."""

from dataclasses import fields
from typing import Any

import pytest

from pyfailover.datapath.abi import RxRule
from pyfailover.datapath.programs import rx_rule
from pyfailover.errors import ConfigError
from pyfailover.model import (
    RANGES,
    TUNABLE,
    GroupSpec,
    Link,
    Qdisc,
    Role,
    RxMode,
    check_ifname,
)


def group(**changes: Any) -> GroupSpec:
    """A good group with changes."""
    return GroupSpec(
        **{"name": "fo0", "primary": "eth1", "standbys": ("eth2",), **changes}
    )


def names(count: int) -> tuple[str, ...]:
    """eth1, eth2, …"""
    return tuple(f"eth{n}" for n in range(1, count + 1))


GOOD: dict[str, dict[str, Any]] = {
    "two slaves": {},
    "a primary alone": {"standbys": ()},
    "standbys alone": {"primary": None, "standbys": names(2)},
    "eight slaves with a primary": {"primary": "eth0", "standbys": names(7)},
    "eight standbys": {"primary": None, "standbys": names(8)},
    "no grace": {"rx_grace_ms": 0},
    "a minute of grace": {"rx_grace_ms": 60_000},
    "names of 15 bytes": {"name": "a" * 15, "primary": "b" * 15},
    "a slave whose name begins with the master's": {"primary": "fo01"},
    "slaves by rules": {"primary": "driver=mlx5_core", "standbys": ("name=eth*",)},
    "a rule with the master's name in it": {"primary": "name=fo0"},
}

BAD: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "no slave": (
        {"primary": None, "standbys": ()},
        "'fo0' has no slave",
        "name one with --standby IF",
    ),
    "nine slaves with a primary": (
        {"primary": "eth0", "standbys": names(8)},
        "cannot put 9 slaves behind 'fo0': a group has at most 8",
        None,
    ),
    "nine standbys": (
        {"primary": None, "standbys": names(9)},
        "cannot put 9 slaves behind 'fo0': a group has at most 8",
        None,
    ),
    "primary and standby the same": (
        {"standbys": ("eth2", "eth1")},
        "slave 'eth1' is named twice",
        None,
    ),
    "a standby twice": (
        {"standbys": ("eth2", "eth3", "eth2")},
        "slave 'eth2' is named twice",
        None,
    ),
    "its own primary": ({"primary": "fo0"}, "'fo0' cannot be its own slave", None),
    "its own standby": ({"standbys": ("fo0",)}, "'fo0' cannot be its own slave", None),
    "a rule twice": (
        {"primary": "driver=tun", "standbys": ("driver=tun",)},
        "slave 'driver=tun' is named twice",
        None,
    ),
    "a bad rule": (
        {"standbys": ("driver=tun,speed=9",)},
        "'speed=9' is not a condition of the rule 'driver=tun,speed=9'",
        "once each, of name, altname, mac, pci, driver: KEY=VALUE",
    ),
    "a bad name of the master": (
        {"name": "fo 0"},
        "'fo 0' is not an interface name: 1 to 15 bytes, "
        "no slash, colon, percent sign or space",
        None,
    ),
    "a bad name of a standby": (
        {"standbys": ("eth2", "eth/3")},
        "'eth/3' is not an interface name: 1 to 15 bytes, "
        "no slash, colon, percent sign or space",
        None,
    ),
}


@pytest.mark.parametrize("changes", GOOD.values(), ids=GOOD)
def test_good_group(changes: dict[str, Any]) -> None:
    """A group that makes sense is taken."""
    assert 1 <= len(group(**changes).slaves) <= 8


@pytest.mark.parametrize(("changes", "message", "hint"), BAD.values(), ids=BAD)
def test_bad_group(changes: dict[str, Any], message: str, hint: str | None) -> None:
    """A group that makes no sense is refused, in so many words."""
    with pytest.raises(ConfigError) as refused:
        group(**changes)
    assert (refused.value.message, refused.value.hint) == (message, hint)
    assert refused.value.exit_code == 2


# What is said of the number below the least, and of the one above the greatest.
NUMBERS = {
    "rx_grace_ms": ("rx-grace of -1 ms", "rx-grace of 60001 ms", "0 to 60000"),
    "up_delay_ms": ("up-delay of -1 ms", "up-delay of 3600001 ms", "0 to 3600000"),
    "down_delay_ms": (
        "down-delay of -1 ms",
        "down-delay of 3600001 ms",
        "0 to 3600000",
    ),
    "announce_count": ("announce-count of -1", "announce-count of 256", "0 to 255"),
    "announce_interval_ms": (
        "announce-interval of 0 ms",
        "announce-interval of 60001 ms",
        "1 to 60000",
    ),
    "flap_changes": ("flap-changes of -1", "flap-changes of 1001", "0 to 1000"),
    "flap_window_s": ("flap-window of 0 s", "flap-window of 86401 s", "1 to 86400"),
    "flap_hold_s": ("flap-hold of 0 s", "flap-hold of 86401 s", "1 to 86400"),
    "flap_hold_max_s": (
        "flap-hold-max of 0 s",
        "flap-hold-max of 86401 s",
        "1 to 86400",
    ),
}


def test_every_number_has_its_range() -> None:
    """No number of a group goes unchecked, and each may change while it runs."""
    numbers = {field.name for field in fields(GroupSpec) if field.type is int}
    assert numbers == set(RANGES) == set(NUMBERS)
    assert numbers | {"policy"} == TUNABLE


@pytest.mark.parametrize(("key", "said"), NUMBERS.items(), ids=NUMBERS)
def test_numbers(key: str, said: tuple[str, str, str]) -> None:
    """A number is taken from the least to the greatest, and refused beyond."""
    low, high = RANGES[key]
    below, above, allowed = said
    assert [getattr(group(**{key: n}), key) for n in (low, high)] == [low, high]
    for value, shown in ((low - 1, below), (high + 1, above)):
        with pytest.raises(ConfigError) as refused:
            group(**{key: value})
        assert refused.value.message == f"{shown} is out of range: {allowed}"
        assert refused.value.hint is None


@pytest.mark.parametrize(
    "name", ["e", "eth0", "a" * 15, "é" * 7, "enp0s31f6.97", "eth0@if2", "-", "..."]
)
def test_good_name(name: str) -> None:
    """What the kernel takes for a name is one."""
    check_ifname(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a" * 16,
        "é" * 8,
        "a/b",
        "a:b",
        "a b",
        "a%d",
        "a\tb",
        "a\nb",
        " a",
        pytest.param("\udcff", id="bytes that are no text"),
    ],
)
def test_bad_name(name: str) -> None:
    """What the kernel does not take (dev_valid_name) is none."""
    with pytest.raises(ConfigError, match="is not an interface name"):
        check_ifname(name)


@pytest.mark.parametrize(
    ("primary", "expected"),
    [
        ("eth0", [("eth0", Role.PRIMARY, 0), ("eth1", Role.STANDBY, 1)]),
        (None, [("eth1", Role.STANDBY, 1), ("eth2", Role.STANDBY, 2)]),
    ],
)
def test_ranks_and_roles(
    primary: str | None, expected: list[tuple[str, Role, int]]
) -> None:
    """The primary has rank 0; without one the first standby has rank 1."""
    made = group(primary=primary, standbys=names(2))
    seen = [(n, made.role(s), made.rank(s)) for s, n in enumerate(made.slaves)]
    assert seen[:2] == expected
    assert [rank for _, _, rank in seen] == list(
        range(expected[0][2], expected[0][2] + len(seen))
    )


@pytest.mark.parametrize(
    ("up", "carrier", "ready"),
    [(True, True, True), (True, False, False), (False, True, False), (False,) * 3],
)
def test_ready(up: bool, carrier: bool, ready: bool) -> None:
    """Ready is up and with carrier (net_failover_xmit_ready)."""
    link = Link(ifindex=1, name="e", mac="", mtu=1500, up=up, carrier=carrier)
    assert link.ready is ready


@pytest.mark.parametrize(
    ("kind", "parent", "root", "ingress"),
    [
        ("htb", 0xFFFFFFFF, True, False),
        ("fq_codel", 0x10000, False, False),
        ("clsact", 0xFFFFFFF1, False, True),
        ("ingress", 0xFFFFFFF1, False, True),
    ],
)
def test_qdiscs(kind: str, parent: int, root: bool, ingress: bool) -> None:
    """Which qdisc is at the root, and which holds the ingress hook."""
    qdisc = Qdisc(ifindex=1, kind=kind, handle=1 << 16, parent=parent)
    assert (qdisc.is_root, qdisc.is_ingress) == (root, ingress)


@pytest.mark.parametrize(
    ("mode", "primary", "plugged", "rule"),
    [
        (RxMode.ACTIVE, True, True, RxRule.ACTIVE),
        (RxMode.ACTIVE, False, True, RxRule.ACTIVE),
        (RxMode.ACTIVE, False, False, RxRule.ACTIVE),
        (RxMode.ALL, True, True, RxRule.ALWAYS),
        (RxMode.ALL, False, True, RxRule.ALWAYS),
        (RxMode.ALL, False, False, RxRule.ALWAYS),
        # net_failover_handle_frame
        (RxMode.KERNEL, True, True, RxRule.ALWAYS),
        (RxMode.KERNEL, False, True, RxRule.NO_PRIMARY),
        (RxMode.KERNEL, False, False, RxRule.ACTIVE),
    ],
)
def test_rx_rule(mode: RxMode, primary: bool, plugged: bool, rule: RxRule) -> None:
    """How each mode reads for a primary and for a standby with or without one."""
    assert rx_rule(mode, primary=primary, has_primary=plugged) is rule
