# SPDX-License-Identifier: GPL-2.0-or-later
"""Announcements byte for byte, against frames written out by hand."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfailover.announce import Announcer, frames, gratuitous_arp, unsolicited_na

MAC = "02:00:5e:10:00:01"
RAW = b"\x02\x00\x5e\x10\x00\x01"

# RFC 5227: an ARP request in which sender and target are the address.
ARP_192_0_2_1 = bytes.fromhex(
    "ffffffffffff 02005e100001 0806"  # to all, from us, ARP
    "0001 0800 06 04 0001"  # Ethernet, IPv4, lengths, request
    "02005e100001 c0000201"  # sender
    "000000000000 c0000201"  # target
)

# RFC 4861 section 4.4; the checksum is the inverted sum, with carry, of
#   2001 0db8 0 0 0 0 0 0001 + ff02 0 0 0 0 0 0 0001 + 0 0020 0 003a
#   + 8800 0000 + 2000 0000 + 2001 0db8 0 0 0 0 0 0001 + 0201 0200 5e10 0001.
NA_2001_DB8_1 = bytes.fromhex(
    "333300000001 02005e100001 86dd"  # to all nodes, from us, IPv6
    "60000000 0020 3a ff"  # 32 bytes of ICMPv6, hop limit 255
    "20010db8000000000000000000000001"  # from the address
    "ff020000000000000000000000000001"  # to all nodes
    "88 00 9b1a"  # Neighbour Advertisement
    "20000000"  # override, not solicited
    "20010db8000000000000000000000001"  # target
    "02 01 02005e100001"  # target link-layer address
)


def folded(data: bytes) -> int:
    """The sum of RFC 1071, as the remainder modulo 2^16 - 1 that it is."""
    return int.from_bytes(data, "big") % 0xFFFF


def test_gratuitous_arp() -> None:
    """The frame for an IPv4 address is the announcement of RFC 5227."""
    assert gratuitous_arp(RAW, IPv4Address("192.0.2.1")) == ARP_192_0_2_1


def test_unsolicited_na() -> None:
    """The frame for an IPv6 address is the advertisement of RFC 4861."""
    assert unsolicited_na(RAW, IPv6Address("2001:db8::1")) == NA_2001_DB8_1


@given(st.binary(min_size=6, max_size=6), st.ip_addresses(v=6))
def test_checksum_of_any_na(mac: bytes, address: IPv6Address) -> None:
    """Over pseudo header and message the sum comes to nothing, for any address."""
    frame = unsolicited_na(mac, address)
    ip, icmp = frame[14:54], frame[54:]
    pseudo = ip[8:40] + len(icmp).to_bytes(4, "big") + b"\0\0\0\x3a"
    assert folded(pseudo + icmp) == 0
    assert icmp[2:4] != b"\xff\xff"
    assert icmp[8:24] == ip[8:24] == address.packed
    assert icmp[26:32] == frame[6:12] == mac


@given(st.binary(min_size=6, max_size=6), st.ip_addresses(v=4))
def test_any_gratuitous_arp(mac: bytes, address: IPv4Address) -> None:
    """Address and hardware address stand in their places, all else is fixed."""
    made, plain, ip = gratuitous_arp(mac, address), ARP_192_0_2_1, address.packed
    assert made == plain[:6] + mac + plain[12:22] + mac + ip + bytes(6) + ip


def test_frames_are_in_the_order_of_the_addresses() -> None:
    """One frame for each address, each of its family, none left out or moved."""
    made = frames(MAC, ["2001:db8::1", "192.0.2.1", "2001:db8::1"])
    assert made == [NA_2001_DB8_1, ARP_192_0_2_1, NA_2001_DB8_1]
    assert frames(MAC, []) == []


@pytest.mark.parametrize(("ifname", "prepared"), [(None, [ARP_192_0_2_1]), ("lo", [])])
def test_nothing_to_announce(ifname: str | None, prepared: list[bytes]) -> None:
    """Without an interface or without frames no socket is wanted, nothing is sent."""
    with Announcer(ifname, prepared) as announcer:
        assert announcer.send() == 0
