# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel says of a device by ioctl: ready, driver, speed, offloads.

Hides SIOCETHTOOL. The socket keeps the network namespace in which it was made.
Asking takes two microseconds and is never late, as link events are
(linkwatch_urgent_event); it takes the rtnl lock, as they do. None means that
the device is not there, or that its driver does not say.
"""

import fcntl
import os
import socket
import struct
import sys
from ctypes import Array, addressof, c_char, create_string_buffer
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pyfailover.errors import NetlinkError
from pyfailover.model import check_ifname

_SIOCETHTOOL = 0x8946
_SIOCGIFFLAGS = 0x8913
_IFF_UP = 0x1

# linux/ethtool.h
_GSET = 0x01
_GDRVINFO = 0x03
_GLINK = 0x0A
_GFLAGS = 0x25
_GGRO = 0x2B
_FLAG_LRO = 1 << 15
_SPEED_UNKNOWN = 0xFFFFFFFF
_DUPLEX_FULL = 1

_IFREQ = struct.Struct("16sP16x")
_VALUE = struct.Struct("II")  # ethtool_value: cmd, data
_DRVINFO = struct.Struct("I32s32s32s32s32s12x5I")  # ethtool_drvinfo
# ethtool_cmd: cmd, supported, advertising, speed, duplex, six of no interest
# here, speed_hi, the rest.
_SETTINGS = struct.Struct("III HB 5B II H BB I 2I")
_SPEED, _DUPLEX, _SPEED_HI = 3, 4, 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """The driver of a device, and where the device is: '0000:03:00.1'."""

    name: str
    bus: str  # empty for one that is on no bus


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What a link runs at; 0 where the driver does not know."""

    mbit: int
    full_duplex: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Offloads:
    """Whether received frames are merged, by software or by the device."""

    gro: bool
    lro: bool


class Ethtool:
    """Ask devices of one namespace by name.

    Raises:
        NetlinkError: there is no socket to be had.
    """

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        except OSError as exc:
            raise NetlinkError(
                f"cannot open a socket for ioctls: {os.strerror(exc.errno or 0)}"
            ) from exc
        self._fd = self._socket.fileno()
        self._links: dict[str, tuple[bytes, Array[c_char], memoryview]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; asking afterwards is an error."""
        self._socket.close()
        self._fd = -1

    def ready(self, name: str) -> bool | None:
        """Whether a device is IFF_UP with carrier (__ethtool_get_link).

        For an absent device the kernel looks for a module of its name (dev_load,
        request_module): poll only what is there.

        Raises:
            ConfigError: not a name that an interface can have.
        """
        link = self._links.get(name)
        if link is None:
            link = self._links[name] = _link_request(name)
        try:
            fcntl.ioctl(self._fd, _SIOCETHTOOL, link[0])
        except OSError:
            return None
        return link[2][1] != 0

    def up(self, name: str) -> bool | None:
        """Whether a device is IFF_UP (SIOCGIFFLAGS of netdevice(7))."""
        check_ifname(name)
        try:
            raw = fcntl.ioctl(self._fd, _SIOCGIFFLAGS, _IFREQ.pack(name.encode(), 0))
        except OSError:
            return None
        return bool(int.from_bytes(raw[16:18], sys.byteorder) & _IFF_UP)

    def driver(self, name: str) -> Driver | None:
        """The driver of a device (ETHTOOL_GDRVINFO)."""
        info = self._ask(name, _DRVINFO, _GDRVINFO)
        return None if info is None else Driver(name=_text(info[1]), bus=_text(info[4]))

    def speed(self, name: str) -> Speed:
        """What its link runs at, Speed(0, False) if that is not known."""
        settings = self._ask(name, _SETTINGS, _GSET)
        if settings is None:
            return Speed(mbit=0, full_duplex=False)
        mbit = settings[_SPEED_HI] << 16 | settings[_SPEED]
        if mbit == _SPEED_UNKNOWN:
            return Speed(mbit=0, full_duplex=False)
        return Speed(mbit=mbit, full_duplex=settings[_DUPLEX] == _DUPLEX_FULL)

    def offloads(self, name: str) -> Offloads:
        """Which of GRO and LRO are on; what is not known is off."""
        gro = self._ask(name, _VALUE, _GGRO)
        flags = self._ask(name, _VALUE, _GFLAGS)
        return Offloads(
            gro=gro is not None and bool(gro[1]),
            lro=flags is not None and bool(flags[1] & _FLAG_LRO),
        )

    def _ask(
        self, name: str, layout: struct.Struct, command: int
    ) -> tuple[Any, ...] | None:
        buffer = create_string_buffer(layout.size)
        struct.pack_into("I", buffer, 0, command)
        try:
            fcntl.ioctl(self._fd, _SIOCETHTOOL, _ifreq(name, buffer))
        except OSError:
            return None
        return layout.unpack(buffer)


def _ifreq(name: str, buffer: Array[c_char]) -> bytes:
    check_ifname(name)
    return _IFREQ.pack(name.encode(), addressof(buffer))


def _link_request(name: str) -> tuple[bytes, Array[c_char], memoryview]:
    """An ifreq, what it points to, and the words in that."""
    buffer = create_string_buffer(_VALUE.pack(_GLINK, 0), _VALUE.size)
    return _ifreq(name, buffer), buffer, memoryview(buffer).cast("B").cast("I")


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="replace")
