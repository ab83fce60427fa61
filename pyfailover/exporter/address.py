# SPDX-License-Identifier: GPL-2.0-or-later
"""Where to listen, as it is spelled."""

from pyfailover.errors import ConfigError


def parse_address(text: str) -> tuple[str, int]:
    """HOST:PORT, with an IPv6 address in brackets.

    Raises:
        ConfigError: it is none.
    """
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    bracketed = bare != host
    if not colon or not bare or (":" in bare) != bracketed or not port.isascii():
        raise _no_address(text)
    if not port.isdecimal() or int(port) > 0xFFFF:
        raise _no_address(text)
    return bare, int(port)


def _no_address(text: str) -> ConfigError:
    return ConfigError(
        f"{text!r} is not an address to listen on",
        hint="HOST:PORT, like 127.0.0.1:9909 or [::1]:9909",
    )
