# SPDX-License-Identifier: GPL-2.0-or-later
"""What keeps network managers off the slaves, and on the master.

`networkd`, `networkmanager` and `ifupdown` each know the files of one; they are
pure, as is the `subject` of which they speak. `finding` finds that, `installing`
puts the files in place.
"""

from pyfailover.netconf.files import Configuration, File
from pyfailover.netconf.finding import find_subject
from pyfailover.netconf.installing import Done, install, remove
from pyfailover.netconf.managers import Manager, configuration
from pyfailover.netconf.subject import Dhcp, Subject

__all__ = [
    "Configuration",
    "Dhcp",
    "Done",
    "File",
    "Manager",
    "Subject",
    "configuration",
    "find_subject",
    "install",
    "remove",
]
