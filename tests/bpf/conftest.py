# SPDX-License-Identifier: GPL-2.0-or-later
"""A set of programs of each kind for all tests here, and the same again from a file;
each test enters its namespace."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from typing import NoReturn

import pytest

from pyfailover.datapath import cache
from pyfailover.datapath.recipe import Recipe
from tests.support import progrun
from tests.support.progrun import Bench, Kind


@pytest.fixture(
    scope="session",
    params=list(product(Kind, (False, True))),
    ids=lambda param: f"{param[0]}{' from a file' if param[1] else ''}",
)
def loaded_bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """The set as the compiler gives it, or as a file does where there is no
    compiler; gone at the end."""
    kind, kept = request.param
    store = tmp_path_factory.mktemp("store")
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patched:
            if kept:
                recipe = Recipe(progrun.MAX_GROUPS, kind is Kind.CARRIER_TEST)
                cache.make(store, recipe, scratch=store / "headers")
                patched.setattr(cache, "build", no_compiler)
            made = stack.enter_context(progrun.bench(kind, store))
        yield made


def no_compiler(*_: object, **__: object) -> NoReturn:
    """Stands where bcc would be called."""
    raise AssertionError("compiled, though there is a file")


@pytest.fixture
def bench(loaded_bench: Bench) -> Iterator[Bench]:
    """The set with all maps cleared, and the test inside its namespace."""
    with loaded_bench.host.enter():
        loaded_bench.clear()
        yield loaded_bench
