# SPDX-License-Identifier: GPL-2.0-or-later
"""Tiny Ethernet frames, written out by hand: no product code makes them."""

import struct
from ipaddress import IPv4Address, IPv6Address

ARP, IPV4, IPV6, VLAN = 0x0806, 0x0800, 0x86DD, 0x8100
SLOW, EAPOL, LLDP = 0x8809, 0x888E, 0x88CC
EXPERIMENTAL = 0x88B5  # IEEE 802: for local use; no stack answers it
MIN_FRAME = 60  # without the checksum

BROADCAST = "ff:ff:ff:ff:ff:ff"
MULTICAST = "33:33:00:00:00:01"
PEER = "02:00:5e:20:00:02"  # the far end, source of most frames here


def raw(mac: str) -> bytes:
    """A hardware address as its six bytes."""
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(
    dst: str, proto: int, payload: bytes = b"", *, src: str = PEER, size: int = 0
) -> bytes:
    """A frame, with zeros up to `size` bytes."""
    head = raw(dst) + raw(src) + struct.pack("!H", proto)
    return (head + payload).ljust(size, b"\0")


def udp4(dst: str, *, src: str = PEER, payload: bytes = b"97") -> bytes:
    """UDP from 192.0.2.2 to 192.0.2.1; checksums left out."""
    udp = struct.pack("!HHHH", 9000, 9001, 8 + len(payload), 0) + payload
    ends = IPv4Address("192.0.2.2").packed + IPv4Address("192.0.2.1").packed
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + ends
    return ethernet(dst, IPV4, ip + udp, src=src, size=MIN_FRAME)


def udp6(dst: str, *, src: str = PEER, payload: bytes = b"97") -> bytes:
    """UDP from 2001:db8::2 to 2001:db8::1; checksum left out."""
    udp = struct.pack("!HHHH", 9000, 9001, 8 + len(payload), 0) + payload
    ends = IPv6Address("2001:db8::2").packed + IPv6Address("2001:db8::1").packed
    ip = struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + ends
    return ethernet(dst, IPV6, ip + udp, src=src, size=MIN_FRAME)


def arp_request(*, src: str = PEER) -> bytes:
    """Who has 192.0.2.1? Tell 192.0.2.2, by broadcast."""
    body = struct.pack("!HHBBH", 1, IPV4, 6, 4, 1)
    body += raw(src) + IPv4Address("192.0.2.2").packed
    body += bytes(6) + IPv4Address("192.0.2.1").packed
    return ethernet(BROADCAST, ARP, body, src=src, size=MIN_FRAME)


def tagged(frame: bytes, vid: int = 97) -> bytes:
    """The frame with a VLAN tag in it."""
    return frame[:12] + struct.pack("!HH", VLAN, vid) + frame[12:]


def control(dst: str, proto: int = LLDP, *, src: str = PEER) -> bytes:
    """A control frame of the given type to an address, link-local or not."""
    return ethernet(dst, proto, b"\x02\x07\x04" + raw(src), src=src, size=MIN_FRAME)


def bpdu(dst: str = "01:80:c2:00:00:00", *, src: str = PEER) -> bytes:
    """A spanning tree BPDU: IEEE 802.3, the type field is a length."""
    return ethernet(dst, 38, b"\x42\x42\x03" + bytes(35), src=src, size=MIN_FRAME)
