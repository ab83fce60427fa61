# SPDX-License-Identifier: GPL-2.0-or-later
"""Witnesses at the far end of a wire: packet sockets and the kernel's counters."""

import errno
import fcntl
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from pyfailover.lab import Namespace, eventually

EVERYTHING = 0x0003  # ETH_P_ALL
LLC = 0x0004  # ETH_P_802_2: the type field is a length
EXPERIMENTAL = 0x88B5  # IEEE 802 local experimental: nobody speaks it
BROADCAST = "ff:ff:ff:ff:ff:ff"

_SO_RCVBUFFORCE = 33
_SIOCGIFFLAGS = 0x8913
_IFF_RUNNING = 0x40
_ROOM = 16 << 20
_ARP, _IPV6 = 0x0806, 0x86DD
_NEIGHBOUR_ADVERTISEMENT = 136


def ethernet(dst: str, src: str, proto: int, payload: bytes = b"") -> bytes:
    """An Ethernet frame, padded to the 60 bytes that a wire wants."""
    head = b"".join(bytes.fromhex(mac.replace(":", "")) for mac in (dst, src))
    return (head + struct.pack("!H", proto) + payload).ljust(60, b"\0")


def send(ns: Namespace, dev: str, *frames: bytes) -> None:
    """Send frames out of a device, past its stack.

    One that a filter or a full queue on the way drops is none the less sent; one
    would be lost on a device whose carrier the kernel has not dealt with yet.
    """
    with (
        ns.enter(),
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock,
    ):
        sock.bind((dev, 0))
        eventually(lambda: _running(sock, dev), what=f"{dev} ready to send")
        for frame in frames:
            try:
                sock.send(frame)
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise


def _running(sock: socket.socket, dev: str) -> bool:
    """IFF_RUNNING: up, and its queue is there."""
    request = struct.pack("16sH22x", dev.encode(), 0)
    answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, request)
    return bool(struct.unpack("16sH22x", answer)[1] & _IFF_RUNNING)


class Capture:
    """Frames that arrived on a device since it was made.

    With EVERYTHING it sees them before any tc program, as tcpdump does; with
    another type only what the programs left to this device's own stack.
    """

    def __init__(self, ns: Namespace, dev: str, proto: int) -> None:
        self.dev = dev
        with ns.enter():
            # Without a type it hears nothing until it is bound.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
            self._socket.bind((dev, proto))
        self._socket.setblocking(False)
        self._frames: list[bytes] = []

    def close(self) -> None:
        """Stop."""
        self._socket.close()

    def frames(self) -> list[bytes]:
        """All up to now, in the order of arrival."""
        while True:
            try:
                frame, address = self._socket.recvfrom(65535)
            except BlockingIOError:
                return self._frames
            if address[2] != socket.PACKET_OUTGOING:
                self._frames.append(frame)

    def count(self, frame: bytes) -> int:
        """How often a frame arrived."""
        return self.frames().count(frame)

    def forget(self) -> None:
        """Begin anew."""
        self.frames()
        self._frames = []

    def wait_for(self, frame: bytes) -> None:
        """Wait until a frame has arrived: what was sent before it has, too."""
        eventually(lambda: self.count(frame), what=f"the frame on {self.dev}")


@contextmanager
def capture(ns: Namespace, dev: str, proto: int = EVERYTHING) -> Iterator[Capture]:
    """A Capture that is closed after use."""
    made = Capture(ns, dev, proto)
    try:
        yield made
    finally:
        made.close()


def announcements(frames: list[bytes]) -> list[tuple[str, str]]:
    """Who was announced with what: (address, MAC), in order.

    Gratuitous ARPs and unsolicited neighbour advertisements to all nodes.
    """
    found = []
    for frame in frames:
        proto = int.from_bytes(frame[12:14], "big")
        if proto == _ARP and frame[28:32] == frame[38:42]:
            sender = frame[28:32], frame[22:28]
        elif (
            proto == _IPV6
            and frame[20] == socket.IPPROTO_ICMPV6
            and frame[54] == _NEIGHBOUR_ADVERTISEMENT
            and frame[:6] == b"\x33\x33\0\0\0\1"
        ):
            sender = frame[62:78], frame[80:86]
        else:
            continue
        found.append((str(ip_address(sender[0])), sender[1].hex(":")))
    return found


def received(ns: Namespace, dev: str) -> int:
    """Frames that a device has received, by its own counter."""
    return all_received(ns)[dev]


def all_received(ns: Namespace) -> dict[str, int]:
    """The same for every device of a namespace."""
    return _counters(ns, "rx")


def transmitted(ns: Namespace, dev: str) -> int:
    """Frames that a device has transmitted, by its own counter."""
    return _counters(ns, "tx")[dev]


def _counters(ns: Namespace, direction: str) -> dict[str, int]:
    links = json.loads(ns.ip("-s", "-j", "link", "show"))
    return {link["ifname"]: link["stats64"][direction]["packets"] for link in links}
