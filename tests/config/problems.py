"""Reading a file's problems in tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from keepflow.errors import ConfigError, Problem


def problems(load: Callable[..., object], *args: object) -> list[Problem]:
    """Load what must be refused and return every problem."""
    with pytest.raises(ConfigError) as caught:
        load(*args)
    return caught.value.problems


def places(found: list[Problem]) -> list[tuple[int, int, str]]:
    """Return line, column and code of each problem, in the order people see them."""
    return [(problem.line, problem.column, problem.code) for problem in found]
