# SPDX-License-Identifier: GPL-2.0-or-later
"""What each program costs for one packet, in ns, beside an empty program.

BPF_PROG_TEST_RUN over an IPv4/UDP frame of 60 bytes, a million repetitions a
run, runs of all programs in turn, medians. `carrier_` are the programs that look at
the slave's carrier, beside the plain ones of the same run.
"""

import ctypes
import os
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks.rows import Row, alternate, options, report
from pyfailover import lifecycle
from pyfailover.datapath import libbpf
from pyfailover.datapath.programs import ProgramSet
from pyfailover.lab import Lab, Namespace, scratch_roots
from pyfailover.model import GroupSpec, Side
from pyfailover.place import Roots
from pyfailover.transaction import locked_namespace, paths

MAC = "02:00:5e:10:00:01"
_CARRIER = "carrier_"
_PORTS = (
    ("stack_tx", "fo_stack_tx", "st0"),
    ("stack_rx", "fo_stack_rx", "eth1"),
    ("stack_rx_inactive", "fo_stack_rx", "eth2"),
    ("wire_tx", "fo_wire_tx", "wi0-low"),
    ("wire_rx", "fo_wire_rx", "eth3"),
)


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    runs, repeat = (3, 100_000) if chosen.quick else (15, 1_000_000)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with (
        _cases(repeat, carrier_test=False) as plain,
        _cases(repeat, carrier_test=True) as carrier,
    ):
        empty = {"empty": partial(_time, _empty_program(), 1, repeat)}
        values = alternate(empty | plain | carrier, runs)
    medians = {case: statistics.median(found) for case, found in values.items()}
    rows = [
        Row(
            case=case,
            value=value,
            unit="ns a packet",
            baseline=medians[
                case.removeprefix(_CARRIER) if case in carrier else "empty"
            ],
            better="lower",
        )
        for case, value in medians.items()
    ]
    report("program_cost", rows, chosen)


@contextmanager
def _cases(
    repeat: int, *, carrier_test: bool
) -> Iterator[dict[str, Callable[[], float]]]:
    """Runs of the programs of one kind, over groups of their own."""
    with Lab() as lab, scratch_roots() as roots:
        host, far = lab.namespace("host"), lab.namespace("far")
        _groups(lab, host, far, roots, carrier_test=carrier_test)
        with host.enter():
            programs = ProgramSet(paths(roots)[0])
        with programs:
            yield {
                f"{_CARRIER if carrier_test else ''}{case}": partial(
                    _in, host, programs.program(program), host.ifindex(device), repeat
                )
                for case, program, device in _PORTS
            }


def _groups(
    lab: Lab, host: Namespace, far: Namespace, roots: Roots, *, carrier_test: bool
) -> None:
    """A stack and a wire master, each with two slaves that are up."""
    for number in range(1, 5):
        lab.veth(host, f"eth{number}", far, f"p{number}", mac_a=MAC)
    with host.enter(), locked_namespace(roots) as namespace:
        for name, side, first in (("st0", Side.STACK, 1), ("wi0", Side.WIRE, 3)):
            spec = GroupSpec(
                name=name,
                primary=f"eth{first}",
                standbys=(f"eth{first + 1}",),
                side=side,
            )
            lifecycle.create(namespace, spec, carrier_test=carrier_test)


def _empty_program() -> int:
    """A SCHED_CLS program that returns TC_ACT_UNSPEC: what calling one costs."""
    bpf_prog_type_sched_cls = 3
    # struct bpf_insn: code, registers, offset, immediate; r0 = -1; exit
    instructions = b"".join(
        struct.pack("=BBhi", code, 0, 0, value)
        for code, value in ((0xB7, -1), (0x95, 0))
    )
    fd: int = ctypes.CDLL("libbpf.so.1").bpf_prog_load(
        bpf_prog_type_sched_cls, b"empty", b"GPL", instructions, 2, None
    )
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd), "load the empty program")
    return fd


def _in(host: Namespace, fd: int, ifindex: int, repeat: int) -> float:
    """ns of one repetition in a namespace."""
    with host.enter():
        return _time(fd, ifindex, repeat)


def _time(fd: int, ifindex: int, repeat: int) -> float:
    """ns of one repetition."""
    mac = bytes.fromhex(MAC.replace(":", ""))
    frame = (mac + mac + struct.pack("!H", 0x0800)).ljust(60, b"\0")
    context = libbpf.skb_context(ifindex)
    start = time.perf_counter_ns()
    libbpf.run(fd, frame, ctx=context, repeat=repeat)
    return (time.perf_counter_ns() - start) / repeat


if __name__ == "__main__":
    main()
