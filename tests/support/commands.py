# SPDX-License-Identifier: GPL-2.0-or-later
"""All commands of the command line, those of groups too."""

from collections.abc import Iterator

import click

from pyfailover import cli


def _walk(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield above + name, command
        if isinstance(command, click.Group):
            yield from _walk(command, f"{above}{name} ")


COMMANDS = dict(_walk(cli.cli))  # by what is typed: `cache build`
