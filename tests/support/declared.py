# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of lasting groups, as an operator writes them: no product code makes them;
and the records of what came of them."""

import json
from collections.abc import Sequence
from pathlib import Path

from pyfailover.journal import Journal, Record
from pyfailover.lab import Namespace
from pyfailover.transaction import paths
from tests.support.tool import Tool


def write(tool: Tool, file: str, text: str) -> Path:
    """A file of any content among those that declare groups."""
    tool.roots.etc.mkdir(mode=0o755, exist_ok=True)
    path = tool.roots.etc / file
    path.write_text(text)
    path.chmod(0o644)
    return path


def declare(
    tool: Tool,
    ns: Namespace,
    name: str = "fo0",
    *,
    primary: str = "eth1",
    standbys: Sequence[str] = ("eth2",),
    create: bool = True,
    **more: object,
) -> Path:
    """The file NAME.toml that declares a group of a namespace."""
    keys = {
        "master": name,
        "netns": ns.name,
        "primary": primary,
        "standbys": list(standbys),
        "create": create,
        **more,
    }
    lines = (f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    return write(tool, f"{name}.toml", "".join(lines))


def records(tool: Tool, ns: Namespace) -> dict[str, Record]:
    """The record of each group of a namespace."""
    with ns.enter():
        return Journal(paths(tool.roots)[1]).all()
