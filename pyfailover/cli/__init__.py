# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: parses, calls, prints, exits. The only importer of click.

`app` is what all commands share; `groups`, `running`, `showing`, `caching`,
`managing`, `completing` and `manual` have them.
"""

from pyfailover.cli import (
    caching,
    completing,
    groups,
    managing,
    manual,
    running,
    showing,
)
from pyfailover.cli.app import cli, main

__all__ = [
    "caching",
    "cli",
    "completing",
    "groups",
    "main",
    "managing",
    "manual",
    "running",
    "showing",
]
