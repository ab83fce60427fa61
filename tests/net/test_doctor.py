# SPDX-License-Identifier: GPL-2.0-or-later
"""What the doctor finds on real interfaces and groups, and that it changes nothing."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pyfailover import doctor
from pyfailover.datapath import hooks, libbpf
from pyfailover.doctor import Finding, Level, System, examination, host, interfaces
from pyfailover.ethtool import Ethtool, Offloads
from pyfailover.lab import Namespace
from pyfailover.model import MacPolicy, Side, TcMode
from pyfailover.place import Roots, sole_controller
from pyfailover.transaction import paths
from tests.support.capture import EXPERIMENTAL
from tests.support.foreign import clsact, filter_dropping, tcx_dropper, xdp_passer
from tests.support.snapshot import assert_same, take
from tests.support.tool import WAYS, Tool, spec
from tests.support.topology import Duo, guest


def examine(
    tool: Tool, ns: Namespace, *names: str, system: System = doctor.HOST
) -> list[Finding]:
    """The doctor's findings in a namespace that has a controller."""
    with ns.enter(), sole_controller(paths(tool.roots)[1]):
        return doctor.examine(tool.roots, names, system)


def amiss(found: Sequence[Finding]) -> dict[tuple[str, str], Level]:
    """What is not ok on interfaces and groups; the host's is the kernel's."""
    return {
        (f.subject, f.what): f.level
        for f in found
        if f.level is not Level.OK and f.subject != "host"
    }


def one(found: Sequence[Finding], subject: str, what: str) -> Finding:
    """The one finding of a thing."""
    (finding,) = (f for f in found if (f.subject, f.what) == (subject, what))
    return finding


@WAYS
def test_healthy_pair(pair: Duo, tool: Tool, tc: TcMode, side: Side) -> None:
    """An attached pair with all its parts lacks nothing, all its interfaces are
    looked at, and nothing is changed by that."""
    tool.create(pair.host, spec(tc=tc, side=side))
    with pair.host.enter(), sole_controller(paths(tool.roots)[1]):
        before = take(tool, pair.host)
    found = examine(tool, pair.host)
    assert_same(before, lambda: take(tool, pair.host), where="examined")
    assert amiss(found) == {}
    assert {"host", "fo0", "eth1", "eth2"} <= {f.subject for f in found}
    assert one(found, "fo0", "usable slaves").found == "2 of 2: eth1, eth2"
    assert one(found, "fo0", "attachments").found == f"whole, by {tc}"
    assert doctor.would_fail_over(found)


def test_host_alone(pair: Duo, tool: Tool) -> None:
    """Without groups and names only the host is looked at, and it could do it."""
    found = examine(tool, pair.host)
    assert {f.subject for f in found} == {"host"}
    assert doctor.would_fail_over(found)


def test_slaves_to_be(pair: Duo, tool: Tool) -> None:
    """Interfaces that no group has are looked at as slaves to be; down is a cost."""
    pair.host.ip("link set eth1 up")
    found = examine(tool, pair.host, "eth2", "eth1")
    assert amiss(found) == {("eth2", "link"): Level.COST}
    assert one(found, "eth2", "link").mend == "ip link set eth2 up"
    subjects = dict.fromkeys(f.subject for f in found)
    assert list(subjects) == ["host", "eth2", "eth1"]
    assert doctor.would_fail_over(found)


def test_mend_is_a_command(pair: Duo, tool: Tool) -> None:
    """Where the mend is a command of `ip`, that mends it."""
    found = examine(tool, pair.host, "eth1")
    pair.host.run(*one(found, "eth1", "link").mend.split())
    assert amiss(examine(tool, pair.host, "eth1")) == {}


def test_driver_and_features(pair: Duo, tool: Tool) -> None:
    """Driver, speed, XDP and offloads of a veth are told."""
    pair.host.ip("link set eth1 up")
    pair.host.run("ethtool", "-K", "eth1", "gro", "on")
    found = examine(tool, pair.host, "eth1")
    assert one(found, "eth1", "driver").found == "veth"
    assert one(found, "eth1", "link").found == "up, 10000 Mbit/s"
    assert one(found, "eth1", "offloads").found == "GRO on, LRO off"
    xdp = one(found, "eth1", "XDP").found
    assert xdp.startswith(("native (", "not told"))
    lo = one(examine(tool, pair.host, "lo"), "lo", "XDP").found
    assert lo.startswith(("generic only", "not told"))


