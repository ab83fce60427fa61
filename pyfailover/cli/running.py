# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that run for long, and what steers them."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

from pyfailover import asking
from pyfailover.cli.app import cli, log_to_stderr, warn_no_controller
from pyfailover.errors import StateError
from pyfailover.exporter.address import parse_address
from pyfailover.logs import Style
from pyfailover.place import Roots, join_named_namespace
from pyfailover.privileges import DEFAULT_USER, account, can_become_another

log = logging.getLogger(__name__)

_LISTEN = "127.0.0.1:9909"
_FILE = click.Path(path_type=Path, dir_okay=False)


def _tls_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "--client-ca",
            metavar="FILE",
            type=_FILE,
            help="Answer only clients with a certificate of this CA.",
        ),
        click.option("--tls-key", metavar="FILE", type=_FILE, help="Its key, as PEM."),
        click.option(
            "--tls-cert",
            metavar="FILE",
            type=_FILE,
            help="Answer scrapes by TLS, with this certificate (PEM).",
        ),
    ):
        command = option(command)
    return command


def _tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> bool:
    """Whether TLS is asked for, and by options that go together."""
    if (certificate is None) is not (key is None):
        raise click.UsageError("--tls-cert and --tls-key go together")
    if client_ca is not None and certificate is None:
        raise click.UsageError("--client-ca goes with --tls-cert and --tls-key")
    return certificate is not None


def _export_options(
    listen: str, certificate: Path | None, key: Path | None, client_ca: Path | None
) -> list[str]:
    """The options of `export` that stand for these; paths as seen from anywhere."""
    files = {"tls-cert": certificate, "tls-key": key, "client-ca": client_ca}
    given = [f"--{k}={path.absolute()}" for k, path in files.items() if path]
    return [f"--listen={listen}", *given]


@cli.command(
    epilog="""\b
Listens in the network namespace that it tells of; docs/metrics.md explains
the metrics.
\b
Examples:
  pyfailover export
  pyfailover --netns lab export --listen '[::1]:9909'
  pyfailover export --listen 192.0.2.1:9909 --tls-cert cert.pem \\
    --tls-key key.pem --client-ca prometheus-ca.pem
"""
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default=_LISTEN,
    show_default=True,
    help="Where scrapes are answered.",
)
@_tls_options
@click.option(
    "--user",
    metavar="NAME",
    default=DEFAULT_USER,
    show_default=True,
    help="Whom to be, with no rights left: as the controller; or UID:GID.",
)
@click.option(
    "--until-eof", is_flag=True, hidden=True, help="End when standard input does."
)
@click.pass_obj
def export(
    roots: Roots,
    listen: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    client_ca: Path | None,
    user: str,
    until_eof: bool,
) -> None:
    """Serve metrics of this namespace to Prometheus, with or without a controller."""
    from pyfailover.exporter.process import export as serve
    from pyfailover.exporter.serving import Tls

    log_to_stderr(Style.TEXT)
    tls = None
    if _tls(tls_cert, tls_key, client_ca) and tls_cert and tls_key:
        tls = Tls(certificate=tls_cert, key=tls_key, client_ca=client_ca)
    join_named_namespace(roots.netns)
    who = account(user) if can_become_another() else None
    serve(roots, listen, tls, who=who, until_eof=until_eof)


@cli.command(
    epilog="""\b
Signals: SIGHUP reloads; SIGTERM and SIGINT end it and leave traffic running.
\b
Examples:
  pyfailover run
  pyfailover --netns lab run --log-format json
  pyfailover run --metrics 127.0.0.1:9909
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
@click.option(
    "--user",
    metavar="NAME",
    default=DEFAULT_USER,
    show_default=True,
    help="Whom to be once all is begun, with four capabilities left; or UID:GID.",
)
@click.option(
    "--metrics",
    metavar="HOST:PORT",
    help="Have an exporter run as a child, see 'pyfailover export'.",
)
@_tls_options
@click.pass_obj
def run(
    roots: Roots,
    log_format: str,
    reconcile: float,
    poll: float,
    carrier_test: bool | None,
    user: str,
    metrics: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    client_ca: Path | None,
) -> None:
    """Be the controller: fail over, bring back, mend; one for each namespace."""
    export = None
    if _tls(tls_cert, tls_key, client_ca) and metrics is None:
        raise click.UsageError("--tls-cert goes with --metrics")
    if metrics is not None:
        parse_address(metrics)  # else its child would say so again and again
        export = _export_options(metrics, tls_cert, tls_key, client_ca)
    from pyfailover.controller import Controller
    from pyfailover.requests import Requests

    log_to_stderr(Style(log_format))
    join_named_namespace(roots.netns)  # all threads to come shall be there, too
    roots = replace(roots, carrier_test=carrier_test)
    who = account(user)
    if who is None:
        log.warning("there is no user '%s': the controller stays root's", user)
    elif not can_become_another():
        log.warning("may not become user '%s': the controller stays who it is", user)
        who = None
    controller = Controller(
        roots, reconcile_s=reconcile, poll_s=poll / 1000, export=export, user=who
    )
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
