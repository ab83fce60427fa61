# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: parses, calls, prints, exits. The only importer of click.

`app` is what all commands share; `groups`, `running` and `showing` have them.
"""

from pyfailover.cli import groups, running, showing
from pyfailover.cli.app import cli, main

__all__ = ["cli", "groups", "main", "running", "showing"]
