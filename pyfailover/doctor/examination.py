# SPDX-License-Identifier: GPL-2.0-or-later
"""In which order a host is looked at, and after which findings no further."""

from collections.abc import Sequence

from pyfailover.doctor.claimants import managers, opaque_managers
from pyfailover.doctor.findings import Finding, fatal, would_fail_over
from pyfailover.doctor.host import essentials, surroundings, toolchain
from pyfailover.doctor.interfaces import Examiner
from pyfailover.doctor.system import HOST, System
from pyfailover.errors import PyFailoverError
from pyfailover.ethtool import Ethtool
from pyfailover.journal import Journal
from pyfailover.netlink.rtnl import Netlink
from pyfailover.place import Roots
from pyfailover.steps import Host
from pyfailover.transaction import open_programs, paths


def examine(
    roots: Roots, names: Sequence[str] = (), system: System = HOST
) -> list[Finding]:
    """Look at this host, and at interfaces of this network namespace.

    Args:
        names: of interfaces, slaves to be among them; none for those of all
            groups.
    """
    findings = essentials(system)
    if not would_fail_over(findings):
        return findings  # without these nothing more is to be seen
    pins, run = paths(roots)
    with Netlink() as netlink, Ethtool() as ethtool:
        host = Host(netlink, ethtool, pins, open_programs(pins))
        try:
            loaded = host.programs is not None
            findings += toolchain(system, roots.cache, loaded=loaded)
            test = None if host.programs is None else host.programs.carrier_test
            findings += surroundings(roots, run, system, carrier_test=test)
            running = managers(system)
            findings.append(opaque_managers(running))
            examiner = Examiner(host, Journal(run).all(), running, system)
            findings += examiner.findings(roots, names)
        except PyFailoverError as exc:
            findings.append(fatal(exc, what="examination", cost="the rest is unknown"))
        finally:
            if host.programs is not None:
                host.programs.close()
    return findings
