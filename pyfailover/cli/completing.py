# SPDX-License-Identifier: GPL-2.0-or-later
"""What a shell offers at the Tab key; it must not wait, and never fails."""

import socket
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from pyfailover.cli.app import cli
from pyfailover.place import RUN_ROOT, netns_cookie

SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_PYFAILOVER_COMPLETE"


def groups(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Names of groups: of this namespace, or of all if one is named."""
    options = context.find_root().params
    cookie = "*" if options.get("netns") else str(netns_cookie())
    run = Path(options.get("run_root") or RUN_ROOT)
    found = (path.stem for path in run.glob(f"{cookie}/groups/*.json"))
    return sorted(name for name in set(found) if name.startswith(incomplete))


def interfaces(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Names of interfaces."""
    return [name for _, name in socket.if_nameindex() if name.startswith(incomplete)]


@cli.command(
    epilog="""\b
Examples:
  eval "$(pyfailover completion bash)"
  pyfailover completion fish > ~/.config/fish/completions/pyfailover.fish
"""
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what has SHELL complete commands, options, masters and interfaces."""
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "pyfailover", _VARIABLE).source())
