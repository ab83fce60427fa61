# SPDX-License-Identifier: GPL-2.0-or-later
"""Sets interfaces up and down by ioctl, without a process for each time."""

import fcntl
import socket
import struct

from pyfailover.lab import Namespace

_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
_IFREQ = struct.Struct("=16sH22x")


class Switches:
    """Those of the interfaces of one namespace, by name."""

    def __init__(self, ns: Namespace) -> None:
        with ns.enter():  # where a socket stays
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def set(self, name: str, up: bool) -> None:
        """Set an interface up or down, if it is not so already."""
        asked = _IFREQ.pack(name.encode(), 0)
        _, flags = _IFREQ.unpack(fcntl.ioctl(self._socket, _GET_FLAGS, asked))
        wanted = flags | _UP if up else flags & ~_UP
        if wanted != flags:
            request = _IFREQ.pack(name.encode(), wanted)
            fcntl.ioctl(self._socket, _SET_FLAGS, request)

    def close(self) -> None:
        """Leave the interfaces as they are."""
        self._socket.close()
