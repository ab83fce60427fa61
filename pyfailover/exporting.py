# SPDX-License-Identifier: GPL-2.0-or-later
"""The exporter as a child of a controller: started, watched, started again.

It holds the other end of a pipe and ends with that, so it never outlives the
controller, however that ends.
"""

import asyncio
import logging
import os
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence

from pyfailover.logs import event as log_event
from pyfailover.place import Roots

log = logging.getLogger(__name__)

_PAUSE_S, _PAUSE_MAX_S = 0.5, 60.0  # before it is started again; doubles
_WELL_S = 60.0  # one that ran for so long was well
_END_WITHIN_S = 2.0


def command(roots: Roots, options: Sequence[str]) -> list[str]:
    """`pyfailover export` for the calling process's network namespace.

    Args:
        options: of `export`.
    """
    return [
        *(sys.executable, "-P", "-m", "pyfailover"),
        f"--pin-root={roots.pins}",
        f"--run-root={roots.run}",
        f"--config-root={roots.etc}",
        f"--cache-root={roots.cache}",
        *("export", "--until-eof", *options),
    ]


async def keep_exporting(argv: Sequence[str], fds: Sequence[int]) -> None:
    """Have the exporter run, until cancelled; what it has to say is on our stderr.

    Args:
        fds: descriptors that it needs, too.
    """
    # It is in our namespace already, and may not enter any.
    environment = {k: v for k, v in os.environ.items() if k != "PYFAILOVER_NETNS"}
    pause_s = _PAUSE_S
    while True:
        begun = time.monotonic()
        try:
            code: int | str = await _run(argv, fds, environment)
        except OSError as exc:  # no room for a process; the controller goes on
            code = exc.strerror or str(exc)
        if time.monotonic() - begun > _WELL_S:
            pause_s = _PAUSE_S
        log_event(log, logging.ERROR, "exporter ended", code=code, again_in_s=pause_s)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _PAUSE_MAX_S)


async def _run(
    argv: Sequence[str], fds: Sequence[int], environment: Mapping[str, str]
) -> int:
    """Have it run to its end, or until cancelled; its exit code."""
    child = await asyncio.create_subprocess_exec(
        *argv, stdin=PIPE, stdout=DEVNULL, env=environment, pass_fds=fds
    )
    try:
        return await child.wait()
    finally:
        await _end(child)


async def _end(child: Process) -> None:
    """Have it end, if it has not."""
    if child.returncode is not None:
        return
    if child.stdin is not None:
        child.stdin.close()
    try:
        async with asyncio.timeout(_END_WITHIN_S):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()
