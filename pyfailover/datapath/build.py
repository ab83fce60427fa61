# SPDX-License-Identifier: GPL-2.0-or-later
"""Compile, load and pin the programs, in a process that ends.

The only importer of bcc: LLVM takes 130 MB that must not stay in a controller.
`python -m pyfailover.datapath.build DIR MAX_GROUPS` is the process; what the
compiler and the verifier say goes to its stderr, which is a pipe to us.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from pyfailover.datapath import abi, libbpf
from pyfailover.datapath.toolchain import bpf_dir, find_headers, merge_headers
from pyfailover.errors import BuildError

PROGRAMS = ("fo_stack_tx", "fo_stack_rx", "fo_wire_tx", "fo_wire_rx", "fo_cas")
MAPS = (
    "fo_ports",
    "fo_groups",
    "fo_states",
    "fo_slave_stats",
    "fo_group_stats",
    "fo_sources",
    "fo_last_source",
)
_SOURCE = "failover_tc.c"
_TIMEOUT_S = 300  # an emulated CPU takes 90 s


def build(directory: Path, max_groups: int, *, lock_fd: int, scratch: Path) -> None:
    """Fill a directory of a bpffs with `progs/NAME` and `maps/NAME`.

    Args:
        lock_fd: the caller's lock, inherited so that it is held until the
            compiling process has ended even if the caller is killed.
        scratch: directory for a tree of headers; whoever holds the lock may
            remove it, and should after a kill.

    Raises:
        BuildError: bcc is missing, or the programs do not compile or load.
        UnsupportedError: no kernel headers.
    """
    build_tree, source_tree = find_headers(os.uname().release)
    shutil.rmtree(scratch, ignore_errors=True)
    merge_headers(build_tree, source_tree, scratch)
    try:
        child = subprocess.run(
            [sys.executable, "-m", __name__, str(directory), str(max_groups)],
            env=dict(os.environ, BCC_KERNEL_SOURCE=str(scratch)),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=(lock_fd,),
            timeout=_TIMEOUT_S,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise BuildError(
            f"cannot load the programs: compiling took over {_TIMEOUT_S} s",
            log=str(exc.stderr or ""),
        ) from exc
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if child.returncode != 0:
        raise _explain(child.stderr)


def _explain(log: str) -> BuildError:
    """The error that a compiler's, verifier's or interpreter's text means."""
    lines = [line for line in log.splitlines() if line.strip()]
    if "No module named 'bcc'" in log:
        return BuildError(
            "cannot load the programs: the Python module bcc is missing",
            log=log,
            hint="apt install python3-bpfcc, and run on /usr/bin/python3 (a venv "
            "needs --system-site-packages; PyPI's bcc is an unrelated package)",
        )
    telling = [line for line in lines if "error:" in line] or _verdict(lines)
    omitted = len(lines) - len(telling[:3])
    return BuildError(
        f"cannot load the programs: {' / '.join(telling[:3])} "
        f"({omitted} lines omitted)",
        log=log,
        hint="--debug shows the whole log",
    )


def _verdict(lines: list[str]) -> list[str]:
    """The verifier's reason stands above its count of instructions."""
    for number, line in enumerate(lines):
        if line.startswith("processed ") and number:
            return [*lines[max(0, number - 2) : number], lines[-1]]
    return lines[-1:]


def _die_with_parent() -> None:
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


def _main(directory: Path, max_groups: int) -> None:
    _die_with_parent()
    from bcc import BPF

    source = bpf_dir() / _SOURCE
    module = BPF(
        text=f'#line 1 "bpf/{_SOURCE}"\n{source.read_text()}',
        cflags=[
            f"-I{bpf_dir()}",
            "-Wall",
            "-Werror",
            f"-DFO_MAX_GROUPS={max_groups}",
            f"-DFO_PORT_BITS={abi.port_bits(max_groups)}",
        ],
    )
    functions = {name: module.load_func(name, BPF.SCHED_CLS) for name in PROGRAMS}
    for sub in ("progs", "maps"):
        (directory / sub).mkdir(mode=0o700)
    for name, function in functions.items():
        libbpf.obj_pin(function.fd, directory / "progs" / name)
    for name in MAPS:
        libbpf.obj_pin(module[name].map_fd, directory / "maps" / name)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
