# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: parses, calls, prints, exits. The only importer of click."""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pyfailover import __version__, lifecycle, report, switching
from pyfailover.errors import BuildError, PyFailoverError
from pyfailover.lifecycle import Outcome
from pyfailover.model import GroupSpec, MacPolicy, RxMode, Side, TcMode
from pyfailover.place import PIN_ROOT, RUN_ROOT, Roots, in_named_namespace
from pyfailover.transaction import locked_namespace

_DIR = click.Path(path_type=Path, file_okay=False)
_DEGRADED, _NO_SLAVE = 1, 2


def main() -> None:
    """Run the command line and exit: 0, 1 failed, 2 bad usage, 3 cannot here."""
    debug = "--debug" in sys.argv[1:] or bool(os.environ.get("PYFAILOVER_DEBUG"))
    # A service manager's stop is like Ctrl-C: what was begun is taken back.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = cli.main(standalone_mode=False, auto_envvar_prefix="PYFAILOVER")
        sys.exit(code or 0)  # click hands what exit() was given
    except PyFailoverError as exc:
        if debug:
            if isinstance(exc, BuildError):
                click.echo(exc.log, err=True)
            raise
        click.echo(f"Error: {exc.message}", err=True)
        if exc.hint:
            click.echo(f"hint: {exc.hint}", err=True)
        sys.exit(exc.exit_code)
    except PermissionError as exc:
        if debug:
            raise
        click.echo(f"Error: {exc.filename or 'this'}: {exc.strerror}", err=True)
        click.echo("hint: run as root", err=True)
        sys.exit(1)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--netns", metavar="NAME", help="Act in this network namespace.")
@click.option(
    "--pin-root",
    type=_DIR,
    default=PIN_ROOT,
    show_default=True,
    help="Directory on a bpffs that holds the pins.",
)
@click.option(
    "--run-root",
    type=_DIR,
    default=RUN_ROOT,
    show_default=True,
    help="Directory that holds locks and records.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks and compiler logs.")
@click.version_option(__version__, prog_name="pyfailover")
@click.pass_context
def cli(
    context: click.Context,
    netns: str | None,
    pin_root: Path,
    run_root: Path,
    debug: bool,
) -> None:
    """Linux net_failover in eBPF: one master, a primary, standbys.

    The traffic of the master goes through its active slave, inside the kernel.
    """
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING, format="%(message)s"
    )
    logging.getLogger().handlers[0].setFormatter(_Lowercase())
    context.obj = Roots(pins=pin_root, run=run_root)
    context.with_resource(in_named_namespace(netns))


class _Lowercase(logging.Formatter):
    """`warning: …`, like every other tool of this field."""

    def format(self, entry: logging.LogRecord) -> str:
        return f"{entry.levelname.lower()}: {entry.getMessage()}"


def _group_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say what a group is."""
    for option in reversed(
        [
            click.option(
                "--standby",
                "standbys",
                metavar="IF",
                multiple=True,
                help="A standby slave; several, in order of rank.",
            ),
            click.option("--primary", metavar="IF", help="The preferred slave."),
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
                "--bypass-filters",
                is_flag=True,
                help="Accept that foreign filters no longer see the frames.",
            ),
            click.option(
                "--max-groups",
                metavar="N",
                type=click.IntRange(1, 4096),
                help="Groups that this namespace can have; counts at the first.",
            ),
        ]
    ):
        command = option(command)
    return command


def _spec(master: str, options: dict[str, Any]) -> GroupSpec:
    return GroupSpec(
        name=master,
        primary=options["primary"],
        standbys=tuple(options["standbys"]),
        side=Side(options["side"]),
        mac=MacPolicy(options["mac"]),
        tc=TcMode(options["tc"]),
        rx=RxMode(options["rx"]),
        rx_grace_ms=options["rx_grace"],
        bypass_filters=options["bypass_filters"],
    )


def _say(outcome: Outcome, master: str, done: str, unchanged: str) -> None:
    words = {
        Outcome.DONE: done,
        Outcome.MENDED: "was attached, mended",
        Outcome.UNCHANGED: unchanged,
    }
    click.echo(f"{master}: {words[outcome]}")


def _warn_no_controller() -> None:
    click.echo("warning: no controller: nothing will be brought back", err=True)


@cli.command(
    epilog="""\b
Examples:
  pyfailover create fo0 --standby eth1 --primary eth2
  pyfailover create fo0 --standby eth1 --primary eth2 --mac clone
