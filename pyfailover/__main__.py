# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m pyfailover`: the command line."""

from pyfailover.cli import main

main()
