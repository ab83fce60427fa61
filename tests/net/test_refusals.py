# SPDX-License-Identifier: GPL-2.0-or-later
"""What is refused, by the real command: exit code, error, hint, nothing changed."""

import secrets
import subprocess
from dataclasses import dataclass

import pytest

from pyfailover.lab import Lab, Namespace
from tests.support.snapshot import assert_same, take
from tests.support.tool import Tool, spec
from tests.support.topology import Duo, duo

CREATE = ("create", "fo0", "--primary=eth1", "--standby=eth2")
SWITCH = ("switch", "fo0", "eth2")


@dataclass(frozen=True)
class Case:
    """What is in the way, what is asked for, and what is said.

    Args:
        made: commands of `ip` on the host; a "!" has it run without `ip`.
        said: parts of the error's line, and of the hint's.
    """

    id: str
    made: tuple[str, ...]
    asked: tuple[str, ...]
    said: tuple[str, ...]
    hint: str
    code: int = 1


CASES = [
    Case(
        "slave with an address",
        ("addr add 203.0.113.7/24 dev eth2",),
        CREATE,
        ("'eth2'", "address 203.0.113.7/24"),
        "ip address del 203.0.113.7/24 dev eth2",
    ),
    Case(
        "slave with an IPv6 address",
        ("link set eth1 up", "addr add 2001:db8:7::1/64 dev eth1 nodad"),
        CREATE,
        ("'eth1'", "address 2001:db8:7::1/64"),
        "ip address del 2001:db8:7::1/64 dev eth1",
    ),
    Case(
        "slave with a link-local address of somebody's",
        ("link set eth1 up", "addr add fe80::7/64 dev eth1 nodad"),
        CREATE,
        ("'eth1'", "address fe80::7/64"),
        "ip address del fe80::7/64 dev eth1",
    ),
    Case(
        "slave with a route",
        ("link set eth2 up", "route add 203.0.113.0/24 dev eth2"),
        CREATE,
        ("'eth2'", "route '203.0.113.0/24'"),
        "delete it",
    ),
    Case(
        "slave with an IPv6 route",
        ("link set eth2 up", "-6 route add default dev eth2"),
        CREATE,
        ("'eth2'", "route 'default'"),
        "delete it",
    ),
    Case(
        "slave in a bridge",
        ("link add br7 type bridge", "link set eth1 master br7"),
        CREATE,
        ("'eth1'", "port of 'br7'"),
        "ip link set eth1 nomaster",
    ),
    Case(
        "slave with a macvlan on it",
        ("link add link eth2 name mv7 type macvlan",),
        CREATE,
        ("'eth2'", "macvlan 'mv7' sits on it"),
        "make it on 'fo0' instead",
    ),
    Case("loopback", (), ("create", "fo0", "--standby=lo"), ("'lo'", "Ethernet"), ""),
    Case(
        "missing slave",
        (),
        ("create", "fo0", "--standby=eth1", "--standby=eth7"),
        ("no interface 'eth7'",),
        "--netns",
    ),
    Case(
        "missing master",
        (),
        ("attach", "fo7", "--standby=eth1"),
        ("no interface 'fo7'",),
        "--netns",
    ),
    Case(
        "unequal MAC addresses",
        ("link set eth1 address 02:00:5e:10:00:77",),
        CREATE,
        ("'eth1'", "02:00:5e:10:00:77", "02:00:5e:10:00:01"),
        "--mac clone",
    ),
    Case(
        "name in use",
        ("link add fo0 type bridge",),
        CREATE,
        ("'fo0'", "already"),
        "attach fo0",
    ),
    Case(
        "name of the lower end in use",
        ("link add fo0-low type bridge",),
        CREATE,
        ("'fo0'", "'fo0-low' already"),
        "another name",
    ),
    Case(
        "clone behind a foreign wire master",
        ("link add br7 type bridge",),
        ("attach", "br7", "--side=wire", "--standby=eth1", "--mac=clone"),
        ("'br7'",),
        "--mac clone",
        2,
    ),
    Case("no slave", (), ("create", "fo0"), ("'fo0' has no slave",), "--standby", 2),
    Case(
        "its own slave",
        (),
        ("attach", "eth1", "--standby=eth1"),
        ("'eth1' cannot be its own slave",),
        "",
        2,
    ),
    Case(
        "slave named twice",
        (),
        (*CREATE, "--standby=eth1"),
        ("'eth1' is named twice",),
        "",
        2,
    ),
    Case(
        "name too long",
        (),
        ("create", "sixteen-bytes-ab", "--standby=eth1"),
        ("'sixteen-bytes-ab' is not an interface name",),
        "",
        2,
    ),
    Case("grace out of range", (), (*CREATE, "--rx-grace=60001"), ("60001 ms",), "", 2),
    Case(
        "nothing attached", (), ("switch", "fo7", "eth1"), ("'fo7' is not",), "status"
    ),
    Case("nothing to show", (), ("status", "fo7"), ("'fo7' is not",), "status"),
    Case(
        "foreign interface to destroy",
        (),
        ("destroy", "eth1"),
        ("'eth1'", "did not make it"),
        "ip link del",
    ),
]

