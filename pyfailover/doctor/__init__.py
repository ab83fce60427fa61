# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host, its interfaces and its groups lack, what that costs, how to mend it.

Reads, changes nothing.
"""

from pyfailover.doctor.examination import examine
from pyfailover.doctor.findings import Finding, Level, table, would_fail_over
from pyfailover.doctor.system import HOST, System

__all__ = ["HOST", "Finding", "Level", "System", "examine", "table", "would_fail_over"]
