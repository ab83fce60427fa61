# SPDX-License-Identifier: GPL-2.0-or-later
"""A BPF ring buffer, read by libbpf: the records that programs put there, in order.

What is in them is for others to know. A ring has one reader at a time; what nobody
has taken stays for the next one.
"""

import ctypes as ct
import os
from functools import cache

_SAMPLE = ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.c_void_p, ct.c_size_t)


@cache
def _lib() -> ct.PyDLL:
    """libbpf for calls of some microseconds: they keep the GIL, as in libbpf.py."""
    lib = ct.PyDLL("libbpf.so.1", use_errno=True)
    lib.ring_buffer__new.argtypes = (ct.c_int, _SAMPLE, ct.c_void_p, ct.c_void_p)
    lib.ring_buffer__new.restype = ct.c_void_p
    lib.ring_buffer__epoll_fd.argtypes = (ct.c_void_p,)
    lib.ring_buffer__consume.argtypes = (ct.c_void_p,)
    lib.ring_buffer__free.argtypes = (ct.c_void_p,)
    lib.ring_buffer__free.restype = None
    return lib


class Ring:
    """The reading end of a ring buffer.

    Attributes:
        fd: readable while there is a record; for an event loop. Valid until close().

    Raises:
        OSError: from the constructor, where the map is not a ring buffer (EINVAL)
            or its memory cannot be had.
    """

    def __init__(self, map_fd: int) -> None:
        taken: list[bytes] = []

        def sample(_: int | None, data: int, size: int) -> int:
            taken.append(ct.string_at(data, size))
            return 0

        self._taken = taken
        self._sample = _SAMPLE(sample)  # libbpf calls it as long as the ring is open
        self._ring = _lib().ring_buffer__new(map_fd, self._sample, None, None)
        if not self._ring:
            number = ct.get_errno()
            raise OSError(number, os.strerror(number), "ring buffer")
        self.fd: int = _lib().ring_buffer__epoll_fd(self._ring)

    def take(self) -> list[bytes]:
        """Take all records out, the oldest first.

        Raises:
            OSError: with libbpf's errno.
        """
        result = _lib().ring_buffer__consume(self._ring)
        if result < 0:
            raise OSError(-result, os.strerror(-result), "ring buffer")
        records = self._taken.copy()
        self._taken.clear()
        return records

    def __enter__(self) -> "Ring":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the ring's memory; what was not taken stays in it."""
        if self._ring:
            _lib().ring_buffer__free(self._ring)
            self._ring = None
