# SPDX-License-Identifier: GPL-2.0-or-later
"""What `status` says and how it exits, by the real command."""

import json
from typing import Any

import pytest

from pyfailover.model import Side, TcMode
from tests.support.capture import EXPERIMENTAL, ethernet, received, send
from tests.support.tool import Tool, spec
from tests.support.topology import MAC, Duo, guest

WARNING = "warning: no controller: nothing will be brought back\n"
OK, DEGRADED, DOWN = 0, 1, 2


def shown(tool: Tool, pair: Duo, *args: str, code: int = OK) -> dict[str, Any]:
    """The one group of `status --json`."""
    done = tool.command(pair.host, "status", "--json", *args, code=code)
    (group,) = json.loads(done.stdout)["groups"]
    assert isinstance(group, dict)
    return group


def test_no_groups(pair: Duo, tool: Tool) -> None:
    """Without groups it says so, warns of nothing, and all is well."""
    done = tool.command(pair.host, "status")
    assert (done.stdout, done.stderr) == ("no groups in this network namespace\n", "")
    assert json.loads(tool.command(pair.host, "status", "--json").stdout) == {
        "controller": False,
        "groups": [],
        "waiting": {},
    }


def test_table(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """The table names the master, each slave with rank, link and state, what it
    carried, and warns that there is no controller."""
    tool.create(pair.host, spec(tc=tc))
    before = [tool.status(pair.host).slaves[n].counters for n in range(2)]
    send(pair.host, "fo0", *[ethernet(MAC, MAC, EXPERIMENTAL)] * 97)
    done = tool.command(pair.host, "status")
    assert done.stderr == WARNING
    head, kind, policy, columns, one, two = done.stdout.splitlines()
    assert head == "fo0: ok, active eth1"
    assert kind == f" stack master by {tc}, carrier test on, generation 2 by user"
    assert policy == " policy always"
    assert " ".join(columns.split()) == (
        "RANK SLAVE LINK STATE TX PACKETS RX PACKETS RX DROP"
    )
    sent = before[0]["tx_packets"] + 97
    assert one.split()[:5] == ["0", "eth1", "up", "active", str(sent)]
    assert two.split()[:5] == ["1", "eth2", "up", "standby", "0"]
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_counters_are_those_of_the_wire(pair: Duo, tool: Tool) -> None:
    """Packets and bytes out are what the far end's own counters have."""
    tool.create(pair.host, spec())
    at = received(pair.far, "p1")
    was = shown(tool, pair)["slaves"][0]["counters"]
    frame = ethernet(pair.far.mac("br0"), MAC, EXPERIMENTAL).ljust(597, b"\0")
    send(pair.host, "fo0", *[frame] * 97)
    now = shown(tool, pair)["slaves"][0]["counters"]
    assert received(pair.far, "p1") - at == 97
    assert now["tx_packets"] - was["tx_packets"] == 97
    assert now["tx_bytes"] - was["tx_bytes"] == 97 * 597
    assert {k for k in now if now[k] != was[k]} == {"tx_packets", "tx_bytes"}


def test_json(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """--json has every fact of the table, in the words of the options."""
    guest(pair)
    tool.attach(pair.host, spec("tap0", side=Side.WIRE, tc=tc))
    tool.switch(pair.host, "eth2", "tap0")
    group = shown(tool, pair, "tap0")
    slaves = group.pop("slaves")
    expected = {
        "name": "tap0",
        "health": "ok",
        "side": "wire",
        "tc": str(tc),
        "created": False,
        "master": "tap0",
        "master_attached": True,
        "active": "eth2",
        "decided_by": "user",
    }
    assert {key: group[key] for key in expected} == expected
    assert group["generation"] == 3
    names = ("slot", "rank", "role", "name", "ifindex", "ready", "active", "attached")
    assert [[slave[name] for name in names] for slave in slaves] == [
        [0, 0, "primary", "eth1", pair.host.ifindex("eth1"), True, False, True],
        [1, 1, "standby", "eth2", pair.host.ifindex("eth2"), True, True, True],
    ]


def test_exit_codes(pair: Duo, tool: Tool) -> None:
    """0 all is well, 1 degraded, 2 no traffic; each with what is the matter. Without
    the carrier test nobody leaves the slave that is cut."""
    tool.create(pair.host, spec(), carrier_test=False)
    assert shown(tool, pair)["health"] == "ok"
    pair.cut(2)
    group = shown(tool, pair, code=DEGRADED)
    assert (group["health"], group["slaves"][1]["carrier"]) == ("degraded", False)
    pair.mend(2)
    pair.host.ip("link set eth2 down")
    assert shown(tool, pair, code=DEGRADED)["slaves"][1]["up"] is False
    pair.host.ip("link set eth2 up")
    pair.cut(1)
    done = tool.command(pair.host, "status", code=DOWN)
    assert "fo0: down" in done.stdout
    assert "no carrier" in done.stdout
    assert " traffic is lost: 'pyfailover switch fo0 eth2'\n" in done.stdout
    tool.switch(pair.host, "eth2")
    assert shown(tool, pair, code=DEGRADED)["active"] == "eth2"
    pair.unplug(1)
    gone = shown(tool, pair, code=DEGRADED)["slaves"][0]
    assert (gone["name"], gone["ifindex"]) == ("eth1", None)
    done = tool.command(pair.host, "status", code=DEGRADED)
    assert "0 eth1 unplugged" in " ".join(done.stdout.split())


def test_cut_that_the_next_packet_leaves(pair: Duo, tool: Tool) -> None:
    """With the carrier test the active slave's loss is no loss of traffic; that of all
    slaves is."""
    tool.create(pair.host, spec())
    pair.cut(1)
    group = shown(tool, pair, code=DEGRADED)
    assert (group["health"], group["carrier_test"]) == ("degraded", True)
    pair.cut(2)
    assert shown(tool, pair, code=DOWN)["health"] == "down"


def test_worst_of_several_groups(pair: Duo, tool: Tool) -> None:
    """The exit code is that of the worst group; a group alone has its own."""
    tool.create(pair.host, spec(standbys=()))
    tool.create(pair.host, spec("fo1", None, ("eth2",)))
    pair.cut(2)
    assert tool.command(pair.host, "status", code=DOWN).stdout.count("fo") == 2
    tool.command(pair.host, "status", "fo0", code=OK)
    tool.command(pair.host, "status", "fo1", code=DOWN)


def test_idle_master(pair: Duo, tool: Tool) -> None:
    """A master of ours that is not attached is idle, and how to go on is said."""
    tool.create(pair.host, spec())
    tool.detach(pair.host)
    done = tool.command(pair.host, "status", code=OK)
    assert done.stdout.startswith("fo0: idle")
    assert "'pyfailover attach fo0 …' or 'destroy fo0'" in done.stdout


def test_no_slave_is_ready_at_attach(pair: Duo, tool: Tool) -> None:
    """Attached while no slave has a carrier: warned of, nobody active, drops are
    counted; without the carrier test a switch once there is one brings the traffic."""
    pair.cut(1)
    pair.cut(2)
    asked = ("create", "fo0", "--primary=eth1", "--standby=eth2")
    done = tool.command(pair.host, *asked)
    assert "is ready: its traffic is dropped until one is\n" in done.stderr
    tool.command(pair.host, "destroy", "fo0")
    done = tool.command(pair.host, *asked, "--no-carrier-test")
    assert "is ready: its traffic is dropped until 'pyfailover" in done.stderr
    was = shown(tool, pair, code=DOWN)
    assert was["active"] is None
    send(pair.host, "fo0", *[ethernet(MAC, MAC, EXPERIMENTAL)] * 97)
    now = shown(tool, pair, code=DOWN)
    drops = [g["counters"]["tx_drop_no_active"] for g in (was, now)]
    assert drops[1] - drops[0] == 97
    table = tool.command(pair.host, "status", code=DOWN).stdout
    assert f" {drops[1]} packets dropped: no active slave\n" in table
    pair.mend(2)
    done = tool.command(pair.host, "switch", "fo0", "eth2")
    assert done.stdout.startswith("fo0: nobody -> eth2 in ")
    assert shown(tool, pair, code=DEGRADED)["active"] == "eth2"


def test_detached_program_is_shown(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """A program that somebody took off shows, with what to do."""
    tool.create(pair.host, spec(tc=tc))
    pins = tool.pins(pair.host)
    if tc is TcMode.TCX:
        (pins / "links" / f"{pair.host.ifindex('eth2')}-ingress").unlink()
    else:
        pair.host.run("tc", "qdisc", "del", "dev", "eth2", "clsact")
    done = tool.command(pair.host, "status", code=DEGRADED)
    assert "1 eth2 up detached" in " ".join(done.stdout.split())
    assert " a program was detached: run the attach command again" in done.stdout


@pytest.mark.parametrize("command", ["create", "attach"])
def test_commands_warn_of_no_controller(pair: Duo, tool: Tool, command: str) -> None:
    """Whoever attaches is told that nothing will be brought back."""
    if command == "attach":
        pair.lab.veth(pair.host, "fo0", pair.far, "fo0-far", mac_a=MAC)
    asked = (command, "fo0", "--primary=eth1", "--standby=eth2")
    assert tool.command(pair.host, *asked).stderr == WARNING
    again = tool.command(pair.host, *asked)
    assert (again.stdout, again.stderr) == ("fo0: attached already\n", WARNING)
