# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs of others that tests run: unpacked beside the venv, or of its packages."""

import sys
from pathlib import Path

_PLACES = (Path(sys.prefix) / "tools/usr/bin", Path(sys.prefix) / "bin")


def tool(name: str) -> Path:
    """Where a program is.

    Raises:
        FileNotFoundError: nowhere; `make test` unpacks it.
    """
    for place in _PLACES:
        if (place / name).is_file():
            return place / name
    raise FileNotFoundError(f"there is no '{name}': run 'make test', which gets it")
