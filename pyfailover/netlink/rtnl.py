# SPDX-License-Identifier: GPL-2.0-or-later
"""Interfaces, addresses, routes and qdiscs of one network namespace.

Synchronous, one request after the other: not to be used in a thread that runs
an event loop.
"""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyroute2
from pyroute2.netlink.exceptions import NetlinkError as _KernelError

from pyfailover.errors import NetlinkError, UnsupportedError
from pyfailover.model import Address, Filter, Hook, Link, Qdisc
from pyfailover.netlink.decode import (
    IFAPROT_KERNEL_LL,
    destination_of,
    filter_of,
    link_of,
)
from pyfailover.netlink.dump import all_addresses, all_links, qdiscs_of

_IFF_UP = 0x1
_IFF_NOARP = 0x80
_IFF_PROMISC = 0x100
_SCOPE_LINK = 253
_TABLE_LOCAL = 255
_PROTO_KERNEL = 2
_PARENT = {Hook.INGRESS: 0xFFFFFFF2, Hook.EGRESS: 0xFFFFFFF3}


class Netlink:
    """One rtnetlink socket; a context manager.

    Raises:
        NetlinkError: from every method, when the kernel refuses.
    """

    def __init__(self) -> None:
        self._ipr = pyroute2.IPRoute(strict_check=True)

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, *_: object) -> None:
        self._ipr.close()

    # --- what is there ----------------------------------------------------

    def links(self) -> dict[int, Link]:
        """All interfaces by ifindex."""
        return {link.ifindex: link for link in all_links()}

    def link(self, ifindex: int) -> Link | None:
        """One interface, or None if there is none of that index."""
        try:
            found = list(self._ipr.get_links(ifindex))
        except _KernelError:  # ENODEV
            return None
        return link_of(found[0]) if found else None

    def link_named(self, name: str) -> Link | None:
        """One interface, or None if there is none of that name."""
        try:
            found = list(self._ipr.link("get", ifname=name))
        except _KernelError:  # ENODEV
            return None
        return link_of(found[0]) if found else None

    def addresses(self, ifindex: int) -> list[Address]:
        """IPv4 and IPv6 addresses of an interface."""
        return [each for each in self.all_addresses() if each.ifindex == ifindex]

    def all_addresses(self) -> list[Address]:
        """IPv4 and IPv6 addresses of all interfaces."""
        return all_addresses()

    def routes(self, ifindex: int) -> list[str]:
        """Destinations of the routes that somebody made over an interface.

        Not those of the kernel itself: local table, connected, multicast.
        """
        messages = [
            m
            for family in (socket.AF_INET, socket.AF_INET6)
            # dump_filter: pyroute2 shall leave the choice to the kernel, which
            # knows multipath and does not send a whole table.
            for m in self._ask(
                "list routes",
                self._ipr.route,
                "dump",
                family=family,
                oif=ifindex,
                dump_filter=lambda _: True,
            )
        ]
        return [
            destination_of(m)
            for m in messages
            if m["table"] != _TABLE_LOCAL and m["proto"] != _PROTO_KERNEL
        ]

    def qdiscs(self, ifindex: int) -> list[Qdisc]:
        """Queueing disciplines of an interface."""
        return qdiscs_of(ifindex)

    def filters(self, ifindex: int, hook: Hook) -> list[Filter]:
        """Filters of the clsact (or ingress) qdisc on one hook, in any order."""
        parent = _PARENT[hook]
        return [
            filter_of(m, ifindex, hook)
            for m in self._ask(
                "list filters", self._ipr.get_filters, ifindex, parent=parent
            )
            # Without an own entry the message is a chain's or preference's head.
            if m["index"] == ifindex and m.get_attr("TCA_OPTIONS") is not None
        ]

    # --- changes ----------------------------------------------------------

    def make_veth(
        self, name: str, peer: str, *, mac: str, peer_mac: str, mtu: int, queues: int
    ) -> None:
        """Make a veth pair whose peer is a mere hand-over: NOARP, no IPv6 of its
        own. Both ends stay down."""
        numbers = {"num_tx_queues": queues, "num_rx_queues": queues}
        self._ask(
            f"make veth '{name}'",
            self._ipr.link,
            "add",
            kind="veth",
            ifname=name,
            address=mac,
            mtu=mtu,
            peer={"ifname": peer, "address": peer_mac, "mtu": mtu, **numbers},
            **numbers,
        )

    def set_noarp(self, ifindex: int) -> None:
        """Have no ARP on an interface."""
        self._set(ifindex, "noarp", flags=_IFF_NOARP, change=_IFF_NOARP)

    def delete_link(self, ifindex: int) -> None:
        """Delete an interface."""
        self._ask(f"delete interface {ifindex}", self._ipr.link, "del", index=ifindex)

    def set_up(self, ifindex: int, up: bool) -> None:
        """Administrative state."""
        flags = _IFF_UP if up else 0
        self._set(ifindex, "up" if up else "down", flags=flags, change=_IFF_UP)

    def set_carrier(self, ifindex: int, on: bool) -> None:
        """Carrier, of a driver that lets itself be told (tap, dummy).

        Raises:
            UnsupportedError: the driver does not.
        """
        try:
            # In capitals: pyroute2 leaves out what it calls `carrier`.
            list(self._ipr.link("set", index=ifindex, CARRIER=int(on)))
        except _KernelError as exc:
            if exc.code == errno.EOPNOTSUPP:
                raise UnsupportedError(
                    f"cannot set the carrier of interface {ifindex}: its driver "
                    "does not let it be set"
                ) from exc
            raise NetlinkError(
                f"cannot set the carrier of interface {ifindex}: "
                f"{os.strerror(exc.code)}"
            ) from exc

    def set_promisc(self, ifindex: int, on: bool) -> None:
        """Take frames for everybody."""
        flags = _IFF_PROMISC if on else 0
        self._set(ifindex, "promisc", flags=flags, change=_IFF_PROMISC)

    def set_mtu(self, ifindex: int, mtu: int) -> None:
        """MTU in bytes, without the Ethernet header."""
        self._set(ifindex, f"mtu {mtu}", mtu=mtu)

    def set_mac(self, ifindex: int, mac: str) -> None:
        """Hardware address."""
        self._set(ifindex, f"address {mac}", address=mac)

    def set_addrgenmode(self, ifindex: int, mode: int) -> None:
        """How the kernel makes IPv6 link-local addresses; 1 is not at all."""
        inet6 = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", mode)]}
        self._set(
            ifindex,
            f"addrgenmode {mode}",
            IFLA_AF_SPEC={"attrs": [("AF_INET6", inet6)]},
        )

    def add_address(self, ifindex: int, address: str, prefixlen: int) -> None:
        """Give an interface an IPv6 link-local address, as addrconf would."""
        self._ask(
            f"add address {address}",
            self._ipr.addr,
            "replace",
            index=ifindex,
            address=address,
            prefixlen=prefixlen,
            scope=_SCOPE_LINK,
            proto=IFAPROT_KERNEL_LL,
        )

    def flush_ipv6(self, ifindex: int) -> None:
        """Take all IPv6 addresses off an interface, in silence.

        Deleting one makes the kernel send a report of the multicast group that it
        leaves; switching IPv6 off (addrconf_ifdown) does not.
        """
        self._disable_ipv6(ifindex, 1)
        self._disable_ipv6(ifindex, 0)

    def enable_ipv6(self, ifindex: int) -> None:
        """Have IPv6 on an interface, as before flush_ipv6()."""
        self._disable_ipv6(ifindex, 0)

    def _disable_ipv6(self, ifindex: int, value: int) -> None:
        link = self.link(ifindex)
        if link is None:
            raise NetlinkError(f"cannot flush interface {ifindex}: it is gone")
        # /proc/sys/net shows the namespace of the thread that looks.
        path = Path("/proc/sys/net/ipv6/conf") / link.name / "disable_ipv6"
        try:
            if path.read_text().strip() != str(value):
                path.write_text(str(value))
        except OSError as exc:
            raise NetlinkError(
                f"cannot flush IPv6 addresses of '{link.name}': {exc.strerror}"
            ) from exc

    def _set(self, ifindex: int, what: str, **attributes: object) -> None:
        try:
            name = f"'{socket.if_indextoname(ifindex)}'"
        except OSError:
            name = f"interface {ifindex}"
        self._ask(
            f"set {what} on {name}",
            self._ipr.link,
            "set",
            index=ifindex,
            **attributes,
        )

    def _ask(
        self, what: str, call: Callable[..., Any], *args: object, **kwargs: object
    ) -> list[Any]:
        try:
            return list(call(*args, **kwargs))
        except _KernelError as exc:
            raise NetlinkError(f"cannot {what}: {os.strerror(exc.code)}") from exc
