# SPDX-License-Identifier: GPL-2.0-or-later
"""The image, built once for all tests of it."""

from collections.abc import Iterator

import pytest

from tests.support.image import Engine, engine


@pytest.fixture(scope="session")
def built() -> Iterator[Engine]:
    """An engine that has the image."""
    with engine() as made:
        yield made
