# SPDX-License-Identifier: GPL-2.0-or-later
"""rtnetlink of one network namespace: the only importer of pyroute2.

`rtnl` asks and changes, `decode` makes messages into our own frozen values.
pyroute2's and the kernel's errors go out as NetlinkError.
"""
