# SPDX-License-Identifier: GPL-2.0-or-later
"""Privileges, roots of their own for every test, and the topologies."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pyfailover.lab import Lab, scratch_roots
from pyfailover.model import TcMode
from pyfailover.place import Roots
from tests.support.tool import Tool
from tests.support.topology import Duo, duo


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-root",
        action="store_true",
        help="fail the tests that need root instead of skipping them",
    )


def pytest_configure() -> None:
    """Have Ctrl-C work in what the tests start, also where we run in the background:
    a shell has its background jobs ignore SIGINT, and that is inherited."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Everything outside unit/ needs root."""
    if os.geteuid() == 0:
        return
    if config.getoption("--require-root"):
        raise pytest.UsageError("--require-root: not root")
    for item in items:
        if "unit" not in Path(item.fspath).parts:
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Namespaces that are gone after the test."""
    with Lab() as made:
        yield made


@pytest.fixture(scope="session")
def compiled() -> Iterator[Path]:
    """Where all tests keep the compiled programs: they are compiled once."""
    with TemporaryDirectory(prefix="pyfailover-cache-") as made:
        Path(made).chmod(0o755)  # a controller's user reads them
        yield Path(made)


@pytest.fixture
def roots(compiled: Path) -> Iterator[Roots]:
    """Pins and records of this test alone, gone after it."""
    with scratch_roots() as made:
        yield replace(made, cache=compiled)


@pytest.fixture
def cold(roots: Roots) -> Roots:
    """The same with nothing compiled."""
    return replace(roots, cache=roots.run.with_name("cache"))


@pytest.fixture
def tool(roots: Roots) -> Tool:
    """The product, as a library and as a command."""
    return Tool(roots)


@pytest.fixture(params=[TcMode.TCX, TcMode.CLSACT])
def tc(request: pytest.FixtureRequest) -> TcMode:
    """Each way to attach."""
    mode: TcMode = request.param
    return mode


@pytest.fixture
def pair(lab: Lab) -> Duo:
    """A host with two slaves to one far end; see tests/support/topology.py."""
    return duo(lab)
