# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host must have: rights, kernel, libraries, a compiler, a controller."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from pyfailover.datapath import btf, cache, hooks, libbpf
from pyfailover.datapath.loading import DEFAULT_MAX_GROUPS
from pyfailover.datapath.recipe import Recipe
from pyfailover.datapath.toolchain import find_headers
from pyfailover.doctor.findings import Finding, Level, fatal
from pyfailover.doctor.system import HOST, System, value
from pyfailover.errors import UnsupportedError
from pyfailover.place import Roots, controller_pid, on_bpffs
from pyfailover.privileges import DEFAULT_USER, account

_NET_ADMIN, _SYS_ADMIN, _BPF = 1 << 12, 1 << 21, 1 << 39  # linux/capability.h


def essentials(system: System = HOST) -> list[Finding]:
    """What there must be for anything else to be looked at."""
    return [_rights(system), _kernel(system), _libbpf()]


def _rights(system: System) -> Finding:
    """What a process may: capabilities, which root may lack in a container."""
    held = int(value(system.proc / "self/status", "CapEff", ":") or "0", 16)
    look = Finding(what="privileges", found="all that is needed")
    if not held & _NET_ADMIN or not held & (_BPF | _SYS_ADMIN):
        return replace(
            look,
            level=Level.FATAL,
            found="CAP_NET_ADMIN or CAP_BPF is missing",
            cost="nothing can be attached, nor looked at here",
            mend="run as root",
        )
    if not held & _SYS_ADMIN:
        return replace(
            look,
            level=Level.COST,
            found="CAP_SYS_ADMIN is missing",
            cost="no --netns, no mounting of a bpffs, no names of foreign programs",
            mend="run as root",
        )
    return look


def _kernel(system: System) -> Finding:
    version = _version(system.release)
    look = Finding(what="kernel", found=system.release)
    if version < (5, 14):
        return replace(
            look,
            level=Level.FATAL,
            cost="network namespaces cannot be told apart (SO_NETNS_COOKIE)",
            mend="boot Linux 5.14 or later; 6.6 has all that is used",
        )
    return look


def _version(release: str) -> tuple[int, ...]:
    numbers = release.split("-")[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdecimal())


def _libbpf() -> Finding:
    try:
        libbpf.possible_cpus()
    except UnsupportedError as exc:
        return fatal(exc, what="libbpf", cost="nothing can be attached")
    return Finding(what="libbpf", found="loads")


def toolchain(system: System, store: Path, *, loaded: bool) -> Iterator[Finding]:
    """What compiling needs; programs that are loaded or kept do without.

    Args:
        store: where compiled programs are kept.
    """
    kept = cache.has(store, Recipe(DEFAULT_MAX_GROUPS, btf.lack() is None))
    fits = "has what this kernel needs" if kept else "has nothing for this kernel yet"
    yield Finding(what="program cache", found=fits)
    lack = Finding(
        what="",
        found="",
        level=Level.COST if loaded or kept else Level.FATAL,
        cost="the programs are kept, but not for other kernels or --max-groups"
        if kept
        else "the programs are loaded, but could not be once more"
        if loaded
        else "the programs cannot be compiled",
    )
    if _has_bcc():
        yield Finding(what="bcc", found="importable")
    else:
        yield replace(
            lack,
            what="bcc",
            found="not importable from this Python",
            mend="apt install python3-bpfcc, and a venv with --system-site-packages",
        )
    try:
        build, _ = find_headers(system.release, system.modules)
        yield Finding(what="kernel headers", found=str(build))
    except UnsupportedError as exc:
        found = exc.message.partition(": ")[2]
        yield replace(lack, what="kernel headers", found=found, mend=exc.hint or "")


def _has_bcc() -> bool:
    """Not imported: LLVM is 130 MB. PyPI has another package of the name."""
    spec = find_spec("bcc")
    places = spec.submodule_search_locations if spec else None
    return any((Path(place) / "libbcc.py").is_file() for place in places or ())


def surroundings(
    roots: Roots, run: Path, system: System, *, carrier_test: bool | None
) -> Iterator[Finding]:
    """What attaching and failing over go better with, or not without.

    Args:
        carrier_test: of the programs that are loaded; None: there are none.
    """
    test = _carrier_test(system, carrier_test)
    yield test
    if on_bpffs(roots.pins):
        yield Finding(what="bpffs", found=f"under {roots.pins}")
    else:
        yield Finding(
            level=Level.COST,
            what="bpffs",
            found=f"none under {roots.pins}",
            cost="attach has to mount one; inside 'ip netns exec' it refuses to",
            mend="mount -t bpf bpf /sys/fs/bpf",
        )
    if hooks.has_tcx():
        yield Finding(what="tcx", found="yes")
    else:
        yield Finding(
            level=Level.COST,
            what="tcx",
            found="not in this kernel",
            cost="clsact filters instead, which 'tc qdisc del' takes away unasked",
            mend="boot Linux 6.6 or later",
        )
    yield _controller(run, needed=test.level is not Level.OK)
    yield _user()


def _carrier_test(system: System, loaded: bool | None) -> Finding:
    """Whether programs look, or could look, at the slaves' links themselves."""
    why = btf.lack(system.btf)
    look = Finding(
        level=Level.COST,
        what="carrier test",
        found="this kernel has " + (why or "all that it takes"),
        cost="a lost carrier is left when the controller knows of it, not at once",
        mend="a kernel with BTF, Linux 6.2 or later",
    )
    if loaded or (loaded is None and why is None):
        found = "in the programs" if loaded else look.found
        return replace(look, level=Level.OK, found=found, cost="", mend="")
    if why is None:
        mend = "pyfailover reload --programs --carrier-test"
        return replace(look, found="not in the programs that are loaded", mend=mend)
    return look


def _user() -> Finding:
    """Whom a controller becomes once it has begun."""
    look = Finding(what="user", found=f"'{DEFAULT_USER}' is there")
    if account(DEFAULT_USER) is not None:
        return look
    return replace(
        look,
        level=Level.COST,
        found=f"there is no '{DEFAULT_USER}'",
        cost="controller and exporter stay uid 0, if with few capabilities",
        mend="useradd --system --no-create-home --shell /usr/sbin/nologin "
        f"{DEFAULT_USER}",
    )


def _controller(run: Path, *, needed: bool) -> Finding:
    look = Finding(what="controller", found="none runs")
    pid = controller_pid(run)
    if pid is not None:
        return replace(look, found=f"process {pid}")
    if needed:
        cost = "a lost carrier would not be noticed, and nothing brought back"
        return replace(look, level=Level.FATAL, cost=cost, mend="pyfailover run")
    cost = "what was left is not brought back, and the network is not told"
    return replace(look, level=Level.COST, cost=cost, mend="pyfailover run")
