# SPDX-License-Identifier: GPL-2.0-or-later
"""Announcements byte for byte, against frames written out by hand."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfailover.announce import (
    Announcement,
    Face,
    announcements,
    faces,
    frames,
    gratuitous_arp,
    others,
    reverse_arp,
    unsolicited_na,
)
from pyfailover.model import Address, Link

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


def test_announcements_leave_by_the_interface_of_their_face() -> None:
    """One for each face, in order, with the frames of its addresses."""
    made = announcements(
        [
            Face(name="fo0", mac=MAC, addresses=("192.0.2.1", "2001:db8::1")),
            Face(name="fo0.10", mac=MAC, addresses=()),
        ]
    )
    assert made == [
        Announcement("fo0", (ARP_192_0_2_1, NA_2001_DB8_1)),
        Announcement("fo0.10", ()),
    ]


@pytest.mark.parametrize(
    ("vlan", "tag"), [(0, ""), (97, "81000061"), (4095, "81000fff")]
)
def test_reverse_arp(vlan: int, tag: str) -> None:
    """A request of the source for itself, padded, with the tag of its VLAN."""
    mac = "02005e100001"
    head, body = f"ffffffffffff{mac}", "803500010800060400 03".replace(" ", "")
    frame = reverse_arp(bytes.fromhex(mac), vlan)
    wanted = bytes.fromhex(f"{head}{tag}{body}{mac}00000000{mac}00000000")
    assert frame == wanted.ljust(64 if vlan else 60, b"\0")


@dataclass(frozen=True)
class Somebody:
    """Who transmits."""

    mac: str
    vlan: int = 0


def test_others_are_all_but_ourselves() -> None:
    """A frame for each source that has none of the master's addresses, by the
    slave."""
    guest, own = Somebody("02:00:5e:30:00:01", 97), Somebody(MAC)
    made = others([own, guest], {MAC}, "eth2")
    assert made == Announcement(
        "eth2", (reverse_arp(bytes.fromhex("02005e300001"), 97),)
    )


def link(ifindex: int, name: str, *, lower: int | None = None, up: bool = True) -> Link:
    """An interface with an address of its own."""
    mac = f"02:00:5e:10:00:{ifindex:02x}"
    return Link(
        ifindex=ifindex, name=name, mac=mac, mtu=1500, up=up, carrier=up, lower=lower
    )


def address(ifindex: int, text: str, *, tentative: bool = False) -> Address:
    """An IP address on it."""
    return Address(
        ifindex=ifindex,
        address=text,
        prefixlen=24,
        ipv6=":" in text,
        link_local=False,
        by_kernel=False,
        tentative=tentative,
    )


def test_faces_are_the_master_and_all_above_it() -> None:
    """VLANs and macvlans on the master, and on these, each with its own address and
    under its own name; not what is down, without addresses or elsewhere."""
    links = [
        link(1, "fo0"),
        link(2, "fo0.10", lower=1),
        link(3, "mac0", lower=1),
        link(4, "mac0.20", lower=3),
        link(5, "down", lower=1, up=False),
        link(6, "bare", lower=1),
        link(7, "eth0"),
    ]
    addresses = [
        address(1, "192.0.2.1"),
        address(1, "2001:db8::1", tentative=True),
        address(2, "192.0.2.2"),
        address(4, "2001:db8::4"),
        address(4, "192.0.2.4"),
        address(3, "192.0.2.3"),
        address(5, "192.0.2.5"),
        address(7, "192.0.2.7"),
    ]
    found = faces(links[0], {each.ifindex: each for each in links}, addresses)
    assert [(f.name, f.mac[-2:], f.addresses) for f in found] == [
        ("fo0", "01", ("192.0.2.1",)),
        ("fo0.10", "02", ("192.0.2.2",)),
        ("mac0", "03", ("192.0.2.3",)),
        ("mac0.20", "04", ("2001:db8::4", "192.0.2.4")),
    ]