def test_costs_of_a_device(
    pair: Duo, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LRO costs something, and so does a driver that does not tell of its carrier;
    a kernel that does not tell of XDP does not."""
    pair.host.ip("link set eth1 up")
    pair.host.ip("link add mute0 up type ifb")
    monkeypatch.setattr(Ethtool, "offloads", lambda *_: Offloads(gro=True, lro=True))
    monkeypatch.setattr(interfaces, "xdp_features", lambda: None)
    found = examine(tool, pair.host, "eth1", "mute0")
    assert amiss(found) == {
        ("eth1", "offloads"): Level.COST,
        ("mute0", "offloads"): Level.COST,
        ("mute0", "link"): Level.COST,
    }
    assert one(found, "eth1", "offloads").mend == "ethtool -K eth1 lro off"
    assert one(found, "eth1", "XDP").found.startswith("not told")


def test_costs_of_a_host(
    pair: Duo, tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host without tcx, BTF and a bpffs can do it, at a cost each."""
    monkeypatch.setattr(hooks, "has_tcx", lambda: False)
    bare = Tool(replace(tool.roots, pins=tmp_path / "pins"))
    system = replace(doctor.HOST, btf=tmp_path / "btf")
    found = examine(bare, pair.host, system=system)
    for what in ("tcx", "carrier test", "bpffs"):
        assert one(found, "host", what).level is Level.COST
        assert one(found, "host", what).mend
    assert doctor.would_fail_over(found)


def test_network_managers(
    pair: Duo, tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manager that sets up a slave is told for that slave, one that does not show
    what it sets up is told for the host; a master is free to be set up."""
    tool.create(pair.host, spec())
    for name in ("eth2", "fo0"):
        state = tmp_path / str(pair.host.ifindex(name))
        state.write_text("ADMIN_STATE=configured\n")
    running = {"systemd-networkd": [""], "dhcpcd": [""]}
    monkeypatch.setattr(examination, "managers", lambda _: running)
    found = examine(tool, pair.host, system=replace(doctor.HOST, networkd=tmp_path))
    assert amiss(found) == {("eth2", "manager"): Level.COST}
    claim = one(found, "eth2", "manager")
    assert claim.found == "systemd-networkd sets it up"
    assert claim.mend == "pyfailover netconf fo0 --for networkd --install"
    told = one(found, "host", "managers")
    assert (told.level, told.found) == (Level.COST, "dhcpcd, systemd-networkd")
    assert "denyinterfaces" in told.mend


def test_no_such_interface(pair: Duo, tool: Tool) -> None:
    """A name that nothing has is fatal; an alternative name is as good as a name."""
    pair.host.ip("link set eth1 up")
    pair.host.ip("link property add dev eth1 altname enp3s0f1np1longname")
    found = examine(tool, pair.host, "eth9", "enp3s0f1np1longname")
    assert amiss(found) == {("eth9", "interface"): Level.FATAL}
    assert one(found, "eth1", "driver").found == "veth"


def test_all_in_the_way_at_once(pair: Duo, tool: Tool) -> None:
    """All that attach would refuse is told in one go, and keeps failover from
    working; the words are those of the refusal."""
    pair.host.ip("link set eth1 up")
    pair.host.ip("addr add 203.0.113.7/24 dev eth1")
    pair.host.ip("route add 198.51.100.0/24 dev eth1")
    pair.host.ip("link add v97 link eth1 type macvlan mode bridge")
    clsact(pair.host, "eth1")
    filter_dropping(pair.host, "eth1", "ingress", EXPERIMENTAL, "pref", "65281")
    with xdp_passer(pair.host, "eth1"):
        found = examine(tool, pair.host, "eth1")
    things = ["stacking", "addresses", "routes", "XDP program", "filters"]
    assert amiss(found) == {("eth1", thing): Level.FATAL for thing in things}
    assert one(found, "eth1", "stacking").found == "macvlan 'v97' sits on it"
    assert one(found, "eth1", "addresses").found == "it has the address 203.0.113.7/24"
    assert "ip address del 203.0.113.7/24" in one(found, "eth1", "addresses").mend
    assert "198.51.100.0/24" in one(found, "eth1", "routes").found
    assert "'stranger_xdp'" in one(found, "eth1", "XDP program").found
    assert "(pref 65281) on ingress" in one(found, "eth1", "filters").found
    assert not doctor.would_fail_over(found)


def test_what_no_slave_can_be(pair: Duo, tool: Tool) -> None:
    """lo is refused once, for what it is."""
    found = examine(tool, pair.host, "lo")
    assert amiss(found) == {("lo", "kind"): Level.FATAL}


def test_port_of_a_bridge(pair: Duo, tool: Tool) -> None:
    """A port of a bridge is told with the command that frees it."""
    found = examine(tool, pair.far, "p1")
    assert one(found, "p1", "stacking").found == "it is a port of 'br0'"
    assert one(found, "p1", "stacking").mend == "ip link set p1 nomaster"


def test_slave_that_got_an_address(pair: Duo, tool: Tool) -> None:
    """An address, a route or a filter that came onto a slave after it was attached
    costs its owner something; failover works all the same."""
    tool.create(pair.host, spec(tc=TcMode.TCX))
    pair.host.ip("addr add 203.0.113.7/24 dev eth2")
    pair.host.ip("route add 198.51.100.0/24 dev eth1")
    clsact(pair.host, "eth1")
    filter_dropping(pair.host, "eth1", "ingress", EXPERIMENTAL)
    found = examine(tool, pair.host)
    assert amiss(found) == {
        ("eth2", "addresses"): Level.COST,
        ("eth1", "routes"): Level.COST,
        ("eth1", "filters"): Level.COST,
    }
    assert doctor.would_fail_over(found)


def test_accepted_filters(pair: Duo, tool: Tool) -> None:
    """What was accepted with --bypass-filters is not told again."""
    clsact(pair.host, "eth1")
    filter_dropping(pair.host, "eth1", "ingress", EXPERIMENTAL)
    tool.create(pair.host, spec(tc=TcMode.TCX, bypass_filters=True))
    assert amiss(examine(tool, pair.host)) == {}


def test_foreign_tcx_program(pair: Duo, tool: Tool) -> None:
    """A tcx program beside ours is named; ours are not."""
    with pair.host.enter():
        if not hooks.has_tcx():
            pytest.skip("tcx came with Linux 6.6")
    tool.create(pair.host, spec(tc=TcMode.TCX))
    with tcx_dropper(pair.host, "eth2", libbpf.TCX_INGRESS, EXPERIMENTAL) as number:
        found = examine(tool, pair.host)
    assert amiss(found) == {("eth2", "tcx program"): Level.COST}
    assert f"'stranger' (id {number})" in one(found, "eth2", "tcx program").found


def test_master(pair: Duo, tool: Tool) -> None:
    """On a master its addresses are welcome; a root qdisc that the traffic does not
    pass is told."""
    tool.create(pair.host, spec())
    pair.address()
    pair.host.run("tc", "qdisc", "add", "dev", "fo0", "root", "pfifo", "limit", "97")
    found = examine(tool, pair.host, "fo0")
    assert amiss(found) == {("fo0", "qdisc"): Level.COST}
    assert {f.subject for f in found} == {"host", "fo0"}


def test_dead_standby(pair: Duo, tool: Tool) -> None:
    """With one slave without carrier a failure would cut the traffic."""
    tool.create(pair.host, spec())
    pair.cut(2)
    found = examine(tool, pair.host)
    assert amiss(found) == {
        ("fo0", "usable slaves"): Level.FATAL,
        ("eth2", "link"): Level.COST,
    }
    assert one(found, "fo0", "usable slaves").mend == "see to eth2 (no carrier)"
    assert not doctor.would_fail_over(found)


def test_unplugged_standby(pair: Duo, tool: Tool) -> None:
    """So it is with one that is unplugged."""
    tool.create(pair.host, spec())
    pair.unplug(2)
    found = examine(tool, pair.host)
    assert amiss(found) == {("fo0", "usable slaves"): Level.FATAL}
    assert "(unplugged)" in one(found, "fo0", "usable slaves").mend


def test_spare_of_three(tool: Tool, pair: Duo) -> None:
    """With a third slave one may be dead."""
    pair.plug(3)
    tool.create(pair.host, spec(standbys=("eth2", "eth3")))
    pair.cut(2)
    found = examine(tool, pair.host)
    assert amiss(found) == {("eth2", "link"): Level.COST}
    assert doctor.would_fail_over(found)


@WAYS
def test_detached_program(pair: Duo, tool: Tool, tc: TcMode, side: Side) -> None:
    """A program that somebody took away is missed."""
    tool.create(pair.host, spec(tc=tc, side=side))
    if tc is TcMode.CLSACT:
        pair.host.run("tc", "qdisc", "del", "dev", "eth2", "clsact")
    else:
        (tool.pins(pair.host) / f"links/{pair.host.ifindex('eth2')}-ingress").unlink()
    found = examine(tool, pair.host)
    assert one(found, "fo0", "attachments").found == "missing on eth2"
    assert not doctor.would_fail_over(found)


def test_changed_mac(pair: Duo, tool: Tool) -> None:
    """A slave whose MAC address is not the master's any more would get no frames:
    fatal, and the mend mends it."""
    tool.create(pair.host, spec(mac=MacPolicy.CLONE))
    assert amiss(examine(tool, pair.host)) == {}
    pair.host.ip("link set eth2 address 02:00:5e:10:00:97")
    found = examine(tool, pair.host)
    assert amiss(found) == {("eth2", "MAC address"): Level.FATAL}
    pair.host.run(*one(found, "eth2", "MAC address").mend.split())
    assert amiss(examine(tool, pair.host)) == {}


def test_foreign_wire_master(tool: Tool, pair: Duo) -> None:
    """Behind a wire master of others sits somebody with an address of his own, so
    the slaves' need not be the master's."""
    guest(pair)
    tool.attach(pair.host, spec("tap0", side=Side.WIRE))
    found = examine(tool, pair.host)
    assert amiss(found) == {}
    assert one(found, "tap0", "active").found == "eth1"


def test_idle_master(pair: Duo, tool: Tool) -> None:
    """A master that is not attached fails over to nobody."""
    tool.create(pair.host, spec())
    tool.detach(pair.host)
    found = examine(tool, pair.host)
    assert amiss(found) == {("fo0", "attachments"): Level.FATAL}


def test_one_of_several_groups(tool: Tool, pair: Duo) -> None:
    """A name has its own group looked at, and no other."""
    pair.plug(3)
    pair.plug(4)
    tool.create(pair.host, spec())
    tool.create(pair.host, spec("fo1", "eth3", ("eth4",)))
    pair.cut(4)
    assert not doctor.would_fail_over(examine(tool, pair.host))
    found = examine(tool, pair.host, "eth1")
    assert {f.subject for f in found} == {"host", "fo0", "eth1"}
    assert doctor.would_fail_over(found)


def test_lost_programs_need_the_compiler(
    pair: Duo, cold: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without bcc nothing can be attached, but what is attached fails over, and what
    was compiled once can be attached again."""
    tool = Tool(cold)
    monkeypatch.setattr(host, "find_spec", lambda _: None)
    assert not doctor.would_fail_over(examine(tool, pair.host, "eth1"))
    tool.create(pair.host, spec())
    found = examine(tool, pair.host)
    assert one(found, "host", "bcc").level is Level.COST
    assert doctor.would_fail_over(found)
    tool.destroy(pair.host)
    found = examine(tool, pair.host, "eth1")
    assert one(found, "host", "bcc").level is Level.COST
    assert "program cache" in {f.what for f in found}
    assert doctor.would_fail_over(found)


def test_controller(pair: Duo, tool: Tool) -> None:
    """A controller is known by its lock, which is not touched; without one plain
    programs would not fail over."""
    tool.create(pair.host, spec(), carrier_test=False)
    with pair.host.enter():
        absent = doctor.examine(tool.roots)
        with sole_controller(paths(tool.roots)[1]):
            present = doctor.examine(tool.roots)
    assert one(absent, "host", "controller").level is Level.FATAL
    assert not doctor.would_fail_over(absent)
    assert one(present, "host", "controller").found == f"process {os.getpid()}"
    assert doctor.would_fail_over(present)


def test_unreadable_record(pair: Duo, tool: Tool) -> None:
    """A record that cannot be read is a finding, not the end of the doctor."""
    tool.create(pair.host, spec())
    with pair.host.enter():
        (paths(tool.roots)[1] / "groups/fo0.json").write_text("{")
    found = examine(tool, pair.host)
    assert one(found, "host", "examination").level is Level.FATAL
    assert "detach --force" in one(found, "host", "examination").mend


def test_table_of_a_real_host(pair: Duo, tool: Tool) -> None:
    """The table of a group in trouble has 80 columns at most, and its verdict."""
    tool.create(pair.host, spec())
    pair.cut(2)
    pair.host.ip("addr add 203.0.113.7/24 dev eth1")
    lines = list(doctor.table(examine(tool, pair.host)))
    assert max(map(len, lines)) <= 80
    assert lines[0] == "host"
    assert lines[-1] == "failover would not work"
