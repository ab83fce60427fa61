# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps that programs made by themselves, as they tell of them."""

from dataclasses import dataclass

from pyfailover.datapath import abi
from pyfailover.datapath.ring import Ring


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelStep:
    """A program moved the traffic of a group."""

    at: float  # of time.monotonic(), the clock of bpf_ktime_get_ns()
    group: int
    generation: int  # of the word that it made
    before: int | None  # slots
    after: int


class KernelSteps:
    """The ring of a namespace's programs; a step that was taken out is gone.

    Attributes:
        fd: readable while there is one; valid until close().
    """

    def __init__(self, map_fd: int) -> None:
        self._ring = Ring(map_fd)
        self.fd = self._ring.fd

    def take(self) -> list[KernelStep]:
        """Take all steps out, the oldest first."""
        return [_step(abi.Step.from_buffer_copy(raw)) for raw in self._ring.take()]

    def close(self) -> None:
        """Stop reading; what was not taken stays for the next one."""
        self._ring.close()


def _step(raw: abi.Step) -> KernelStep:
    return KernelStep(
        at=raw.ns / 1e9,
        group=raw.group,
        generation=raw.generation,
        before=None if raw.before == abi.NO_SLOT else raw.before,
        after=raw.after,
    )
