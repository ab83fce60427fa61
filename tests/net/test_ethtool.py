# SPDX-License-Identifier: GPL-2.0-or-later
"""What devices say by ioctl, against what `ethtool` and the lab know."""

import errno
import fcntl
import logging
import struct
from ctypes import c_uint32, memmove

import pytest

from pyfailover.errors import ConfigError
from pyfailover.ethtool import Driver, Ethtool, Offloads, Speed
from pyfailover.lab import Lab, Namespace, eventually
from pyfailover.netlink import features
from pyfailover.netlink.features import xdp_features
from pyfailover.netlink.rtnl import Netlink
from tests.support.topology import Duo


def asking(ns: Namespace) -> Ethtool:
    """An Ethtool of a namespace, used from outside of it."""
    with ns.enter():
        return Ethtool()


def test_ready(pair: Duo) -> None:
    """A device is ready if it is up with carrier, at once when that changes."""
    with asking(pair.host) as ethtool:
        assert ethtool.ready("eth1") is False
        pair.host.ip("link set eth1 up")
        eventually(lambda: ethtool.ready("eth1") is True, what="carrier")
        pair.cut(1)
        assert ethtool.ready("eth1") is False
        pair.mend(1)
        assert ethtool.ready("eth1") is True
        pair.host.ip("link set eth1 down")
        assert ethtool.ready("eth1") is False


def test_ready_is_not_late(lab: Lab) -> None:
    """Where netlink tells of a loss of carrier only later, as on a veth pair of
    equal ifindexes, asking tells it at once, every time."""
    a, b = lab.namespace("a"), lab.namespace("b")
    lab.veth(a, "v0", b, "v0", index_a=97, index_b=97)
    with asking(a) as ethtool:
        eventually(lambda: ethtool.ready("v0") is True, what="carrier")
        for _ in range(23):
            b.ip("link set v0 down")
            assert ethtool.ready("v0") is False
            b.ip("link set v0 up")
            assert ethtool.ready("v0") is True


def test_devices_that_come_and_go(pair: Duo) -> None:
    """A device that is absent, gone, or renamed is None; one that comes under a
    known name is seen."""
    pair.host.ip("link set eth1 up")
    with asking(pair.host) as ethtool:
        assert ethtool.ready("eth9") is None
        eventually(lambda: ethtool.ready("eth1") is True, what="carrier")
        pair.host.ip("link set eth1 down")
        pair.host.ip("link set eth1 name eth9 up")
        assert ethtool.ready("eth1") is None
        assert ethtool.ready("eth9") is True
        pair.host.ip("link del eth9")
        assert ethtool.ready("eth9") is None
        assert ethtool.driver("eth9") is None


def test_namespace(pair: Duo) -> None:
    """The socket keeps the namespace in which it was made."""
    with asking(pair.host) as ethtool, pair.far.enter():
        assert ethtool.ready("p1") is None
        assert ethtool.ready("eth1") is False


def test_device_that_does_not_tell(lab: Lab) -> None:
    """A driver without a carrier of its own says nothing, up or down."""
    ns = lab.namespace("a")
    ns.ip("link add mute0 up type ifb")
    with asking(ns) as ethtool:
        assert ethtool.ready("mute0") is None
        assert ethtool.driver("mute0") == Driver(name="ifb", bus="")
        assert ethtool.speed("mute0") == Speed(mbit=0, full_duplex=False)


def test_driver_and_speed(pair: Duo) -> None:
    """A veth says its driver, that it is on no bus, and its nominal speed."""
    shown = pair.host.run("ethtool", "eth1").stdout
    assert "Speed: 10000Mb/s" in shown
    with asking(pair.host) as ethtool:
        assert ethtool.driver("eth1") == Driver(name="veth", bus="")
        assert ethtool.speed("eth1") == Speed(mbit=10_000, full_duplex=True)


def test_unknown_speed(lab: Lab) -> None:
    """A bridge without ports that are up does not know its speed."""
    ns = lab.namespace("a")
    lab.bridge(ns, "br0")
    with asking(ns) as ethtool:
        assert ethtool.speed("br0") == Speed(mbit=0, full_duplex=False)


@pytest.mark.parametrize("on", [True, False])
def test_offloads(pair: Duo, on: bool) -> None:
    """GRO is as it was set; a veth has no LRO."""
    pair.host.run("ethtool", "-K", "eth1", "gro", "on" if on else "off")
    with asking(pair.host) as ethtool:
        assert ethtool.offloads("eth1") == Offloads(gro=on, lro=False)


def test_what_no_device_here_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """LRO, and speeds above 65535 Mbit/s, which the kernel tells in two halves."""
    answers = {
        0x25: bytes([0x25, 0, 0, 0, 0, 0x80, 0, 0]),  # GFLAGS: ETH_FLAG_LRO
        0x01: struct.pack("=12xH B 13x H 14x", 0x86A0, 1, 1),  # GSET: 100000, full
    }

    def ioctl(_: int, request: int, ifreq: bytes) -> int:
        assert request == 0x8946
        name, address = struct.unpack("=16sQ16x", ifreq)
        assert name.rstrip(b"\0") == b"eth7"
        command = c_uint32.from_address(address).value
        if command not in answers:
            raise OSError(errno.EOPNOTSUPP, "")
        memmove(address, answers[command], len(answers[command]))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with Ethtool() as ethtool:
        assert ethtool.offloads("eth7") == Offloads(gro=False, lro=True)
        assert ethtool.speed("eth7") == Speed(mbit=100_000, full_duplex=True)


def test_names(lab: Lab) -> None:
    """A name that is too long is refused, not cut to another device's."""
    with asking(lab.namespace("a")) as ethtool:
        with pytest.raises(ConfigError, match="not an interface name"):
            ethtool.ready("abcdefghijklmnop")
        with pytest.raises(ConfigError, match="not an interface name"):
            ethtool.driver("")


def test_closed(lab: Lab) -> None:
    """A closed one raises instead of asking through somebody else's descriptor."""
    ethtool = asking(lab.namespace("a"))
    ethtool.close()
    with pytest.raises(ValueError, match="negative"):
        ethtool.ready("lo")


def test_xdp_features(pair: Duo) -> None:
    """A veth can do XDP, and can be redirected to once its other end has GRO on; lo
    can do nothing. Every interface of the namespace is told of."""
    eth1 = pair.host.ifindex("eth1")
    with pair.host.enter():
        before = xdp_features()
        if before is None:
            pytest.skip("the netdev family came with Linux 6.3")
        with Netlink() as netlink:
            assert set(before) == set(netlink.links())
        pair.far.run("ethtool", "-K", "p1", "gro", "on")
        after = xdp_features()
    assert before[1] == frozenset()
    assert {"basic", "redirect"} <= before[eth1]
    assert "ndo_xmit" not in before[eth1]
    assert after is not None
    assert "ndo_xmit" in after[eth1]


def test_no_xdp_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without the family has none to tell, and nothing is logged as if that
    were an error."""
    complaints: list[str] = []
    monkeypatch.setattr(logging, "error", lambda said: complaints.append(said))
    monkeypatch.setattr(features, "_FAMILY", "nonesuch")
    assert xdp_features() is None
    assert complaints == []