"""
)
@click.argument("name")
@_group_options
@click.pass_obj
def create(roots: Roots, /, name: str, max_groups: int | None, **options: Any) -> None:
    """Make a master NAME and attach it to its slaves.

    The master gets the first standby's MAC address and MTU.
    """
    spec = _spec(name, options)
    with locked_namespace(roots) as namespace:
        outcome = lifecycle.create(namespace, spec, max_groups=max_groups)
    _say(outcome, name, "created and attached", "attached already")
    _warn_no_controller()


@cli.command(
    epilog="""\b
Examples:
  pyfailover attach vnet0 --side wire --primary eth0 --standby eth1
  pyfailover --netns lab attach fo0 --primary eth0 --standby eth1 --tc clsact
"""
)
@click.argument("master")
@_group_options
@click.pass_obj
def attach(
    roots: Roots, /, master: str, max_groups: int | None, **options: Any
) -> None:
    """Attach MASTER, an interface that is there, to its slaves.

    Once more with the same options it mends: takes in a slave that was
    re-created and puts back what was detached.
    """
    spec = _spec(master, options)
    with locked_namespace(roots) as namespace:
        outcome = lifecycle.attach(namespace, spec, max_groups=max_groups)
    _say(outcome, master, "attached", "attached already")
    _warn_no_controller()


@cli.command(
    epilog="""\b
Examples:
  pyfailover detach fo0
  pyfailover detach --force        # what is in no record, too
"""
)
@click.argument("master", required=False)
@click.option(
    "--force",
    is_flag=True,
    help="Remove also programs of ours that no record knows.",
)
@click.pass_obj
def detach(roots: Roots, master: str | None, force: bool) -> None:
    """Detach MASTER and restore its slaves' settings."""
    if master is None and not force:
        raise click.UsageError("name a MASTER, or give --force")
    with locked_namespace(roots) as namespace:
        if master is not None:
            outcome = lifecycle.detach(namespace, master)
            _say(outcome, master, "detached", "nothing is attached")
        for what in lifecycle.purge(namespace) if force else ():
            click.echo(f"removed {what}")


@cli.command(epilog="\b\nExample:\n  pyfailover destroy fo0\n")
@click.argument("name")
@click.pass_obj
def destroy(roots: Roots, name: str) -> None:
    """Detach NAME and delete the master that `create` made."""
    with locked_namespace(roots) as namespace:
        outcome = lifecycle.destroy(namespace, name)
    _say(outcome, name, "destroyed", "there is no such master")


@cli.command(epilog="\b\nExample:\n  pyfailover switch fo0 eth1\n")
@click.argument("master")
@click.argument("slave")
@click.pass_obj
def switch(roots: Roots, master: str, slave: str) -> None:
    """Move MASTER's traffic to SLAVE and announce it."""
    with locked_namespace(roots) as namespace:
        done = switching.switch(namespace, master, slave)
    if done is None:
        click.echo(f"{master}: {slave} is active already")
        return
    addresses = "address" if done.announced == 1 else "addresses"
    click.echo(
        f"{master}: {done.before or 'nobody'} -> {done.after} "
        f"in {done.took_s * 1e3:.2f} ms, generation {done.generation}, "
        f"{done.announced} {addresses} announced"
    )


@cli.command(
    epilog="""\b
Exit code: 0 all is well, 1 degraded, 2 a group carries no traffic.
\b
Examples:
  pyfailover status
  pyfailover status fo0 --json
"""
)
@click.argument("master", required=False)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_context
def status(context: click.Context, master: str | None, as_json: bool) -> None:
    """Show all groups, or MASTER's: slaves, links, active, counters."""
    found = report.groups(context.obj, master)
    if master is not None and not found:
        raise PyFailoverError(
            f"'{master}' is not attached", hint="'pyfailover status' lists groups"
        )
    if as_json:
        click.echo(json.dumps({"groups": [asdict(group) for group in found]}, indent=2))
    else:
        for group in found:
            for line in report.table(group):
                click.echo(line)
        if not found:
            click.echo("no groups in this network namespace")
        else:
            _warn_no_controller()
    healths = {group.health for group in found}
    if report.Health.DOWN in healths:
        context.exit(_NO_SLAVE)
    if report.Health.DEGRADED in healths:
        context.exit(_DEGRADED)


@cli.command(
    epilog="""\b
Exit code: 0 if not one packet was lost, else 1.
\b
Example:
  pyfailover demo
"""
)
@click.pass_context
def demo(context: click.Context) -> None:
    """Show failover on namespaces made for it; takes 10 seconds, needs no NIC."""
    from pyfailover.demo import run

    if not run(context.obj):
        context.exit(1)
