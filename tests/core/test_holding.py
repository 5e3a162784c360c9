"""Who may hold a thing still, and who may let it go: one rule for locks and for pauses."""

from __future__ import annotations

import pytest

from keepflow import errors
from keepflow.core.holding import WHY_LIMIT, Hold

FREE = Hold("production", "locked", None, None)
HELD = Hold("production", "locked", "ann", "a\x1b[31m fair")


def test_nobody_who_holds_it_says_nothing_and_whoever_does_says_why() -> None:
    assert FREE.sentence() is None
    assert HELD.sentence() == "production is locked by ann: a\x1b[31m fair"


def test_only_the_holder_may_say_another_reason_and_a_reason_is_one_short_line() -> None:
    assert FREE.take("ann", "a\nfair") == "a fair"
    assert HELD.take("ann", "it takes longer") == "it takes longer"
    assert len(FREE.take("ann", "x" * 2 * WHY_LIMIT)) <= WHY_LIMIT
    with pytest.raises(errors.Refused, match="locked by ann") as refused:
        HELD.take("bo", "me too")
    assert refused.value.code == "locked"
    for nothing in ("", " \n"):
        with pytest.raises(errors.UsageError) as needed:
            FREE.take("ann", nothing)
        assert needed.value.code == "needs-why"


def test_the_holder_or_an_admin_lets_it_go() -> None:
    assert HELD.let_go("ann", admin=False) == "ann"
    assert HELD.let_go("bo", admin=True) == "ann"
    with pytest.raises(errors.Denied, match="ann or an admin lets go of it; ask her") as denied:
        HELD.let_go("bo", admin=False, otherwise="; ask her")
    assert denied.value.code == "not-holder"
    with pytest.raises(errors.Refused, match="production is not locked") as free:
        FREE.let_go("ann", admin=True)
    assert free.value.code == "not-locked"
