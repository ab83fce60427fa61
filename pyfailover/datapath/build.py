# SPDX-License-Identifier: GPL-2.0-or-later
"""Compile the programs, in a process that ends.

The only importer of bcc: LLVM takes 130 MB that must not stay in a controller.
`python -m pyfailover.datapath.build -D…` is the process. It prints an image;
what the compiler says goes to its stderr. Both are pipes to us. Nothing that it
makes in the kernel outlives it.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pyfailover.datapath import abi
from pyfailover.datapath.image import Image, Map, abstract
from pyfailover.datapath.toolchain import bpf_dir, find_headers, merge_headers
from pyfailover.errors import BuildError
from pyfailover.privileges import Cap, handed_down

PROGRAMS = (
    "fo_stack_tx",
    "fo_stack_rx",
    "fo_wire_tx",
    "fo_wire_rx",
    "fo_seat",
    "fo_look",
    "fo_cas",
)
MAPS = (
    "fo_ports",
    "fo_groups",
    "fo_states",
    "fo_slave_stats",
    "fo_group_stats",
    "fo_sources",
    "fo_last_source",
    "fo_steps",
    "fo_about",
)
_SOURCE = "failover_tc.c"
_TIMEOUT_S = 300  # an emulated CPU takes 90 s


def build(flags: Sequence[str], *, lock_fd: int | None, scratch: Path) -> Image:
    """Compile the programs.

    Args:
        flags: the compiler's, `-DNAME=VALUE`.
        lock_fd: the caller's lock, inherited so that it is held until the
            compiling process has ended even if the caller is killed.
        scratch: directory for a tree of headers; whoever holds the lock may
            remove it, and should after a kill.

    Raises:
        BuildError: bcc is missing, or the programs do not compile.
        UnsupportedError: no kernel headers.
    """
    build_tree, source_tree = find_headers(os.uname().release)
    shutil.rmtree(scratch, ignore_errors=True)
    merge_headers(build_tree, source_tree, scratch)
    try:
        with handed_down(Cap.BPF):  # bcc makes maps
            child = subprocess.run(
                [sys.executable, "-m", __name__, *flags],
                env=dict(os.environ, BCC_KERNEL_SOURCE=str(scratch)),
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                pass_fds=() if lock_fd is None else (lock_fd,),
                timeout=_TIMEOUT_S,
                check=False,
            )
    except subprocess.TimeoutExpired as exc:
        raise BuildError(
            f"cannot compile the programs: it took over {_TIMEOUT_S} s",
            log=(exc.stderr or b"").decode(errors="replace"),
        ) from exc
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if child.returncode != 0:
        raise _explain(child.stderr.decode(errors="replace"))
    return Image.from_bytes(child.stdout)


def _explain(log: str) -> BuildError:
    """The error that a compiler's or interpreter's text means."""
    lines = [line for line in log.splitlines() if line.strip()]
    if "No module named 'bcc'" in log:
        return BuildError(
            "cannot compile the programs: the Python module bcc is missing",
            log=log,
            hint="apt install python3-bpfcc, and run on /usr/bin/python3 (a venv "
            "needs --system-site-packages; PyPI's bcc is an unrelated package)",
        )
    telling = [line for line in lines if "error:" in line] or lines[-1:]
    omitted = len(lines) - len(telling[:3])
    return BuildError(
        f"cannot compile the programs: {' / '.join(telling[:3])} "
        f"({omitted} lines omitted)",
        log=log,
        hint="--debug shows the whole log",
    )


def _die_with_parent() -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


def _compile(flags: Sequence[str]) -> Image:
    from bcc import BPF, lib

    source = bpf_dir() / _SOURCE
    module = BPF(
        text=f'#line 1 "bpf/{_SOURCE}"\n{source.read_text()}',
        cflags=[f"-I{bpf_dir()}", *flags],
    )
    handle = ctypes.c_void_p(module.module)

    def definition(name: bytes) -> Map:
        # Of bcc's own, as the kernel adds flags that it takes from nobody.
        return Map(
            type=lib.bpf_table_type(handle, name),
            key_size=lib.bpf_table_key_size(handle, name),
            value_size=lib.bpf_table_leaf_size(handle, name),
            max_entries=lib.bpf_table_max_entries(handle, name),
            flags=lib.bpf_table_flags(handle, name),
        )

    descriptors = {lib.bpf_table_fd(handle, name.encode()): name for name in MAPS}
    magic = {number: name for name, number in abi.KFUNCS.items()}
    return Image(
        maps={name: definition(name.encode()) for name in MAPS},
        programs={
            name: abstract(
                module.dump_func(name.encode()),
                type=BPF.SCHED_CLS,
                maps=descriptors,
                kfuncs=magic,
            )
            for name in PROGRAMS
        },
    )


if __name__ == "__main__":
    _die_with_parent()
    sys.stdout.buffer.write(_compile(sys.argv[1:]).to_bytes())
