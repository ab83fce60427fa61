# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that make, change and take away groups."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from pyfailover import asking, lifecycle
from pyfailover.cli import completing
from pyfailover.cli.app import cli, warn_no_controller
from pyfailover.commands import Wish
from pyfailover.mending import Outcome
from pyfailover.model import GroupSpec, MacPolicy, Policy, RxMode, Side, TcMode
from pyfailover.place import Roots
from pyfailover.transaction import locked_namespace

_DEFAULT = {each.name: each.default for each in fields(GroupSpec)}


def _group_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say what a group is."""
    for option in reversed(
        [
            click.option(
                "--standby",
                "standbys",
                metavar="RULE",
                multiple=True,
                shell_complete=completing.interfaces,
                help="A standby slave; several, in order of rank.",
            ),
            click.option(
                "--primary",
                metavar="RULE",
                shell_complete=completing.interfaces,
                help="The preferred slave.",
            ),
            click.option(
                "--side",
                type=click.Choice([s.value for s in Side]),
                default=Side.STACK.value,
                show_default=True,
                help="Who talks through the master: this host's stack, or "
                "somebody behind it (VM, container).",
            ),
            click.option(
                "--mac",
                type=click.Choice([m.value for m in MacPolicy]),
                default=MacPolicy.MATCH.value,
                show_default=True,
                help="Require equal MAC addresses, or give slaves the master's.",
            ),
            click.option(
                "--tc",
                type=click.Choice([t.value for t in TcMode]),
                default=TcMode.AUTO.value,
                show_default=True,
                help="How programs are attached; auto is tcx where it exists.",
            ),
            click.option(
                "--rx",
                type=click.Choice([r.value for r in RxMode]),
                default=RxMode.ACTIVE.value,
                show_default=True,
                help="Whose frames the master takes.",
            ),
            click.option(
                "--rx-grace",
                metavar="MS",
                type=int,
                default=100,
                show_default=True,
                help="After a switch, take unicast from the old slave so long.",
            ),
            click.option(
                "--policy",
                type=click.Choice([p.value for p in Policy]),
                default=_DEFAULT["policy"].value,
                show_default=True,
                help="When traffic goes back to a better slave.",
            ),
            *(
                click.option(
                    f"--{key.replace('_', '-')}",
                    metavar="MS",
                    type=int,
                    default=_DEFAULT[f"{key}_ms"],
                    show_default=True,
                    help=text,
                )
                for key, text in (
                    ("up_delay", "A slave is used once it was ready for so long."),
                    ("down_delay", "It is left once it had no carrier for so long."),
                    ("announce_interval", "Time between announcements."),
                )
            ),
            *(
                click.option(
                    f"--{key.replace('_', '-')}",
                    metavar="N",
                    type=int,
                    default=_DEFAULT[key],
                    show_default=True,
                    help=text,
                )
                for key, text in (
                    ("announce_count", "Times that each address is announced."),
                    ("flap_changes", "So many changes keep a slave out (0: never)"),
                )
            ),
            *(
                click.option(
                    f"--{key.replace('_', '-')}",
                    metavar="S",
                    type=int,
                    default=_DEFAULT[f"{key}_s"],
                    show_default=True,
                    help=text,
                )
                for key, text in (
                    ("flap_window", "… within so many seconds,"),
                    ("flap_hold", "… for so long, twice that the next time,"),
                    ("flap_hold_max", "… but no longer than this."),
                )
            ),
            click.option(
                "--bypass-filters",
                is_flag=True,
                help="Accept that foreign filters no longer see the frames.",
            ),
            click.option(
                "--allow-missing",
                "patient",
                is_flag=True,
                help="Slaves that are not there yet join when they come.",
            ),
            click.option(
                "--persist",
                is_flag=True,
                help="Have it after a reboot too: write a file that declares it.",
            ),
            click.option(
                "--max-groups",
                metavar="N",
                type=click.IntRange(1, 4096),
                help="Groups that this namespace can have; counts at the first.",
            ),
            click.option(
                "--carrier-test/--no-carrier-test",
                default=None,
                help="Whether the kernel's programs look at the slaves' carrier "
                "themselves; counts at the first group.  [default: if they can]",
            ),
        ]
    ):
        command = option(command)
    return command


def _wish(master: str, options: dict[str, Any], *, create: bool) -> Wish:
    number = {
        f"{key}_{unit}": options[key]
        for unit, keys in (
            ("ms", ("rx_grace", "up_delay", "down_delay", "announce_interval")),
            ("s", ("flap_window", "flap_hold", "flap_hold_max")),
        )
        for key in keys
    }
    spec = GroupSpec(
        name=master,
        primary=options["primary"],
        standbys=tuple(options["standbys"]),
        side=Side(options["side"]),
        mac=MacPolicy(options["mac"]),
        tc=TcMode(options["tc"]),
        rx=RxMode(options["rx"]),
        bypass_filters=options["bypass_filters"],
        policy=Policy(options["policy"]),
        announce_count=options["announce_count"],
        flap_changes=options["flap_changes"],
        **number,
    )
    return Wish(
        spec=spec,
        create=create,
        patient=options["patient"],
        persist=options["persist"],
        max_groups=options["max_groups"],
        carrier_test=options["carrier_test"],
    )


def _say(outcome: Outcome, master: str, done: str, unchanged: str) -> None:
    words = {
        Outcome.DONE: done,
        Outcome.MENDED: "was attached, mended",
        Outcome.RETUNED: "was attached, its settings are changed",
        Outcome.UNCHANGED: unchanged,
    }
    click.echo(f"{master}: {words[outcome]}")


@cli.command(
    epilog="""\b
