# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a host shows itself in files, and reading those of somebody else's."""

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Where a host shows itself; tests have their own."""

    proc: Path = Path("/proc")
    btf: Path = Path("/sys/kernel/btf/vmlinux")
    modules: Path = Path("/lib/modules")
    networkd: Path = Path("/run/systemd/netif/links")
    networkmanager: Path = Path("/run/NetworkManager/devices")
    ifupdown: Path = Path("/etc/network")
    ifupdown_made: Path = Path("/run/network/interfaces.d")  # by cloud images
    release: str = field(default_factory=lambda: os.uname().release)


HOST = System()


def text(path: Path) -> str:
    """A file of somebody else's; the kernel cuts names amid a character."""
    return path.read_text(errors="replace")


def value(path: Path, key: str, separator: str = "=") -> str | None:
    """The value of a key in a file of one key a line."""
    with suppress(OSError):
        for line in text(path).splitlines():
            name, found, rest = line.partition(separator)
            if found and name.strip() == key:
                return rest.strip()
    return None
