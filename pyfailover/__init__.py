# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux net_failover in eBPF, controlled from Python."""

__version__ = "0.1.0"
