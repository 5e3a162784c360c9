"""What every test shares."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["tests.real.fixtures"]

# A busy machine makes an example slow, which says nothing about the property; pytest's own timeout ends a hang.
settings.register_profile("keepflow", deadline=None)
settings.load_profile("keepflow")

_MEASURED = "measured"  #: name of the property that carries a test's numbers to the process that prints them
_NUMBERS: dict[str, dict[str, Any]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of tests that repeat something: how often, and where to write down what was measured."""
    group = parser.getgroup("keepflow")
    group.addoption("--long", action="store_true", help="fault tests in their long form: many more repetitions")
    group.addoption("--rounds", type=int, default=20, metavar="N", help="with --long: how often each kill is repeated")
    group.addoption("--numbers", type=Path, metavar="FILE", help="append what tests measured to FILE, one JSON a line")


@pytest.fixture(scope="session", autouse=True)
def _passable(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let other accounts pass through the directories of tests: nginx's workers and the accounts of jobs do."""
    base = tmp_path_factory.getbasetemp()
    for place in (base, *base.parents):
        if place.name.startswith(("pytest-", "popen-")):  # nobody's but pytest's
            place.chmod(0o711)


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> int:
    """How often a kill is repeated: once in the short form."""
    return int(request.config.getoption("--rounds")) if request.config.getoption("--long") else 1


@pytest.fixture
def numbers(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Write down what a test measured: `numbers(requests=126_491, seconds=[2.5])`; printed when all tests are over.

    What cases of one test tell is added up: counts as sums, lists one behind the other.
    """

    def record(**measured: int | list[Any]) -> None:
        request.node.user_properties.append((_MEASURED, measured))

    return record


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what a test measured, wherever it ran."""
    if report.when != "teardown":
        return
    told = _NUMBERS.setdefault(report.nodeid.partition("[")[0], {})
    for key, measured in report.user_properties:
        if key == _MEASURED:
            for name, value in measured.items():
                told[name] = told[name] + value if name in told else value


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the numbers, one JSON object a line."""
    lines = [json.dumps({"test": test, **told}, ensure_ascii=False) for test, told in _NUMBERS.items() if told]
    if lines:
        terminalreporter.section("measured")
        terminalreporter.write("".join(f"{line}\n" for line in lines))
    path = config.getoption("--numbers")
    if path and lines:
        with path.open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave cases of the long form out of the short one, and begin with the longest pieces for several workers."""
    if hasattr(config, "workerinput"):
        order: list[str | None] = [*_PIECES, None]
        items.sort(key=lambda item: order.index(_piece(item.nodeid)))
    if not config.getoption("--long"):
        left_out = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if not item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)


#: Tests that stand on this host itself, in pieces that get along with each other: each has networks, hosts and worlds
#: of its own on the one engine. They take longest, and mostly wait; so they come first, each with one worker.
_PIECES = {
    "chain": (
        *(f"tests/real/test_{name}" for name in ("chain", "demo", "restored_master", "two_hosts")),
        "tests/faults/test_chain",
    ),
    "faults": (
        "tests/faults/",
        *(f"tests/real/test_{name}" for name in ("graphs", "sources", "spanning", "taken_up")),
    ),
    "host": (
        "tests/real/",
        *(f"tests/contracts/test_{name}" for name in ("executors", "proxies", "targets")),
        *(f"tests/agent/test_{name}.py" for name in ("jobs_user", "lane_account", "lifecycle")),
        *(f"tests/cli/test_{name}.py" for name in ("bootstrap", "local_agent", "up")),
    ),
}


def _piece(nodeid: str) -> str | None:
    return next((name for name, starts in _PIECES.items() if nodeid.startswith(starts)), None)


class _HostApart(LoadScopeScheduling):
    """Deals out the tests to several workers by file; what stands on the host itself goes by pieces."""

    def _split_scope(self, nodeid: str) -> str:
        return _piece(nodeid) or nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _HostApart:
    """Choose who deals out the tests when there are several workers."""
    config.option.loadscopereorder = False  # the order of the collection says who takes longest
    return _HostApart(config, log)
