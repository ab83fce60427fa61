# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel tells of links and addresses, as it happens.

Its secret is the subscription: a socket that overflowed is replaced by a fresh
one, and whoever listens is told that he missed something. Events are hints; a
dump, taken after the subscription, is the truth.
"""

import socket
import struct
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyroute2
from pyroute2.netlink.exceptions import NetlinkError as _KernelError

from pyfailover.model import Address, Link
from pyfailover.netlink.decode import address_of
from pyfailover.netlink.dump import link_of_body

_RTMGRP_LINK = 0x1
_RTMGRP_IPV4_IFADDR = 0x10
_RTMGRP_IPV6_IFADDR = 0x100
_GROUPS = _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR
_LINK_MESSAGES = (16, 17)  # RTM_NEWLINK, RTM_DELLINK
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_IFINDEX = struct.Struct("=i")  # of an ifinfomsg
_SOL_SOCKET, _SO_RCVBUFFORCE = 1, 33
# Room for some thousand messages while the controller does something else.
_ROOM = 8 << 20


@dataclass(frozen=True, slots=True)
class LinkSeen:
    """An interface is there, new or changed."""

    link: Link


@dataclass(frozen=True, slots=True)
class LinkGone:
    """An interface was deleted, or is in another namespace now."""

    ifindex: int


@dataclass(frozen=True, slots=True)
class AddressSeen:
    """An address is there, new or changed."""

    address: Address


@dataclass(frozen=True, slots=True)
class AddressGone:
    """An address was taken off."""

    address: Address


@dataclass(frozen=True, slots=True)
class Overrun:
    """Events were lost (ENOBUFS); those after this one are not."""


Event = LinkSeen | LinkGone | AddressSeen | AddressGone | Overrun


class _LinkMessage(dict[str, Any]):
    """An RTM_NEWLINK or RTM_DELLINK that pyroute2 does not decode: it would take
    0.4 ms, and in a storm there are hundreds. Has what pyroute2 asks of a message."""

    def __init__(self, data: bytes, offset: int = 0) -> None:
        size, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        super().__init__(
            header={"type": kind, "flags": flags, "sequence_number": sequence},
            body=data[offset + _HEADER.size : offset + size],
        )

    def decode(self) -> None:
        """Called by pyroute2; there is nothing left to do."""


class _Socket(pyroute2.AsyncIPRoute):  # type: ignore[misc]
    """Notes when each datagram was read; one get() takes one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.marshal.msg_map |= dict.fromkeys(_LINK_MESSAGES, _LinkMessage)
        self.read_at: deque[float] = deque()

    def enqueue(self, data: bytes, addr: object) -> Any:
        """Called by the transport for each datagram."""
        self.read_at.append(time.monotonic())
        return super().enqueue(data, addr)


class Events:
    """A subscription of this namespace; an asynchronous context manager.

    Args:
        room: bytes of the socket's buffer.
    """

    def __init__(self, room: int = _ROOM) -> None:
        self._room = room
        self._socket: _Socket | None = None

    async def __aenter__(self) -> "Events":
        self._socket = await self._subscribe()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._drop()

    async def stream(self) -> AsyncIterator[tuple[Event, float]]:
        """Events for ever, each with the time.monotonic() at which it was read."""
        assert self._socket is not None, "not entered"
        while True:
            try:
                async for message in self._socket.get():
                    event = _event(message)
                    if event is not None:
                        yield event, self._socket.read_at[0]
                self._socket.read_at.popleft()
            except (OSError, _KernelError):
                self._drop()
                self._socket = await self._subscribe()
                yield Overrun(), time.monotonic()

    async def _subscribe(self) -> _Socket:
        made = _Socket()
        await made.bind(groups=_GROUPS)
        made.setsockopt(_SOL_SOCKET, _SO_RCVBUFFORCE, self._room)
        return made

    def _drop(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # it is broken already
                self._socket.close()
            self._socket = None


def _event(message: Any) -> Event | None:
    """What a message says, None if nothing to us."""
    match message.get("event"):
        # A bridge tells of its ports in the same words, with a family of its own;
        # wireless devices send messages without a name.
        case "RTM_NEWLINK" if message["body"][0] == socket.AF_UNSPEC:
            link = link_of_body(message["body"])
            return LinkSeen(link) if link.name else None
        case "RTM_DELLINK" if message["body"][0] == socket.AF_UNSPEC:
            return LinkGone(_IFINDEX.unpack_from(message["body"], 4)[0])
        case "RTM_NEWADDR":
            return AddressSeen(address_of(message))
        case "RTM_DELADDR":
            return AddressGone(address_of(message))
    return None
