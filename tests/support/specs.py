# SPDX-License-Identifier: GPL-2.0-or-later
"""Hypothesis strategies: any group that there can be."""

from dataclasses import fields
from enum import StrEnum
from typing import Any, get_type_hints

from hypothesis import strategies as st

from pyfailover.model import MAX_SLAVES, RANGES, GroupSpec


def short(text: str) -> bool:
    """Whether an interface can be called so."""
    return len(text.encode()) <= 15 and text not in (".", "..")


NAMES = st.text(
    st.characters(
        codec="utf-8", exclude_characters="/:%\0", exclude_categories=("Z", "Cs")
    ),
    min_size=1,
    max_size=15,
).filter(lambda text: short(text) and not any(map(str.isspace, text)))

_BYTES = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
_GLOBS = st.text(
    st.characters(codec="utf-8", exclude_characters=","), min_size=1, max_size=20
)
CONDITIONS = {
    "name": _GLOBS,
    "altname": _GLOBS,
    "mac": _BYTES,
    "pci": st.sampled_from(["0000:03:00.1", "10000:FF:1f.7"]),
    "driver": _GLOBS,
}


@st.composite
def rules(draw: st.DrawFn) -> str:
    """Any way to name a slave."""
    if draw(st.booleans()):
        return draw(NAMES.filter(lambda name: "=" not in name))
    keys = draw(st.lists(st.sampled_from(sorted(CONDITIONS)), min_size=1, unique=True))
    return ",".join(f"{key}={draw(CONDITIONS[key])}" for key in keys)


def _setting(name: str, kind: Any) -> st.SearchStrategy[object]:
    if name in RANGES:
        return st.integers(*RANGES[name])
    if kind is bool:
        return st.booleans()
    assert issubclass(kind, StrEnum), f"no strategy for '{name}'"
    return st.sampled_from(kind)


@st.composite
def specs(draw: st.DrawFn) -> GroupSpec:
    """Any group; most settings are at their defaults as often as not."""
    name = draw(NAMES)
    slaves = draw(
        st.lists(
            rules().filter(lambda rule: rule != name),
            min_size=1,
            max_size=MAX_SLAVES,
            unique=True,
        )
    )
    primary = slaves.pop() if draw(st.booleans()) else None
    kinds = get_type_hints(GroupSpec)
    settings: dict[str, Any] = {
        each.name: draw(_setting(each.name, kinds[each.name]))
        for each in fields(GroupSpec)
        if each.name not in ("name", "primary", "standbys") and draw(st.booleans())
    }
    return GroupSpec(name=name, primary=primary, standbys=tuple(slaves), **settings)
