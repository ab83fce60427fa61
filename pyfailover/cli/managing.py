# SPDX-License-Identifier: GPL-2.0-or-later
"""The command that speaks to network managers, through their files."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import click

from pyfailover import netconf
from pyfailover.cli import completing
from pyfailover.cli.app import cli
from pyfailover.netconf import Configuration, Dhcp, Done, Manager, Subject
from pyfailover.place import Roots


@cli.command(
    name="netconf",
    epilog="""\b
Without --install or --remove it prints the files. The manager itself is left
alone: the command that has it read them is printed.
\b
Examples:
  pyfailover netconf fo0 --for networkd
  pyfailover netconf fo0 --for networkmanager --install
  pyfailover netconf fo0 --for ifupdown --dhcp ipv4 --install --root ./image
  pyfailover netconf fo0 --for ifupdown --remove
""",
)
@click.argument("master", shell_complete=completing.groups)
@click.option(
    "--for",
    "manager",
    type=click.Choice([m.value for m in Manager]),
    required=True,
    help="Who is to be told.",
)
@click.option(
    "--dhcp",
    type=click.Choice([d.value for d in Dhcp]),
    help="What it is to ask for on MASTER; no: nothing, its addresses are told "
    "elsewhere.  [default: yes, and no for a wire master of somebody else]",
)
@click.option(
    "--install/--remove", default=None, help="Write the files, or take ours away."
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    show_default=True,
    help="Where they go: / or the root of an image.",
)
@click.pass_obj
def configure(
    roots: Roots,
    master: str,
    manager: str,
    dhcp: str | None,
    install: bool | None,
    root: Path,
) -> None:
    """Have a network manager keep off MASTER's slaves, and on MASTER."""
    if install is False:
        alone = Subject(master=master, slaves=())  # the group may be gone
        unwanted = netconf.configuration(alone, Manager(manager))
        _tell(netconf.remove(root, unwanted), unwanted.forget, root)
        return
    subject = netconf.find_subject(roots, master)
    wanted = netconf.configuration(
        subject, Manager(manager), None if dhcp is None else Dhcp(dhcp)
    )
    for note in wanted.notes:
        click.echo(f"warning: {note}", err=True)
    if install:
        _tell(netconf.install(root, wanted), wanted.reread, root)
    else:
        _show(wanted, root)


def _show(wanted: Configuration, root: Path) -> None:
    for number, file in enumerate(wanted.files):
        if number:
            click.echo()
        click.echo(f"# --- {root / file.path}, mode {file.mode:04o}")
        click.echo(wanted.content(file), nl=False)


def _tell(done: Mapping[PurePosixPath, Done], then: Sequence[str], root: Path) -> None:
    for path, what in done.items():
        click.echo(f"{what} {root / path}")
    if not done:
        click.echo("nothing of ours is there")
    elif root == Path("/") and {*done.values()} != {Done.UNCHANGED}:
        for command in then:
            click.echo(f"now run: {command}")
