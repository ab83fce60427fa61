# SPDX-License-Identifier: GPL-2.0-or-later
"""pyroute2's messages as our own frozen values.

`msg["state"]` is never read: it is the administrative state alone.
"""

import os
import sys
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from pyfailover.model import Address, Filter, Hook, Link

IFF_UP = 0x1
_TCA_BPF_ID = 11
IFF_LOOPBACK = 0x8
IFF_PROMISC = 0x100
_IFA_F_DADFAILED = 0x08
_IFA_F_TENTATIVE = 0x40
_IFA_F_PERMANENT = 0x80
IFAPROT_KERNEL_LL = 3  # Linux 5.18
# Before 5.18 the kernel does not say who made an address; a permanent fe80::/64
# is then taken for its own.
_TELLS_WHO = tuple(map(int, os.uname().release.split(".")[:2])) >= (5, 18)
# Kinds whose IFLA_LINK is the other end of a pair, not a device below them.
PAIRS = ("veth", "netkit", "vxcan")


def link_of(message: Any) -> Link:
    """An interface, of an RTM_NEWLINK."""
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info else None
    other = message.get_attr("IFLA_LINK")
    if message.get_attr("IFLA_LINK_NETNSID") is not None or other == message["index"]:
        other = None
    xdp = message.get_attr("IFLA_XDP")
    props = message.get_attr("IFLA_PROP_LIST")
    return Link(
        ifindex=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU") or 0,
        up=bool(message["flags"] & IFF_UP),
        carrier=message.get_attr("IFLA_CARRIER") == 1,
        loopback=bool(message["flags"] & IFF_LOOPBACK),
        arptype=message["ifi_type"],
        kind=kind,
        master=message.get_attr("IFLA_MASTER"),
        lower=None if kind in PAIRS else other,
        peer=other if kind in PAIRS else None,
        addrgenmode=message.get_nested(
            "IFLA_AF_SPEC", "AF_INET6", "IFLA_INET6_ADDR_GEN_MODE"
        ),
        promisc=bool(message["flags"] & IFF_PROMISC),
        xdp_prog=xdp.get_attr("IFLA_XDP_PROG_ID") if xdp else None,
        altnames=tuple(props.get_attrs("IFLA_ALT_IFNAME")) if props else (),
        perm_mac=message.get_attr("IFLA_PERM_ADDRESS"),
    )


def address_of(message: Any) -> Address:
    """An address, of an RTM_NEWADDR."""
    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return made_address(
        ifindex=message["index"],
        ip=ip_address(text),
        prefixlen=message["prefixlen"],
        flags=message.get_attr("IFA_FLAGS") or message["flags"],
        proto=message.get_attr("IFA_PROTO"),
    )


def made_address(
    *,
    ifindex: int,
    ip: IPv4Address | IPv6Address,
    prefixlen: int,
    flags: int,
    proto: int | None,
) -> Address:
    """An address, of what the kernel says of it."""
    link_local = ip.version == 6 and ip.is_link_local
    by_kernel = link_local and (
        proto == IFAPROT_KERNEL_LL
        or (not _TELLS_WHO and bool(flags & _IFA_F_PERMANENT))
    )
    return Address(
        ifindex=ifindex,
        address=str(ip),
        prefixlen=prefixlen,
        ipv6=ip.version == 6,
        link_local=link_local,
        by_kernel=by_kernel,
        tentative=bool(flags & (_IFA_F_TENTATIVE | _IFA_F_DADFAILED)),
    )


def filter_of(message: Any, ifindex: int, hook: Hook) -> Filter:
    """A filter, of an RTM_NEWTFILTER."""
    options = message.get_attr("TCA_OPTIONS")
    prog_id = _bpf_id(options) if hasattr(options, "get_attr") else None
    return Filter(
        ifindex=ifindex,
        hook=hook,
        priority=message["info"] >> 16,
        handle=message["handle"],
        kind=message.get_attr("TCA_KIND"),
        prog_id=prog_id,
    )


def _bpf_id(options: Any) -> int | None:
    """TCA_BPF_ID, which pyroute2 does not know by name."""
    for name, value in options["attrs"]:
        if name == "UNKNOWN" and value["header"]["type"] == _TCA_BPF_ID:
            start = value.offset + 4  # behind the header
            return int.from_bytes(value.data[start : start + 4], sys.byteorder)
    return None


def destination_of(message: Any) -> str:
    """The destination of a route, of an RTM_NEWROUTE."""
    destination = message.get_attr("RTA_DST")
    return "default" if destination is None else f"{destination}/{message['dst_len']}"
