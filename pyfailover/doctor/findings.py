# SPDX-License-Identifier: GPL-2.0-or-later
"""What the doctor finds: with its cost and its mend, and how a list of it reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from textwrap import wrap

from pyfailover.errors import PyFailoverError

_WIDTH = 80


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    COST = "cost"  # failover works, and something else does not
    FATAL = "fatal"  # failover would not work


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    level: Level = Level.OK
    subject: str = "host"  # or an interface, a group
    what: str
    found: str
    cost: str = ""
    mend: str = ""


def fatal(exc: PyFailoverError, *, what: str, cost: str) -> Finding:
    """An error as a finding on the host."""
    return Finding(
        level=Level.FATAL,
        what=what,
        found=exc.message,
        cost=cost,
        mend=exc.hint or "",
    )


def would_fail_over(findings: Sequence[Finding]) -> bool:
    """Whether a failure would leave the traffic running."""
    return all(finding.level is not Level.FATAL for finding in findings)


def table(findings: Sequence[Finding]) -> Iterator[str]:
    """Findings by subject, in lines of at most 80 columns."""
    for subject in dict.fromkeys(finding.subject for finding in findings):
        yield subject
        for finding in findings:
            if finding.subject == subject:
                yield from _rows(finding)
    works = would_fail_over(findings)
    yield "failover would work" if works else "failover would not work"


def _rows(finding: Finding) -> Iterator[str]:
    margin = " " * 9
    lead = f"  {finding.level:<5}  {finding.what:<14} "
    yield from _wrapped(finding.found, lead, margin)
    for title, text in (("costs", finding.cost), ("mend", finding.mend)):
        if text:
            yield from _wrapped(text, f"{margin}{title}: ", margin + "  ")


def _wrapped(text: str, first: str, others: str) -> list[str]:
    return wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
