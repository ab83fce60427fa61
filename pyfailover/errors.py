# SPDX-License-Identifier: GPL-2.0-or-later
"""The errors that a user may see: what, on which interface, why, what to try.

Each class has the exit code of the command line (design: 1 failed, 2 bad usage
or configuration, 3 this kernel or host cannot). Imports nothing.
"""


class PyFailoverError(Exception):
    """Base of all: one line of message, and a hint on what to try.

    Message shape: ``cannot <verb> <object> on '<ifname>': <cause>``.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(PyFailoverError):
    """A bad option, name or combination; nothing was touched."""

    exit_code = 2


class RefusedError(PyFailoverError):
    """Something in the way that is not ours: address, filter, other master."""


class StateError(PyFailoverError):
    """Not attached, attached otherwise, locked, or no room left."""


class UnsupportedError(PyFailoverError):
    """This kernel or host lacks what is needed."""

    exit_code = 3


class NetlinkError(PyFailoverError):
    """The kernel refused a link, address or qdisc request."""


class BpfError(PyFailoverError):
    """The kernel refused a BPF object."""


class BuildError(BpfError):
    """The programs do not compile or load; `log` holds all that was said."""

    exit_code = 3

    def __init__(self, message: str, *, log: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.log = log


class LoadError(BuildError):
    """The programs compile, and the kernel refuses them."""
