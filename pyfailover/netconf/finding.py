# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a group is found that a network manager is to be told of.

In the record of those that are attached, else in the files that declare them.
"""

from dataclasses import replace

from pyfailover import config
from pyfailover.errors import StateError
from pyfailover.ethtool import Ethtool
from pyfailover.journal import Journal
from pyfailover.netconf.subject import Subject, subject
from pyfailover.netlink.rtnl import Netlink
from pyfailover.place import Roots
from pyfailover.plan import has_master, lower_name, master_of
from pyfailover.steps import made_ends
from pyfailover.transaction import find_record, paths


def find_subject(roots: Roots, master: str) -> Subject:
    """The group of a master.

    Raises:
        StateError: it is neither attached nor declared.
    """
    with Netlink() as netlink, Ethtool() as ethtool:
        links = netlink.links()
        record = find_record(Journal(paths(roots)[1]), netlink.links, master)
        if record is not None:
            name, low = record.spec.name, None
            if has_master(record, links):
                name = master_of(record, links).face.name
            if record.created:
                ends = made_ends(links, record.low_mac)
                low = ends.low.name if ends else lower_name(record.spec.name)
            spec = replace(record.spec, name=name)
            return subject(spec, low, links, ethtool.driver, record.slaves)
        for declared in config.load(roots.etc, roots.netns).declared:
            if declared.spec.name == master:
                low = lower_name(master) if declared.create else None
                return subject(declared.spec, low, links, ethtool.driver)
    raise StateError(
        f"cannot tell which slaves '{master}' has: it is neither attached nor "
        f"declared in '{roots.etc}'",
        hint="'pyfailover status' shows the names of those that are attached",
    )
