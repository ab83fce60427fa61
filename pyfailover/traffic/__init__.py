# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbered traffic between namespaces, and what became of it.

`accounting` is pure; `process` hides the children that make and take traffic,
`mmsg` the system calls for many datagrams at once, `pace` the clockwork.
"""

from pyfailover.traffic.accounting import Outcome, Received, Sent, account
from pyfailover.traffic.process import TrafficError
from pyfailover.traffic.tcp import TcpOutcome, TcpStream
from pyfailover.traffic.udp import UdpStream, backlog_dropped, udp_flood

__all__ = [
    "Outcome",
    "Received",
    "Sent",
    "TcpOutcome",
    "TcpStream",
    "TrafficError",
    "UdpStream",
    "account",
    "backlog_dropped",
    "udp_flood",
]
