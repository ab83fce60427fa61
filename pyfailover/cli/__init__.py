# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: parses, calls, prints, exits. The only importer of click.

`app` is what all commands share; `groups`, `running`, `showing`, `caching` and
`managing` have them.
"""

from pyfailover.cli import caching, groups, managing, running, showing
from pyfailover.cli.app import cli, main

__all__ = ["caching", "cli", "groups", "main", "managing", "running", "showing"]
