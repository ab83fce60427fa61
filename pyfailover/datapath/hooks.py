# SPDX-License-Identifier: GPL-2.0-or-later
"""Attachments: one program on one hook of one interface, by tcx or clsact.

A tcx link is pinned as links/IFINDEX-HOOK; without the pin it would die with
our process, and with the pin removed it is gone. A clsact filter is known by
our priority and handle, and is ours only if its program is one of the set's.
"""

import errno
import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from pyfailover.datapath import libbpf
from pyfailover.datapath.build import PROGRAMS
from pyfailover.datapath.programs import seen_ids
from pyfailover.errors import BpfError
from pyfailover.model import Hook, TcMode

# Behind every filter whose preference somebody or the kernel (0xc000 and
# below) chose; above libbpf's and other agents' defaults of 1.
PRIORITY = 0xFF00
HANDLE = 0xF0

_TCX = {Hook.INGRESS: libbpf.TCX_INGRESS, Hook.EGRESS: libbpf.TCX_EGRESS}
_TC = {Hook.INGRESS: libbpf.TC_INGRESS, Hook.EGRESS: libbpf.TC_EGRESS}


def has_tcx() -> bool:
    """Whether the kernel has tcx (6.6)."""
    try:
        libbpf.tcx_progs(1, libbpf.TCX_INGRESS)
    except OSError as exc:
        if exc.errno == errno.EINVAL:
            return False
        if exc.errno != errno.ENODEV:
            raise
    return True


def describe_program(prog_id: int) -> str:
    """A program as people know it."""
    return f"'{libbpf.prog_name(prog_id)}' (id {prog_id})"


class Attachment:
    """One hook of one interface, attached or not."""

    def __init__(self, pins: Path, ifindex: int, hook: Hook, mode: TcMode) -> None:
        self.ifindex = ifindex
        self.hook = hook
        self.mode = mode
        self._pin = pins / f"links/{ifindex}-{hook}"

    def __str__(self) -> str:
        return f"{self.mode} attachment on {self.hook} of interface {self.ifindex}"

    def attached(self, ours: Collection[int]) -> bool:
        """Whether the program is there and sees packets of this interface."""
        if self.mode is TcMode.CLSACT:
            return self._filter_prog() in ours
        try:
            with libbpf.opened(self._pin) as fd:
                link = libbpf.link_info(fd)
        except FileNotFoundError:
            return False
        return link.ifindex == self.ifindex and link.prog_id in ours

    def orphaned(self) -> bool:
        """Whether the device died under the program; only tcx links tell."""
        if self.mode is TcMode.CLSACT:
            return False
        try:
            with libbpf.opened(self._pin) as fd:
                return libbpf.link_info(fd).ifindex == 0
        except FileNotFoundError:
            return False

    def attach(self, prog_fd: int) -> None:
        """Attach; replaces in place what is already ours.

        Raises:
            BpfError: the kernel refused.
        """
        try:
            if self.mode is TcMode.CLSACT:
                libbpf.filter_attach(
                    prog_fd,
                    self.ifindex,
                    _TC[self.hook],
                    priority=PRIORITY,
                    handle=HANDLE,
                )
            else:
                self._attach_tcx(prog_fd)
        except OSError as exc:
            raise BpfError(
                f"cannot attach to {self.hook} of interface {self.ifindex} "
                f"by {self.mode}: {exc.strerror}"
            ) from exc

    def _attach_tcx(self, prog_fd: int) -> None:
        if self._is_elsewhere():
            self._pin.unlink()
        try:
            with libbpf.opened(self._pin) as link:
                libbpf.link_update(link, prog_fd)
        except FileNotFoundError:
            link = libbpf.tcx_attach(prog_fd, self.ifindex, _TCX[self.hook])
            try:
                libbpf.obj_pin(link, self._pin)
            finally:
                os.close(link)

    def _is_elsewhere(self) -> bool:
        """Whether the pin holds a link that is not on this interface (any more)."""
        try:
            with libbpf.opened(self._pin) as fd:
                return libbpf.link_info(fd).ifindex != self.ifindex
        except FileNotFoundError:
            return False

    def is_ours(self, ours: Collection[int]) -> bool:
        """Whether a filter is there and runs a program of ours."""
        prog = self._filter_prog()
        return prog is not None and _is_ours(prog, ours)

    def detach(self, ours: Collection[int]) -> None:
        """Detach; what is not there, or not ours, stays as it is."""
        if self.mode is not TcMode.CLSACT:
            # Removing the pin alone would detach it some time later.
            with suppress(FileNotFoundError), libbpf.opened(self._pin) as link:
                libbpf.link_detach(link)
            self._pin.unlink(missing_ok=True)
        elif self.is_ours(ours):
            libbpf.filter_detach(
                self.ifindex, _TC[self.hook], priority=PRIORITY, handle=HANDLE
            )

    def _filter_prog(self) -> int | None:
        return libbpf.filter_prog(
            self.ifindex, _TC[self.hook], priority=PRIORITY, handle=HANDLE
        )


def all_attachments(pins: Path, ifindexes: Iterable[int]) -> list[Attachment]:
    """Every attachment of ours: pinned links, and filters on these interfaces."""
    found = []
    for pin in sorted((pins / "links").glob("*-*")):
        index, _, name = pin.name.partition("-")
        found.append(Attachment(pins, int(index), Hook(name), TcMode.TCX))
    for ifindex in ifindexes:
        for hook in Hook:
            attachment = Attachment(pins, ifindex, hook, TcMode.CLSACT)
            if attachment.is_ours(()):
                found.append(attachment)
    return found


def _is_ours(prog: int, ours: Collection[int]) -> bool:
    """By id; by name once the set that it came from is gone."""
    return prog in ours or prog in seen_ids or libbpf.prog_name(prog) in PROGRAMS


def make_clsact(ifindex: int) -> bool:
    """Have a clsact qdisc; True if it was made, False if one is there."""
    try:
        libbpf.clsact_create(ifindex)
    except OSError as exc:
        if exc.errno == errno.EEXIST:
            return False
        raise BpfError(
            f"cannot make a clsact qdisc on interface {ifindex}: {exc.strerror}"
        ) from exc
    return True


def drop_clsact(ifindex: int) -> None:
    """Delete the clsact qdisc; the caller has seen that it is empty."""
    try:
        libbpf.clsact_destroy(ifindex)
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
            raise BpfError(
                f"cannot delete the clsact qdisc of interface {ifindex}: {exc.strerror}"
            ) from exc
