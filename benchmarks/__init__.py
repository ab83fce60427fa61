# SPDX-License-Identifier: GPL-2.0-or-later
"""Measurements, each a ratio against a baseline of the same run.

`python -m benchmarks.NAME [--quick] [--json FILE]`, as root.
"""
