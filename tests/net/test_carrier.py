# SPDX-License-Identifier: GPL-2.0-or-later
"""What follows from the slaves to the master and back: carrier (S10), MTU (S6)."""

import fcntl
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from pyfailover.lab import Lab, Namespace, eventually
from pyfailover.model import Side, TcMode
from tests.support.daemon import RARELY, Daemon, controller, under_traffic
from tests.support.streams import damage
from tests.support.tool import WAYS, Tool, spec
from tests.support.topology import MAC, Duo

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x2, 0x1000


def has_carrier(ns: Namespace, name: str) -> bool:
    """Whether `ip link` shows an interface with carrier."""
    (link,) = json.loads(ns.ip("-j", "link", "show", "dev", name))
    carrier = "LOWER_UP" in link["flags"]
    assert ("NO-CARRIER" in link["flags"]) is not carrier
    return carrier


def mtus(ns: Namespace, *names: str) -> list[int]:
    """MTUs of interfaces."""
    found = json.loads(ns.ip("-j link show"))
    by_name = {link["ifname"]: link["mtu"] for link in found}
    return [by_name[name] for name in names]


def all_have(ns: Namespace, mtu: int, *names: str) -> bool:
    """Whether interfaces have this MTU."""
    return mtus(ns, *names) == [mtu] * len(names)


def troubled(daemon: Daemon, times: int) -> bool:
    """Whether the log tells of trouble so many times."""
    return daemon.log().count(" trouble ") == times


def sees_no_slave(daemon: Daemon) -> bool:
    """Whether the controller found that nobody is usable."""
    return bool(daemon.group()["usable"] == 0)


@contextmanager
def tap(ns: Namespace, name: str) -> Iterator[None]:
    """A tap that somebody has open, as a VM does, and so with carrier."""
    ns.ip(f"tuntap add dev {name} mode tap")
    ns.ip(f"link set {name} up")
    with ns.enter():
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI)
        fcntl.ioctl(fd, _TUNSETIFF, request)
        yield
    finally:
        os.close(fd)


# --- carrier ------------------------------------------------------------------


def test_master_of_ours(pair: Duo, tool: Tool) -> None:
    """Its carrier goes with the last slave's and comes with the first one's, and
    traffic flows as before; `status` tells."""
    with under_traffic(pair, tool, spec()) as run:
        assert has_carrier(pair.host, "fo0")
        run.wait(lambda: run.daemon.group()["carrier"] == "follows", "what follows")
        for back in (1, 2):
            pair.cut(1)
            pair.cut(2)
            run.wait(lambda: not has_carrier(pair.host, "fo0"), "no carrier")
            run.wait(lambda: run.daemon.group()["carrier"] == "taken", "its state")
            assert "carrier taken" in tool.command(pair.host, "status", code=2).stdout
            pair.mend(back)
            run.wait(lambda: has_carrier(pair.host, "fo0"), "carrier")
            run.carries(f"eth{back}")
        pair.mend(1)
        run.carries("eth1")
        assert [duplicated for _, duplicated in damage(*run.streams)] == [0] * 4


def test_carrier_that_comes_while_it_is_taken(pair: Duo, tool: Tool) -> None:
    """Links that come and go faster than a controller can follow leave the master with
    the carrier that the last change asks for."""
    with under_traffic(pair, tool, spec(flap_changes=0)) as run:
        for _ in range(10):
            pair.cut(1)
            pair.cut(2)
            pair.mend(1)
        run.carries("eth1")
        run.wait(lambda: run.daemon.group()["carrier"] == "follows", "its state")
        assert has_carrier(pair.host, "fo0")


def test_tap_as_wire_master(pair: Duo, tool: Tool) -> None:
    """The carrier of a tap follows by IFLA_CARRIER: a VM behind it sees it go."""
    with tap(pair.host, "tap0"):
        eventually(lambda: has_carrier(pair.host, "tap0"), what="carrier")
        tool.attach(pair.host, spec("tap0", side=Side.WIRE))
        with controller(tool, pair.host, reconcile=RARELY) as daemon:
            eventually(lambda: daemon.group("tap0")["carrier"] == "follows")
            for _ in range(2):
                pair.cut(1)
                pair.cut(2)
                eventually(lambda: not has_carrier(pair.host, "tap0"), what="loss")
                pair.mend(2)
                eventually(lambda: has_carrier(pair.host, "tap0"), what="carrier")
                pair.mend(1)
                eventually(lambda: tool.status(pair.host, "tap0").active == "eth1")


