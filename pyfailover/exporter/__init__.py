# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a namespace as metrics over HTTP, by a process that changes nothing.

`looking` reads it, `families` gives it names (docs/metrics.md), `serving` answers
scrapes, `process` joins them.
"""
