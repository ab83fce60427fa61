# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that run for long, and what steers them."""

from dataclasses import replace
from pathlib import Path

import click

from pyfailover import asking
from pyfailover.cli.app import cli, log_to_stderr, warn_no_controller
from pyfailover.errors import StateError
from pyfailover.logs import Style
from pyfailover.place import NETNS_DIR, Roots, join_namespace


@cli.command(
    epilog="""\b
Signals: SIGHUP reloads; SIGTERM and SIGINT end it and leave traffic running.
\b
Examples:
  pyfailover run
  pyfailover --netns lab run --log-format json
"""
)
@click.option(
    "--log-format",
    type=click.Choice([s.value for s in Style]),
    default=Style.TEXT.value,
    show_default=True,
    help="One line for each event, on stderr.",
)
@click.option(
    "--reconcile",
    metavar="S",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="How often everything is compared with what should be, and mended.",
)
@click.option(
    "--poll",
    metavar="MS",
    type=click.FloatRange(1, 10_000),
    default=5.0,
    show_default=True,
    help="How often slaves are asked for their carrier: the kernel may tell late.",
)
@click.option(
    "--carrier-test/--no-carrier-test",
    default=None,
    help="Whether the programs that are loaded for a first group look at the "
    "slaves' carrier themselves.  [default: if they can]",
)
@click.pass_obj
def run(
    roots: Roots,
    log_format: str,
    reconcile: float,
    poll: float,
    carrier_test: bool | None,
) -> None:
    """Be the controller: fail over, bring back, mend; one for each namespace."""
    from pyfailover.controller import Controller
    from pyfailover.requests import Requests

    log_to_stderr(Style(log_format))
    if roots.netns is not None:
        # All threads to come shall be there, too.
        name = roots.netns
        join_namespace(Path(name) if "/" in name else NETNS_DIR / name)
    roots = replace(roots, carrier_test=carrier_test)
    controller = Controller(roots, reconcile_s=reconcile, poll_s=poll / 1000)
    controller.run(Requests(controller).handle)


@cli.command(
    epilog="""\b
Examples:
  pyfailover reload
  pyfailover reload --programs
  pyfailover reload --programs --no-carrier-test
"""
)
@click.option(
    "--programs",
    is_flag=True,
    help="Replace the kernel's programs under traffic instead.",
)
@click.option(
    "--carrier-test/--no-carrier-test",
    default=None,
    help="With --programs: whether the new ones look at the slaves' carrier.  "
    "[default: as it is]",
)
@click.pass_obj
def reload(roots: Roots, programs: bool, carrier_test: bool | None) -> None:
    """Have the controller read the files of lasting groups again."""
    if programs:
        if not asking.replace_programs(roots, carrier_test):
            warn_no_controller()
        click.echo("the programs are replaced")
        return
    if carrier_test is not None:
        raise click.UsageError("--[no-]carrier-test goes with --programs")
    done = asking.reload(roots)
    if done is None:
        raise StateError("no controller runs here", hint="pyfailover run")
    for name, outcome in done["done"].items():
        click.echo(f"{name}: {outcome}")
    for name in done["detached"]:
        click.echo(f"{name}: detached")
    for name, error in done["failed"].items():
        click.echo(f"{name}: {error}", err=True)
    if done["failed"]:
        failed, of = len(done["failed"]), sum(map(len, done.values()))
        raise StateError(f"{failed} of {of} groups could not be brought about")


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
    """Show failover on namespaces made for it; takes 40 seconds, needs no NIC."""
    from pyfailover.demo import run

    if not run(context.obj):
        context.exit(1)
