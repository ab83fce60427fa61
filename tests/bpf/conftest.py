# SPDX-License-Identifier: GPL-2.0-or-later
"""One loaded set of programs for all tests here; each test enters its namespace."""

from collections.abc import Iterator

import pytest

from tests.support import progrun
from tests.support.progrun import Bench


@pytest.fixture(scope="session")
def loaded_bench() -> Iterator[Bench]:
    """The set, compiled and loaded once, gone at the end."""
    with progrun.bench() as made:
        yield made


@pytest.fixture
def bench(loaded_bench: Bench) -> Iterator[Bench]:
    """The set with all maps cleared, and the test inside its namespace."""
    with loaded_bench.host.enter():
        loaded_bench.clear()
        yield loaded_bench
