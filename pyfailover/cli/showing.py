# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that show, and change nothing."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import click

from pyfailover import asking, control, doctor, report
from pyfailover.cli import completing
from pyfailover.cli.app import cli, warn_no_controller
from pyfailover.errors import PyFailoverError
from pyfailover.history import History, from_data, table, to_data
from pyfailover.place import Roots
from pyfailover.report import GroupStatus, Health
from pyfailover.transaction import paths

_DEGRADED, _NO_SLAVE, _CANNOT = 1, 2, 1


@cli.command(
    epilog="""\b
Exit code: 0 all is well, 1 degraded, 2 a group carries no traffic.
\b
Examples:
  pyfailover status
  pyfailover status fo0 --json
  pyfailover status --watch
"""
)
@click.argument("master", required=False, shell_complete=completing.groups)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.option("--watch", is_flag=True, help="Again every second, until Ctrl-C.")
@click.pass_context
def status(
    context: click.Context, master: str | None, as_json: bool, watch: bool
) -> None:
    """Show all groups, or MASTER's: slaves, links, active, counters."""
    while True:
        controller = asking.status(context.obj)
        found = report.groups(context.obj, master, controller)
        waiting = report.waiting(found, controller) if master is None else {}
        if master is not None and not found:
            raise PyFailoverError(
                f"{master!r} is not attached", hint="'pyfailover status' lists groups"
            )
        if watch and not as_json:
            click.clear()
        _show(found, waiting, as_json=as_json, served=controller is not None)
        if not watch:
            break
        time.sleep(1)
    healths = {group.health for group in found}
    if waiting or Health.DOWN in healths:
        context.exit(_NO_SLAVE)
    if Health.DEGRADED in healths:
        context.exit(_DEGRADED)


def _show(
    found: Sequence[GroupStatus],
    waiting: Mapping[str, str],
    *,
    as_json: bool,
    served: bool,
) -> None:
    if as_json:
        body = {
            "controller": served,
            "groups": [asdict(group) for group in found],
            "waiting": waiting,
        }
        click.echo(json.dumps(body, indent=2))
        return
    for group in found:
        for line in report.table(group):
            click.echo(line)
    for name, why in waiting.items():
        click.echo(f"{name}: waiting, not attached: {why}")
    if not found and not waiting:
        click.echo("no groups in this network namespace")
    elif not served:
        warn_no_controller()


@cli.command(
    epilog="""\b
Examples:
  pyfailover events
  pyfailover events fo0 --last 5 --json
  pyfailover events --follow
"""
)
@click.argument("master", required=False, shell_complete=completing.groups)
@click.option("--last", metavar="N", type=click.IntRange(1), help="Only so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--follow", is_flag=True, help="And all to come, of the controller.")
@click.pass_obj
def events(
    roots: Roots, master: str | None, last: int | None, as_json: bool, follow: bool
) -> None:
    """Show what happened: switches, slaves that left and joined, repairs."""
    run = paths(roots)[1]
    coming = control.watch(run) if follow else iter(())
    past = History(run).read(master)
    found = past if last is None else past[-last:]
    if as_json:
        for event in found:
            click.echo(json.dumps(to_data(event)))
    else:
        for line in table(found):
            click.echo(line)
    for event in map(from_data, coming):
        if event not in past and master in (None, event.group):
            lines = table([event]) if not as_json else ["", json.dumps(to_data(event))]
            for line in [*lines][1:]:
                click.echo(line)


@cli.command(
    name="doctor",
    epilog="""\b
Exit code: 0 if failover would work, else 1.
\b
Examples:
  pyfailover doctor
  pyfailover doctor eth0 eth1
  pyfailover doctor --json
""",
)
@click.argument(
    "interfaces",
    metavar="[IF]...",
    nargs=-1,
    shell_complete=completing.interfaces,
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_context
def examine(context: click.Context, interfaces: tuple[str, ...], as_json: bool) -> None:
    """Say what this host can do and what is in the way, with cost and mend."""
    found = doctor.examine(context.obj, interfaces)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        for line in doctor.table(found):
            click.echo(line)
    if not doctor.would_fail_over(found):
        context.exit(_CANNOT)
