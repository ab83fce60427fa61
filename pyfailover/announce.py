# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said to the network when another slave becomes active.

A gratuitous ARP for each IPv4 and an unsolicited Neighbour Advertisement for
each IPv6 address of the master, sent out of the master itself: they take the
way its traffic takes, so they leave by the new slave and by no other.
"""

import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from pyfailover.errors import PyFailoverError

_BROADCAST = b"\xff" * 6
_ALL_NODES = IPv6Address("ff02::1")
_ALL_NODES_MAC = b"\x33\x33\x00\x00\x00\x01"
_ETH_ARP = 0x0806
_ETH_IPV6 = 0x86DD
_ARP_REQUEST = 1
_ICMPV6 = 58
_NA_TYPE = 136
_NA_OVERRIDE = 0x20000000
_OPT_TARGET_LLADDR = 2


def gratuitous_arp(mac: bytes, address: IPv4Address) -> bytes:
    """An ARP announcement (RFC 5227 section 3), as bond_arp_send() makes it.

    Returns:
        A frame of 42 bytes: a request in which sender and target are the address.
    """
    ethernet = _BROADCAST + mac + struct.pack("!H", _ETH_ARP)
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, _ARP_REQUEST)
    ip = address.packed
    return ethernet + head + mac + ip + bytes(6) + ip


def unsolicited_na(mac: bytes, address: IPv6Address) -> bytes:
    """A Neighbour Advertisement to all nodes (RFC 4861 sections 4.4, 7.2.6).

    Returns:
        A frame of 86 bytes: override set, solicited not set, target link-layer
        address option.
    """
    option = struct.pack("!BB6s", _OPT_TARGET_LLADDR, 1, mac)
    body = struct.pack("!I16s", _NA_OVERRIDE, address.packed) + option
    length = 4 + len(body)
    pseudo = address.packed + _ALL_NODES.packed + struct.pack("!II", length, _ICMPV6)
    checksum = _checksum(pseudo + struct.pack("!BBH", _NA_TYPE, 0, 0) + body)
    icmp = struct.pack("!BBH", _NA_TYPE, 0, checksum) + body
    ipv6 = struct.pack(
        "!IHBB16s16s", 6 << 28, length, _ICMPV6, 255, address.packed, _ALL_NODES.packed
    )
    return _ALL_NODES_MAC + mac + struct.pack("!H", _ETH_IPV6) + ipv6 + icmp


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(word for (word,) in struct.iter_unpack("!H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frames(mac: str, addresses: Sequence[str]) -> list[bytes]:
    """One announcement for each address, in order."""
    raw = bytes.fromhex(mac.replace(":", ""))
    made = []
    for text in addresses:
        ip = ip_address(text)
        made.append(
            gratuitous_arp(raw, ip)
            if isinstance(ip, IPv4Address)
            else unsolicited_na(raw, ip)
        )
    return made


class Announcer:
    """A packet socket on the master with the frames made beforehand.

    Opened before a change and used right after it: between the two, frames
    from the far end still go to the old slave.

    Args:
        ifname: None where there is nothing to announce on.

    Raises:
        PyFailoverError: the interface is gone, or CAP_NET_RAW is missing.
    """

    def __init__(self, ifname: str | None, prepared: Sequence[bytes]) -> None:
        self._ifname = ifname
        self._frames = prepared
        self._socket: socket.socket | None = None
        if ifname is None or not prepared:
            return
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.bind((ifname, 0))
        except OSError as exc:
            raise PyFailoverError(
                f"cannot announce on '{ifname}': {exc.strerror}"
            ) from exc

    def __enter__(self) -> "Announcer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def send(self) -> int:
        """Send every frame once; returns how many went out."""
        if self._socket is None:
            return 0
        try:
            for frame in self._frames:
                self._socket.send(frame)
        except OSError as exc:
            raise PyFailoverError(
                f"cannot announce on '{self._ifname}': {exc.strerror}",
                hint="is it up?",
            ) from exc
        return len(self._frames)
