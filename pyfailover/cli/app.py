# SPDX-License-Identifier: GPL-2.0-or-later
"""The group of all commands: its options, its errors, its exit codes."""

import logging
import os
import signal
import sys
from pathlib import Path

import click

from pyfailover import __version__, logs
from pyfailover.errors import BuildError, PyFailoverError
from pyfailover.logs import Style
from pyfailover.place import (
    CACHE_ROOT,
    ETC_ROOT,
    PIN_ROOT,
    RUN_ROOT,
    Roots,
    in_named_namespace,
)

# They join it for good: once they have given up their rights there is no way back.
_JOIN_THEMSELVES = ("run", "export")

_DIR = click.Path(path_type=Path, file_okay=False)


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
@click.option(
    "--config-root",
    type=_DIR,
    default=ETC_ROOT,
    show_default=True,
    help="Directory that holds the files of lasting groups.",
)
@click.option(
    "--cache-root",
    type=_DIR,
    default=CACHE_ROOT,
    show_default=True,
    help="Directory that holds the compiled programs.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks and compiler logs.")
@click.version_option(__version__, prog_name="pyfailover")
@click.pass_context
def cli(
    context: click.Context,
    netns: str | None,
    pin_root: Path,
    run_root: Path,
    config_root: Path,
    cache_root: Path,
    debug: bool,
) -> None:
    """Linux net_failover in eBPF: one master, a primary, standbys.

    The traffic of the master goes through its active slave, inside the kernel.
    """
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING, format="%(message)s"
    )
    logging.getLogger().handlers[0].setFormatter(_Lowercase())
    context.obj = Roots(
        pins=pin_root, run=run_root, etc=config_root, cache=cache_root, netns=netns
    )
    if context.invoked_subcommand not in _JOIN_THEMSELVES:
        context.with_resource(in_named_namespace(netns))


class _Lowercase(logging.Formatter):
    """`warning: …`, like every other tool of this field."""

    def format(self, entry: logging.LogRecord) -> str:
        return f"{entry.levelname.lower()}: {entry.getMessage()}"


def log_to_stderr(style: Style) -> None:
    """Log as a service does, in place of the warnings of a command."""
    logs.configure(style, min(logging.INFO, logging.getLogger().level), sys.stderr)


def warn_no_controller() -> None:
    """Say what is missing."""
    click.echo("warning: no controller: nothing will be brought back", err=True)
