"""Receipts of several hosts added up, whatever agents wrote into them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.tally import Tally, tally


def _receipt(sent: int, failed: int, p99: float | None, maintenance: float = 0.0) -> dict[str, Any]:
    return {"probes": {"sent": sent, "failed": failed, "p99_ms": p99}, "maintenance": maintenance}


def test_counts_are_added_and_the_worst_host_gives_the_p99() -> None:
    found = tally([_receipt(100, 1, 3.5), _receipt(50, 0, 41.0, 2.5), _receipt(7, 0, None)])
    assert found == Tally(sent=157, failed=1, p99_ms=41.0, maintenance=2.5)


def test_nothing_proves_nothing() -> None:
    assert tally([]) == Tally(sent=0, failed=0, p99_ms=None, maintenance=0.0)


@pytest.mark.parametrize("wrong", [None, "12", True, -1, math.nan, math.inf, [], {}, 1e300])
def test_a_figure_that_is_none_counts_as_not_given(wrong: Any) -> None:
    assert tally([{"probes": {"sent": wrong, "failed": wrong, "p99_ms": wrong}, "maintenance": wrong}]) == Tally()
    assert tally([{"probes": wrong}]) == Tally()


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.lists(st.dictionaries(st.sampled_from(["probes", "maintenance", "x"]), _JSON)))
def test_any_receipt_can_be_added_up(receipts: list[dict[str, Any]]) -> None:
    found = tally(receipts)
    assert found.sent >= 0
    assert math.isfinite(found.maintenance)