# With fo0 over eth1 and eth2 attached.
ATTACHED = [
    Case(
        "slave of another group",
        (),
        ("create", "fo1", "--standby=eth2"),
        ("'eth2'", "a slave of 'fo0'"),
        "detach",
    ),
    Case(
        "another group's master as a slave",
        (),
        ("create", "fo1", "--standby=fo0"),
        ("'fo0'", "the master 'fo0'"),
        "detach",
    ),
    Case(
        "another group's lower end as a slave",
        (),
        ("create", "fo1", "--standby=fo0-low"),
        ("'fo0-low'", "the lower end of the master 'fo0'"),
        "detach",
    ),
    Case(
        "another group's slave as a master",
        (),
        ("attach", "eth1", "--standby=eth3"),
        ("'eth1'", "a slave of 'fo0'"),
        "detach",
    ),
    Case(
        "switch to a stranger",
        (),
        ("switch", "fo0", "eth3"),
        ("'eth3'", "not one of its slaves"),
        "eth1, eth2",
    ),
    Case(
        "switch to a slave that is down",
        ("link set eth2 down",),
        SWITCH,
        ("'eth2'", "it is down"),
        "ip link set eth2 up",
    ),
    Case(
        "switch to an unplugged slave",
        ("link del eth2",),
        SWITCH,
        ("unplugged",),
        "attach",
    ),
]


def ask(tool: Tool, pair: Duo, case: Case) -> None:
    """Make what is in the way, ask, and see what comes of it."""
    for line in case.made:
        pair.host.ip(line)
    before = take(tool, pair.host)
    done = tool.command(pair.host, *case.asked, code=case.code)
    assert done.stdout == ""
    error, *hint = done.stderr.splitlines()
    assert error.startswith("Error: ")
    for part in case.said:
        assert part in error
    assert [line.partition(": ")[0] for line in hint] == ["hint"] * bool(hint)
    assert case.hint in "".join(hint)
    assert_same(before, lambda: take(tool, pair.host), where=case.id)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_refused(pair: Duo, tool: Tool, case: Case) -> None:
    """The command says what is in the way and what to try, and changes nothing."""
    ask(tool, pair, case)


def test_refused_beside_a_group(lab: Lab, tool: Tool) -> None:
    """The same where a group is attached, which goes on undisturbed."""
    pair = duo(lab, slaves=3)
    tool.create(pair.host, spec())
    for case in ATTACHED:
        ask(tool, pair, case)


def test_switch_to_a_slave_without_carrier_is_refused(pair: Duo, tool: Tool) -> None:
    """A slave whose far end is down has no carrier; traffic stays where it is."""
    tool.create(pair.host, spec())
    pair.cut(2)
    done = tool.command(pair.host, *SWITCH, code=1)
    assert "'eth2': it has no carrier" in done.stderr
    assert tool.status(pair.host).active == "eth1"
    pair.mend(2)
    assert "eth1 -> eth2" in tool.command(pair.host, *SWITCH).stdout


def test_other_netns_that_does_not_exist(tool: Tool) -> None:
    """An unknown namespace is bad usage, and named."""
    nowhere = Namespace(f"pf-no-{secrets.token_hex(3)}")
    done = tool.command(nowhere, "status", code=2)
    assert f"no network namespace '{nowhere.name}'" in done.stderr
    assert "hint: see 'ip netns'" in done.stderr


def test_inside_ip_netns_exec(pair: Duo, tool: Tool) -> None:
    """Inside `ip netns exec` no bpffs is mounted, and one mounted there would die
    with it: refused, and --netns named."""
    before = take(tool, pair.host)
    argv = [arg for arg in tool.argv(pair.host, *CREATE) if "--netns" not in arg]
    done = subprocess.run(
        ["ip", "netns", "exec", pair.host.name, *argv],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "no bpffs is mounted in this mount namespace" in done.stderr
    assert "hint: do not run inside 'ip netns exec': use --netns" in done.stderr
    assert_same(before, lambda: take(tool, pair.host), where="refused")
