# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said to the network when another slave becomes active.

A gratuitous ARP for each IPv4 and an unsolicited Neighbour Advertisement for
each IPv6 address of the master and of the VLANs and macvlans on it, sent out of
the interface that has the address: they take the way its traffic takes, so they
leave by the new slave and by no other, with a VLAN's tag where there is one. And
a RARP request for everybody else who transmits through the master (a VM, a
container, what is behind a bridge), straight out of the new slave.
"""

import socket
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol

from pyfailover.errors import PyFailoverError
from pyfailover.model import Address, Link

_BROADCAST = b"\xff" * 6
_ALL_NODES = IPv6Address("ff02::1")
_ALL_NODES_MAC = b"\x33\x33\x00\x00\x00\x01"
_ETH_ARP = 0x0806
_ETH_IPV6 = 0x86DD
_ETH_RARP = 0x8035
_ETH_VLAN = 0x8100
_RARP_REQUEST = 3
_MIN_FRAME = 60  # without the checksum
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


def reverse_arp(mac: bytes, vlan: int = 0) -> bytes:
    """A reverse ARP request (RFC 903) for oneself, as Open vSwitch's compose_rarp()
    makes it: nobody answers, every switch on the way learns.

    Args:
        vlan: of an IEEE 802.1Q tag; 0: none.

    Returns:
        A frame of 60 or 64 bytes.
    """
    tag = struct.pack("!HH", _ETH_VLAN, vlan) if vlan else b""
    ethernet = _BROADCAST + mac + tag + struct.pack("!H", _ETH_RARP)
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, _RARP_REQUEST)
    return (ethernet + head + mac + bytes(4) + mac + bytes(4)).ljust(
        _MIN_FRAME + len(tag), b"\0"
    )


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(word for (word,) in struct.iter_unpack("!H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """An interface that the network knows by its addresses."""

    name: str
    mac: str
    addresses: tuple[str, ...]


def faces(
    master: Link, links: Mapping[int, Link], addresses: Iterable[Address]
) -> list[Face]:
    """A master and what stands on it, as far as it is up and has addresses."""
    shown = {link.ifindex: link for link in (master, *uppers(master.ifindex, links))}
    by_link: dict[int, list[str]] = {}
    for each in addresses:
        if each.ifindex in shown and not each.tentative:
            by_link.setdefault(each.ifindex, []).append(each.address)
    return [
        Face(name=link.name, mac=link.mac, addresses=tuple(by_link[ifindex]))
        for ifindex, link in shown.items()
        if link.up and ifindex in by_link
    ]


def uppers(ifindex: int, links: Mapping[int, Link]) -> Iterator[Link]:
    """What stands on an interface, directly or not: VLANs, macvlans, ipvlans."""
    for link in links.values():
        if link.lower == ifindex:
            yield link
            yield from uppers(link.ifindex, links)


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


class Source(Protocol):
    """Somebody who transmits through a master."""

    @property
    def mac(self) -> str:
        """His address."""

    @property
    def vlan(self) -> int:
        """Of his frames' tag; 0: they have none."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """Frames, made beforehand, and the interface that they leave by."""

    ifname: str
    frames: tuple[bytes, ...]


def announcements(shown: Iterable[Face]) -> list[Announcement]:
    """What is to be said for some faces."""
    return [
        Announcement(face.name, tuple(frames(face.mac, face.addresses)))
        for face in shown
    ]


def others(sources: Iterable[Source], own: Collection[str], slave: str) -> Announcement:
    """What is to be said for those who transmit through a master and are not it.

    Args:
        own: MAC addresses of the master and of what stands on it.
        slave: name of the active one.
    """
    made = (
        reverse_arp(bytes.fromhex(each.mac.replace(":", "")), each.vlan)
        for each in sources
        if each.mac not in own
    )
    return Announcement(slave, tuple(made))


class Announcer:
    """A packet socket for all interfaces of a namespace; a context manager.

    Opened once, and long before it is needed: to close one the kernel waits for
    all CPUs (packet_release), and until the announcements are out frames from the
    far end still go to the old slave.

    Raises:
        PyFailoverError: CAP_NET_RAW is missing.
    """

    def __init__(self) -> None:
        try:
            # Without a protocol it hears nothing.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except OSError as exc:
            raise PyFailoverError(
                f"cannot announce anything: {exc.strerror}", hint="run as root"
            ) from exc
        self._socket.setblocking(False)

    def __enter__(self) -> "Announcer":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, made: Iterable[Announcement]) -> int:
        """Send every frame once; returns how many went out.

        Raises:
            PyFailoverError: an interface refused; those of the others are sent.
        """
        sent, failure = 0, None
        for each in made:
            try:
                for frame in each.frames:
                    self._socket.sendto(frame, (each.ifname, 0))
                    sent += 1
            except OSError as exc:
                failure = PyFailoverError(
                    f"cannot announce on '{each.ifname}': {exc.strerror}",
                    hint="is it up?",
                )
        if failure is not None:
            raise failure
        return sent
