# SPDX-License-Identifier: GPL-2.0-or-later
"""All interfaces, addresses and qdiscs of a network namespace, by dumps.

Its secret is the wire format (rtnetlink(7)), read by hand: pyroute2 takes 0.4 ms
for a message, the kernel dumps all or none, and every change of a group asks for
them, so hundreds of groups would take minutes to start. What a field means is as
in netlink.decode. Messages that were seen before are not read again.
"""

import os
import socket
import struct
import sys
from collections.abc import Iterator
from functools import lru_cache
from ipaddress import ip_address

from pyfailover.errors import NetlinkError
from pyfailover.model import Address, Link, Qdisc
from pyfailover.netlink.decode import (
    IFF_LOOPBACK,
    IFF_PROMISC,
    IFF_UP,
    PAIRS,
    made_address,
)

_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_IFINFO = struct.Struct("=BBHiII")  # ifinfomsg
_IFADDR = struct.Struct("=BBBBI")  # ifaddrmsg
_TCMSG = struct.Struct("=BBHiIII")
_IFSTATS = struct.Struct("=B3xII")  # if_stats_msg
_STATS_64 = struct.Struct("=8Q")  # head of rtnl_link_stats64
_TX_DROPPED = 7  # in there
_STATS_LINK_64, _LINK_64_ALONE = 1, 1 << 0  # IFLA_STATS_LINK_64, and its filter
_EXT_MASK = struct.Struct("=HHI")
_ATTRIBUTE = struct.Struct("=HH")
_ERRNO = struct.Struct("=i")
_RTM_NEWLINK, _RTM_GETLINK = 16, 18
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_RTM_NEWQDISC, _RTM_GETQDISC = 36, 38
_RTM_NEWSTATS, _RTM_GETSTATS = 92, 94
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_DUMP = 0x301  # with NLM_F_REQUEST
_NLM_F_DUMP_INTR = 0x10
_TYPE = 0x3FFF  # without NLA_F_NESTED
_AF_INET6 = 10
_SKIP_STATS = 1 << 3  # RTEXT_FILTER_SKIP_STATS
_ROOM = 1 << 16
_TRIES = 8
_REMEMBERED = 4096  # messages of a kind

# IFLA_*, and what is nested in them; IFA_*, TCA_*
_ADDRESS, _IFNAME, _MTU, _LINK, _MASTER, _LINKINFO = 1, 3, 4, 5, 10, 18
_AF_SPEC, _MASK, _CARRIER, _LINK_NETNSID = 26, 29, 33, 37
_XDP, _PROP_LIST, _ALT_IFNAME, _PERM_ADDRESS = 43, 52, 53, 54
_INFO_KIND, _XDP_PROG_ID, _ADDR_GEN_MODE = 1, 4, 8
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS, _IFA_PROTO = 1, 2, 8, 11
_TCA_KIND = 1


def all_links() -> list[Link]:
    """The interfaces of the calling thread's namespace.

    Raises:
        NetlinkError: the kernel refused.
    """
    request = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0)
    request += _EXT_MASK.pack(_EXT_MASK.size, _MASK, _SKIP_STATS)
    found = _dump("list interfaces", _RTM_GETLINK, request, _RTM_NEWLINK)
    return [_link(body) for body in found]


def all_addresses() -> list[Address]:
    """The IPv4 and IPv6 addresses of the calling thread's namespace.

    Raises:
        NetlinkError: the kernel refused.
    """
    request = _IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    found = _dump("list addresses", _RTM_GETADDR, request, _RTM_NEWADDR)
    return [_address(body) for body in found]


def dropped_on_transmit() -> dict[int, int]:
    """Packets that the interfaces of the calling thread's namespace could not
    transmit, by ifindex.

    Raises:
        NetlinkError: the kernel refused.
    """
    request = _IFSTATS.pack(socket.AF_UNSPEC, 0, _LINK_64_ALONE)
    found = {}
    for body in _dump("read counters", _RTM_GETSTATS, request, _RTM_NEWSTATS):
        _, ifindex, _ = _IFSTATS.unpack_from(body)
        stats = _attributes(body, _IFSTATS.size).get(_STATS_LINK_64)
        if stats is not None:
            found[ifindex] = _STATS_64.unpack_from(stats)[_TX_DROPPED]
    return found