RULE is an interface's name, or KEY=VALUE[,KEY=VALUE] of name and altname
(globs), mac, pci, driver.
\b
Examples:
  pyfailover create fo0 --standby eth1 --primary eth2
  pyfailover create fo0 --standby eth1 --primary eth2 --mac clone --persist
  pyfailover create fo0 --standby eth0 --primary driver=iavf --allow-missing
"""
)
@click.argument("name")
@_group_options
@click.pass_obj
def create(roots: Roots, /, name: str, **options: Any) -> None:
    """Make a master NAME and attach it to its slaves.

    The master gets the first standby's MAC address and MTU.
    """
    outcome, served = asking.attach(roots, _wish(name, options, create=True))
    _say(outcome, name, "created and attached", "attached already")
    if not served:
        warn_no_controller()


@cli.command(
    epilog="""\b
RULE is an interface's name, or KEY=VALUE[,KEY=VALUE] of name and altname
(globs), mac, pci, driver.
\b
Examples:
  pyfailover attach vnet0 --side wire --primary eth0 --standby eth1
  pyfailover --netns lab attach fo0 --primary eth0 --standby eth1 --tc clsact
"""
)
@click.argument("master", shell_complete=completing.groups)
@_group_options
@click.pass_obj
def attach(roots: Roots, /, master: str, **options: Any) -> None:
    """Attach MASTER, an interface that is there, to its slaves.

    Once more it mends: takes in a slave that was re-created and puts back what
    was detached; policy, delays and other such numbers may be others then.
    """
    outcome, served = asking.attach(roots, _wish(master, options, create=False))
    _say(outcome, master, "attached", "attached already")
    if not served:
        warn_no_controller()


@cli.command(
    epilog="""\b
Examples:
  pyfailover detach fo0
  pyfailover detach fo0 --persist  # one that a file declares
  pyfailover detach --force        # what is in no record, too
"""
)
@click.argument("master", required=False, shell_complete=completing.groups)
@click.option(
    "--force",
    is_flag=True,
    help="Remove also programs of ours that no record knows.",
)
@click.option("--persist", is_flag=True, help="Remove the file that declares it, too.")
@click.pass_obj
def detach(roots: Roots, master: str | None, force: bool, persist: bool) -> None:
    """Detach MASTER and restore its slaves' settings."""
    if master is None and not force:
        raise click.UsageError("name a MASTER, or give --force")
    if master is not None:
        outcome, _ = asking.detach(roots, master, persist=persist)
        _say(outcome, master, "detached", "nothing is attached")
    if force:
        with locked_namespace(roots) as namespace:
            for what in lifecycle.purge(namespace):
                click.echo(f"removed {what}")


@cli.command(
    epilog="""\b
Examples:
  pyfailover destroy fo0
  pyfailover destroy fo0 --persist
"""
)
@click.argument("name", shell_complete=completing.groups)
@click.option("--persist", is_flag=True, help="Remove the file that declares it, too.")
@click.pass_obj
def destroy(roots: Roots, name: str, persist: bool) -> None:
    """Detach NAME and delete the master that `create` made."""
    outcome, _ = asking.detach(roots, name, destroy=True, persist=persist)
    _say(outcome, name, "destroyed", "there is no such master")


@cli.command(
    epilog="""\b
The pin lasts until `auto`, over restarts of the controller too.
\b
Examples:
  pyfailover switch fo0 eth1
  pyfailover switch fo0 auto
"""
)
@click.argument("master", shell_complete=completing.groups)
@click.argument("slave", metavar="SLAVE|auto", shell_complete=completing.interfaces)
@click.pass_obj
def switch(roots: Roots, master: str, slave: str) -> None:
    """Move MASTER's traffic to SLAVE and hold it there; `auto` ends that."""
    wanted = None if slave == "auto" else slave
    moved, served = asking.switch(roots, master, wanted)
    if moved is not None:
        addresses = "address" if moved.announced == 1 else "addresses"
        click.echo(
            f"{master}: {moved.before or 'nobody'} -> {moved.after or 'nobody'} "
            f"in {moved.took_s * 1e3:.2f} ms, generation {moved.generation}, "
            f"{moved.announced} {addresses} announced"
        )
    elif wanted is not None:
        click.echo(f"{master}: {slave} is active already")
    if wanted is None:
        click.echo(f"{master}: not pinned, its policy decides")
    else:
        click.echo(
            f"{master}: pinned to {slave}: if that dies the best other slave "
            f"carries until it is back; 'pyfailover switch {master} auto' unpins"
        )
    if not served:
        warn_no_controller()