def test_master_of_others_without_a_way(lab: Lab, pair: Duo, tool: Tool) -> None:
    """A veth cannot be told; `status` says so, and its carrier stays."""
    lab.veth(pair.host, "m0", pair.far, "m0-far", mac_a=MAC)
    tool.attach(pair.host, spec("m0"))
    with controller(tool, pair.host, reconcile=RARELY) as daemon:
        pair.cut(1)
        pair.cut(2)
        eventually(lambda: tool.status(pair.host, "m0").active is None)
        assert daemon.group("m0")["carrier"] == "not available"
        said = tool.command(pair.host, "status", "m0", code=2).stdout
        assert "carrier not available" in said
        assert has_carrier(pair.host, "m0")


@WAYS
def test_controller_that_stops_gives_the_carrier_back(
    pair: Duo, tool: Tool, tc: TcMode, side: Side
) -> None:
    """With all slaves dead too; and the first one that is back carries although no
    controller is there to see it (S15)."""
    with under_traffic(pair, tool, spec(tc=tc, side=side)) as run:
        pair.cut(1)
        pair.cut(2)
        run.wait(lambda: sees_no_slave(run.daemon), "that all are dead")
        if side is Side.STACK:
            run.wait(lambda: not has_carrier(pair.host, "fo0"), "no carrier")
        assert run.daemon.stop() == 0
        assert has_carrier(pair.host, "fo0")
        pair.mend(1)
        run.flow()


def test_controller_that_is_killed_does_not(pair: Duo, tool: Tool) -> None:
    """Killed while all slaves are dead it leaves the master without carrier; the next
    one gives it back, and traffic flows (S10: the exception to S15)."""
    with under_traffic(pair, tool, spec()) as run:
        pair.cut(1)
        pair.cut(2)
        run.wait(lambda: not has_carrier(pair.host, "fo0"), "no carrier")
        run.daemon.kill()
        pair.mend(2)
        assert not has_carrier(pair.host, "fo0")
        with controller(tool, pair.host, reconcile=RARELY) as second:
            run.wait(lambda: has_carrier(pair.host, "fo0"), "carrier")
            run.carries("eth2")
            assert second.group()["carrier"] == "follows"


# --- MTU ----------------------------------------------------------------------


@WAYS
def test_mtu_follows_the_master(pair: Duo, tool: Tool, tc: TcMode, side: Side) -> None:
    """Slaves and the lower end get it, up and down; traffic is not disturbed; detach
    restores what each slave had at first, not what it had in between."""
    pair.host.ip("link set eth1 mtu 1400")
    everything = ("fo0", "fo0-low", "eth1", "eth2")
    with under_traffic(pair, tool, spec(tc=tc, side=side)) as run:
        for mtu in (1300, 2000, 1450):
            for size in (mtu - 1, mtu - 2, mtu):  # faster than it is followed
                pair.host.ip(f"link set fo0 mtu {size}")
            run.wait(partial(all_have, pair.host, mtu, *everything), "MTU")
        run.flow()
        assert damage(*run.streams) == [(0, 0)] * 4
        tool.command(pair.host, "detach", "fo0")
        assert mtus(pair.host, "eth1", "eth2") == [1400, 1500]


def test_mtu_that_a_slave_refuses(pair: Duo, tool: Tool) -> None:
    """All are put back, the master too, and the log names who refused what."""
    # A macvlan refuses more than what is below it has; that is out of sight here.
    pair.far.ip(
        f"link add link br0 name narrow address {MAC} netns {pair.host.name}"
        " type macvlan"
    )
    tool.create(pair.host, spec(standbys=("narrow", "eth2")))
    everything = ("fo0", "fo0-low", "eth1", "narrow", "eth2")
    with controller(tool, pair.host, reconcile=RARELY) as daemon:
        for times in (1, 2):
            pair.host.ip("link set fo0 mtu 1600")
            eventually(partial(troubled, daemon, times), what="trouble in the log")
            line = daemon.log().splitlines()[-1]
            assert "cannot set the MTU of 'fo0' to 1600: " in line
            assert "'narrow'" in line
            assert "all are back at 1500" in line
            assert all_have(pair.host, 1500, *everything)
            for mtu in (1400, 1500):
                pair.host.ip(f"link set fo0 mtu {mtu}")
                eventually(partial(all_have, pair.host, mtu, *everything))
            eventually(lambda: daemon.status()["troubles"] == {})
    tool.command(pair.host, "detach", "fo0")
    assert mtus(pair.host, "eth1", "narrow", "eth2") == [1500] * 3
