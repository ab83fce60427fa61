# SPDX-License-Identifier: GPL-2.0-or-later
"""Topologies as values with named ends."""

import json
from dataclasses import dataclass
from pathlib import Path

from pyfailover.lab import Lab, Namespace, eventually

HOST_V4, FAR_V4 = "192.0.2.1", "192.0.2.2"
HOST_V6, FAR_V6 = "2001:db8::1", "2001:db8::2"
MAC = "02:00:5e:10:00:01"


@dataclass(frozen=True)
class Duo:
    """A host with slaves eth1, eth2, … to the ports of one far-end bridge.

    host                      far
    fo0 . eth1 ------------ p1 \\
        . eth2 ------------ p2 - br0  192.0.2.2, 2001:db8::2
    192.0.2.1, 2001:db8::1 go on the master (or behind it, side wire).
    The slaves have the same MAC address and are down, as a NIC is at first.
    """

    lab: Lab
    host: Namespace
    far: Namespace
    slaves: tuple[str, ...]

    def address(self, dev: str = "fo0", ns: Namespace | None = None) -> None:
        """Give the host's addresses to a device."""
        self.lab.address(ns or self.host, dev, f"{HOST_V4}/24", f"{HOST_V6}/64")

    def plug(
        self,
        number: int,
        *,
        name: str | None = None,
        mac: str = MAC,
        mtu: int | None = None,
        index: int | None = None,
        far_index: int | None = None,
    ) -> None:
        """Make slave ethN, or of another name, with its far end; a hot-plug if it was
        there before. For equal indexes see Lab.veth()."""
        port = f"p{number}"
        self.lab.veth(
            self.host,
            name or f"eth{number}",
            self.far,
            port,
            mac_a=mac,
            mtu=mtu,
            index_a=index,
            index_b=far_index,
            up=False,
        )
        self.far.ip(f"link set {port} master br0 up")

    def settle(self) -> None:
        """Wait until the far bridge floods to every port: the kernel tells it of a
        carrier a moment after the slave was set up."""

        def forwarding() -> bool:
            ports = json.loads(self.far.ip("-d -j link show master br0"))
            states = {p["linkinfo"]["info_slave_data"]["state"] for p in ports}
            return states == {"forwarding"}

        eventually(forwarding, what="forwarding on all ports")

    def unplug(self, number: int) -> None:
        """Delete slave ethN."""
        self.host.ip(f"link del eth{number}")

    def cut(self, number: int) -> None:
        """Take the carrier of slave ethN."""
        self.far.ip(f"link set p{number} down")

    def mend(self, number: int) -> None:
        """Give slave ethN its carrier back."""
        self.far.ip(f"link set p{number} up")


def duo(
    lab: Lab, *, slaves: int = 2, mtu: int | None = None, equal_macs: bool = True
) -> Duo:
    """Make a Duo; MTU of all devices but the bridge's follows its ports."""
    host, far = lab.namespace("host"), lab.namespace("far")
    lab.bridge(far, "br0")
    made = Duo(lab, host, far, tuple(f"eth{n + 1}" for n in range(slaves)))
    for number in range(1, slaves + 1):
        mac = MAC if equal_macs else f"02:00:5e:10:00:{number:02x}"
        made.plug(number, mac=mac, mtu=mtu)
    lab.address(far, "br0", f"{FAR_V4}/24", f"{FAR_V6}/64")
    return made


def guest(pair: Duo) -> Namespace:
    """Somebody behind a wire master: `tap0` on the host, `eth0` with the host's
    addresses in a namespace of his own."""
    ns = pair.lab.namespace("guest")
    pair.lab.veth(pair.host, "tap0", ns, "eth0")
    pair.address("eth0", ns)
    return ns


# What Linux does of its own accord on an interface (Documentation/networking/
# ip-sysctl.rst); the lab switches it off.
_TALKATIVE = {
    "accept_dad": 1,
    "dad_transmits": 1,
    "accept_ra": 1,
    "router_solicitations": -1,
    "router_solicitation_delay": 0,
    "mldv1_unsolicited_report_interval": 10_000,
    "mldv2_unsolicited_report_interval": 100,  # 1000, for short tests
}


def make_talkative(ns: Namespace, *devices: str) -> None:
    """Give devices, and those to come, the kernel's own habits back: duplicate
    address detection, router solicitations, repeated MLD reports."""
    with ns.enter():
        for name in ("default", *devices):
            for key, value in _TALKATIVE.items():
                Path(f"/proc/sys/net/ipv6/conf/{name}/{key}").write_text(str(value))
