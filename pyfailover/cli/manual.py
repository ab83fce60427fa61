# SPDX-License-Identifier: GPL-2.0-or-later
"""The manual page, made of what the commands say of themselves."""

import re
from collections.abc import Iterator

import click

from pyfailover.cli.app import cli

_HEAD = r""".\" Made by 'pyfailover manual'; do not edit.
.TH PYFAILOVER 8 "" pyfailover "System administration"
.SH NAME
pyfailover \- one master interface, a primary, standbys, switched in the kernel
.SH SYNOPSIS
.B pyfailover
.RI [ options ]
.I command
.RI [ arguments ]
.SH DESCRIPTION
The traffic of a
.I master
goes through its active
.IR slave ,
inside the kernel: the
.I primary
while that has carrier, else the first
.I standby
that does.
Commands act themselves, or ask the controller
.RB ( "pyfailover run" )
where there is one; without one the kernel still leaves a dead link, if its programs
look at links, and nothing is brought back.
Every option can be set by the environment:
.B \-\-netns
is
.BR PYFAILOVER_NETNS ,
and
.B run \-\-poll
is
.BR PYFAILOVER_RUN_POLL .
"""
_TAIL = r""".SH FILES
.TP
.I /etc/pyfailover/*.toml
Lasting groups, a file each, written by
.BR \-\-persist .
.TP
.I /run/pyfailover
Records, events, locks and the control socket, by network namespace.
.TP
.I /sys/fs/bpf/pyfailover
Pinned programs, maps and links.
.TP
.I /var/cache/pyfailover
Compiled programs.
.SH EXIT STATUS
0, or 1 if something failed, 2 for a bad usage, 3 if this kernel or host cannot.
.B status
ends with 1 if a group is degraded, 2 if one carries no traffic.
.SH SIGNALS
Of
.BR "pyfailover run" :
SIGHUP reads the files of lasting groups again; SIGTERM and SIGINT end it, and leave
traffic running.
.SH SEE ALSO
.BR ip\-link (8),
.BR tc\-bpf (8),
.BR bpftool (8)
"""


def page() -> str:
    """The page, in roff."""
    return "".join([_HEAD, *_options(cli, ".SH OPTIONS\n"), *_commands(), _TAIL])


def _commands() -> Iterator[str]:
    yield ".SH COMMANDS\n"
    yield from _of(cli, "")


def _of(group: click.Group, above: str) -> Iterator[str]:
    for name, command in sorted(group.commands.items()):
        if command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from _of(command, f"{above}{name} ")
            continue
        words = command.collect_usage_pieces(_context(command))
        yield f".SS {_text(f'{above}{name}')} {_text(' '.join(words))}\n"
        yield f"{_text(command.help or '')}\n"
        yield from _options(command, "")
        for part in (command.epilog or "").split("\b\n"):
            yield from _lines(part)


def _context(command: click.Command) -> click.Context:
    """As the command is called in; click remembers what it learns from the first."""
    top = click.Context(cli, **cli.context_settings)
    return click.Context(command, parent=top)


def _options(command: click.Command, heading: str) -> Iterator[str]:
    yield heading
    context = _context(command)
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None:
            names, text = record
            yield f".TP\n.B {_text(names)}\n{_text(text)}\n"


def _lines(part: str) -> Iterator[str]:
    """A part of an epilog, line by line."""
    lines = [line for line in part.splitlines() if line.strip()]
    if lines:
        yield ".PP\n.nf\n"
        yield from (f"{_text(line)}\n" for line in lines)
        yield ".fi\n"


def _text(text: str) -> str:
    """As roff takes it for text."""
    text = re.sub(r"[ \t]*\n[ \t]*", "\n", text.replace("\b", "").strip("\n"))
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    text = re.sub(r"[^\0-\x7f]", lambda found: f"\\[u{ord(found[0]):04X}]", text)
    return re.sub(r"^\.", r"\\&.", text, flags=re.MULTILINE)


@cli.command(
    hidden=True,
    epilog="""\b
Example:
  pyfailover manual > /usr/local/share/man/man8/pyfailover.8
""",
)
def manual() -> None:
    """Print the manual page."""
    click.echo(page(), nl=False)