def qdiscs_of(ifindex: int) -> list[Qdisc]:
    """The queueing disciplines of an interface of the calling thread's namespace.

    Raises:
        NetlinkError: the kernel refused.
    """
    request = _TCMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0, 0)
    found = []
    for body in _dump("list qdiscs", _RTM_GETQDISC, request, _RTM_NEWQDISC):
        _, _, _, index, handle, parent, _ = _TCMSG.unpack_from(body)
        if index == ifindex:
            kind = _text(_attributes(body, _TCMSG.size)[_TCA_KIND])
            made = Qdisc(ifindex=index, kind=kind, handle=handle, parent=parent)
            found.append(made)
    return found


def _dump(what: str, ask: int, request: bytes, answer: int) -> list[bytes]:
    """The bodies of all messages of a kind."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as asked:
            for _ in range(_TRIES):
                size = _HEADER.size + len(request)
                asked.send(_HEADER.pack(size, ask, _NLM_F_DUMP, 0, 0) + request)
                found, whole = _answer(asked, answer)
                if whole:
                    break  # else something came or went meanwhile
            return found
    except OSError as exc:
        raise NetlinkError(f"cannot {what}: {exc.strerror}") from exc


def _answer(asked: socket.socket, answer: int) -> tuple[list[bytes], bool]:
    """One dump, and whether it is of one moment."""
    found: list[bytes] = []
    whole = True
    while True:
        data = asked.recv(_ROOM)
        start = 0
        while start < len(data):
            size, kind, flags, _, _ = _HEADER.unpack_from(data, start)
            body = data[start + _HEADER.size : start + size]
            whole = whole and not flags & _NLM_F_DUMP_INTR
            if kind == _NLMSG_DONE:
                return found, whole
            if kind == _NLMSG_ERROR:
                code = -_ERRNO.unpack_from(body)[0]
                raise OSError(code, os.strerror(code))
            if kind == answer:
                found.append(body)
            start += size + 3 & ~3


@lru_cache(_REMEMBERED)
def _link(body: bytes) -> Link:
    """An interface, of a message that is like others: without statistics."""
    return link_of_body(body)


def link_of_body(body: bytes) -> Link:
    """An interface, of what is behind the header of an RTM_NEWLINK."""
    _, _, arptype, ifindex, flags, _ = _IFINFO.unpack_from(body)
    has = _attributes(body, _IFINFO.size)
    kind = _attributes(has.get(_LINKINFO, b"")).get(_INFO_KIND)
    kind_name = None if kind is None else _text(kind)
    other = _number(has.get(_LINK))
    if _LINK_NETNSID in has or other == ifindex:
        other = None
    inet6 = _attributes(has.get(_AF_SPEC, b"")).get(_AF_INET6, b"")
    properties = _each_attribute(has.get(_PROP_LIST, b""))
    perm = has.get(_PERM_ADDRESS)
    return Link(
        ifindex=ifindex,
        name=_text(has.get(_IFNAME, b"")),
        mac=has.get(_ADDRESS, b"").hex(":"),
        mtu=_number(has.get(_MTU)) or 0,
        up=bool(flags & IFF_UP),
        carrier=has.get(_CARRIER) == b"\1",
        loopback=bool(flags & IFF_LOOPBACK),
        arptype=arptype,
        kind=kind_name,
        master=_number(has.get(_MASTER)),
        lower=None if kind_name in PAIRS else other,
        peer=other if kind_name in PAIRS else None,
        addrgenmode=_number(_attributes(inet6).get(_ADDR_GEN_MODE)),
        promisc=bool(flags & IFF_PROMISC),
        xdp_prog=_number(_attributes(has.get(_XDP, b"")).get(_XDP_PROG_ID)),
        altnames=tuple(_text(raw) for key, raw in properties if key == _ALT_IFNAME),
        perm_mac=None if perm is None else perm.hex(":"),
    )


@lru_cache(_REMEMBERED)
def _address(body: bytes) -> Address:
    """An address, of a message's body."""
    _, prefixlen, flags, _, ifindex = _IFADDR.unpack_from(body)
    has = _attributes(body, _IFADDR.size)
    return made_address(
        ifindex=ifindex,
        ip=ip_address(has.get(_IFA_LOCAL) or has[_IFA_ADDRESS]),
        prefixlen=prefixlen,
        flags=_number(has.get(_IFA_FLAGS)) or flags,
        proto=_number(has.get(_IFA_PROTO)),
    )


def _each_attribute(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute from a place on."""
    while start + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, start)
        if size < _ATTRIBUTE.size:
            return
        yield kind & _TYPE, data[start + _ATTRIBUTE.size : start + size]
        start += size + 3 & ~3


def _attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """The same by type, where each is there once."""
    return dict(_each_attribute(data, start))


def _number(raw: bytes | None) -> int | None:
    return None if raw is None else int.from_bytes(raw, sys.byteorder)


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="surrogateescape")
