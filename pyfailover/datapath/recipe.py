# SPDX-License-Identifier: GPL-2.0-or-later
"""What an image is made from, and so when an old one will do: its key."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from pyfailover.datapath import abi, btf
from pyfailover.datapath.toolchain import bpf_dir

_STRICT = ("-Wall", "-Werror")

Key = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is wanted for."""

    max_groups: int
    carrier_test: bool

    @property
    def flags(self) -> tuple[str, ...]:
        """The compiler's that are known without a look at the kernel."""
        bits = abi.port_bits(self.max_groups)
        sizes = (f"-DFO_MAX_GROUPS={self.max_groups}", f"-DFO_PORT_BITS={bits}")
        test = ("-DFO_CARRIER_TEST",) if self.carrier_test else ()
        return (*_STRICT, *sizes, *test)

    def resolve(self) -> btf.Resolved:
        """What else is compiled in; it follows from the kernel's BTF.

        Asked only when something is compiled: that takes 80 ms and 11 MB.

        Raises:
            UnsupportedError: this kernel cannot have the carrier test.
        """
        return btf.resolve() if self.carrier_test else btf.Resolved()

    def key(self) -> Key:
        """All that the image depends on."""
        return {**here(), "flags": " ".join(self.flags)}


def here() -> Key:
    """The part of a key that this version of ours and this kernel have."""
    return {
        "sources": sources(),
        "architecture": os.uname().machine,
        "kernel": _kernel(),
    }


def digest(key: Key) -> str:
    """A key in 16 hexadecimal digits."""
    return sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def sources() -> str:
    """Digest of all files that are compiled, with their names."""
    found = sha256()
    for path in sorted(bpf_dir().iterdir()):
        if path.suffix in (".c", ".h"):
            text = path.read_bytes()
            found.update(f"{path.name} {len(text)}\n".encode() + text)
    return found.hexdigest()


def _kernel() -> str:
    """Digest of the running kernel's types; its version, if it tells no types."""
    try:
        with btf.VMLINUX.open("rb", buffering=0) as file:
            found = sha256()
            while chunk := file.read(1 << 16):  # not all of 5 MB at once
                found.update(chunk)
        return found.hexdigest()
    except OSError:
        system = os.uname()
        return f"{system.release} {system.version}"
