# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the programs' sources are, and kernel headers that BCC can use.

The programs use UAPI structures alone, so headers of any kernel will do. BCC
looks in /lib/modules/RELEASE/{build,source}; where the running kernel has no
headers package it is given some other package's. Debian splits headers in a
-common tree and one of the flavour, and BCC_KERNEL_SOURCE names one: the two
are merged by symbolic links in a directory of their own.
"""

import platform
from pathlib import Path

from pyfailover.errors import UnsupportedError

_MODULES = Path("/lib/modules")
_ARCH = {"x86_64": "x86", "aarch64": "arm64", "ppc64le": "powerpc", "s390x": "s390"}


def bpf_dir() -> Path:
    """The programs' sources: in the installed package, else in a checkout."""
    package = Path(__file__).resolve().parent.parent
    packaged = package / "bpf"
    return packaged if packaged.is_dir() else package.parent / "bpf"


def find_headers(release: str, modules: Path = _MODULES) -> tuple[Path, Path]:
    """A (build, source) pair of header trees.

    The running kernel's own if they are installed, else those of the newest
    other kernel.

    Raises:
        UnsupportedError: no kernel headers at all.
    """
    others = [] if not modules.is_dir() else sorted(modules.iterdir(), key=_version)
    for candidate in [modules / release, *reversed(others)]:
        build, source = candidate / "build", candidate / "source"
        if not source.is_dir():
            source = build
        if (build / "include/generated/autoconf.h").is_file():
            return build.resolve(), source.resolve()
    raise UnsupportedError(
        "cannot compile the programs: no kernel headers under /lib/modules",
        hint="apt install linux-headers-$(dpkg --print-architecture)",
    )


def _version(path: Path) -> list[int]:
    return [int(n) for n in path.name.replace("-", ".").split(".") if n.isdigit()]


def merge_headers(build: Path, source: Path, into: Path) -> None:
    """Make `into` a header tree that has what both trees have."""
    arch = _ARCH.get(platform.machine(), platform.machine())
    for sub in ("include", f"arch/{arch}/include"):
        merged = into / sub
        merged.mkdir(parents=True)
        for tree in (build, source):
            if not (tree / sub).is_dir():
                continue
            for entry in (tree / sub).iterdir():
                if not (merged / entry.name).exists():
                    (merged / entry.name).symlink_to(entry)
