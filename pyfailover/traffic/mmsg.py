# SPDX-License-Identifier: GPL-2.0-or-later
"""Many datagrams in one system call: sendmmsg(2) and recvmmsg(2) by ctypes.

All headers are laid out once, over one buffer with a place for each datagram,
so that a call costs the same however many datagrams it moves.
"""

from __future__ import annotations

import ctypes
import errno
from array import array

_MSG_WAITFORONE = 0x10000

_libc = ctypes.CDLL(None, use_errno=True)


class _Iovec(ctypes.Structure):
    _fields_ = (("iov_base", ctypes.c_void_p), ("iov_len", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("msg_name", ctypes.c_void_p),
        ("msg_namelen", ctypes.c_uint32),
        ("msg_iov", ctypes.POINTER(_Iovec)),
        ("msg_iovlen", ctypes.c_size_t),
        ("msg_control", ctypes.c_void_p),
        ("msg_controllen", ctypes.c_size_t),
        ("msg_flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("msg_hdr", _Msghdr), ("msg_len", ctypes.c_uint))


class Datagrams:
    """Places for some datagrams of one size on a connected or bound socket."""

    def __init__(self, places: int, size: int) -> None:
        self.places = places
        # The numbers at the start of each place are to be aligned words.
        self._stride = -(-size // 8)
        self._buffer = (ctypes.c_uint64 * (self._stride * places))()
        self._words = memoryview(self._buffer).cast("B").cast("Q")
        self._iovecs = (_Iovec * places)()
        self._headers = (_Mmsghdr * places)()
        base = ctypes.addressof(self._buffer)
        for place, (iovec, header) in enumerate(
            zip(self._iovecs, self._headers, strict=True)
        ):
            iovec.iov_base = base + place * self._stride * 8
            iovec.iov_len = size
            header.msg_hdr.msg_iov = ctypes.pointer(iovec)
            header.msg_hdr.msg_iovlen = 1
        self._at = ctypes.byref(self._headers)

    def number(self, first: int, count: int, t_ns: int) -> None:
        """Write numbers from `first` up and the time into the first places."""
        words, stride = self._words, self._stride
        end = count * stride
        words[0:end:stride] = memoryview(array("Q", range(first, first + count)))
        words[1:end:stride] = memoryview(array("Q", [t_ns]) * count)

    def numbers(self, count: int) -> array[int]:
        """The numbers in the first places."""
        found = array("Q")
        found.frombytes(self._words[0 : count * self._stride : self._stride].tobytes())
        return found

    def send(self, fd: int, count: int, flags: int = 0) -> int:
        """Send the first places; how many left, or -errno if not even one did."""
        done: int = _libc.sendmmsg(fd, self._at, count, flags)
        return done if done >= 0 else -ctypes.get_errno()

    def receive(self, fd: int, flags: int = _MSG_WAITFORONE) -> int:
        """Wait for one datagram and take all there are; 0 at the socket's timeout.

        What is longer than a place is cut off.

        Raises:
            OSError: any other error.
        """
        done: int = _libc.recvmmsg(fd, self._at, self.places, flags, None)
        if done >= 0:
            return done
        code = ctypes.get_errno()
        if code in (errno.EAGAIN, errno.EINTR):
            return 0
        raise OSError(code, "recvmmsg")
