# SPDX-License-Identifier: GPL-2.0-or-later
"""Decisions, pure: no clock, no I/O, no library.

Every function takes what is known and returns the word that should be in
force; to write it is somebody else's work.
"""

from pyfailover.model import Word


def switched(word: Word, slot: int) -> Word:
    """The operator or the controller moves the traffic to a slot."""
    bit = 1 << slot
    return Word(
        generation=word.generation + 1 & 0xFFFFFFFF,
        active=slot,
        left=word.left & ~bit,
        approved=word.approved | bit,
    )


def joined(word: Word, slot: int, *, ready: bool) -> Word:
    """A slave took its slot (again): it is usable if it is ready.

    The active slave does not change, unless there is none.
    """
    if ready and word.active in (None, slot):
        return switched(word, slot)
    bit = 1 << slot
    return Word(
        generation=word.generation + 1 & 0xFFFFFFFF,
        active=word.active,
        left=word.left & ~bit,
        approved=word.approved | bit if ready else word.approved & ~bit,
        by_kernel=word.by_kernel,
    )
