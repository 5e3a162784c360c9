"""What every test shares."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

pytest_plugins = ["tests.real.fixtures"]

# A busy machine makes an example slow, which says nothing about the property; pytest's own timeout ends a hang.
settings.register_profile("keepflow", deadline=None)
settings.load_profile("keepflow")

_NUMBERS = pytest.StashKey[dict[str, dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of tests that repeat something: how often, and where to write down what was measured."""
    group = parser.getgroup("keepflow")
    group.addoption("--long", action="store_true", help="fault tests in their long form: many more repetitions")
    group.addoption("--numbers", type=Path, metavar="FILE", help="append what tests measured to FILE, one JSON a line")


def pytest_configure(config: pytest.Config) -> None:
    """Begin with no numbers."""
    config.stash[_NUMBERS] = {}


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the long form was asked for; a test of that form says how long it may take by a timeout of its own."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def numbers(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Write down what a test measured: `numbers(requests=126_491, seconds=[2.5])`; printed when all tests are over.

    What cases of one test tell is added up: counts as sums, lists one behind the other.
    """

    def record(**measured: int | list[Any]) -> None:
        told = request.config.stash[_NUMBERS].setdefault(request.node.nodeid.partition("[")[0], {})
        for name, value in measured.items():
            told[name] = told[name] + value if name in told else value

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the numbers, one JSON object a line."""
    told = config.stash[_NUMBERS].items()
    lines = [json.dumps({"test": test, **measured}, ensure_ascii=False) for test, measured in told]
    if lines:
        terminalreporter.section("measured")
        terminalreporter.write("".join(f"{line}\n" for line in lines))
    path = config.getoption("--numbers")
    if path and lines:
        with path.open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))
