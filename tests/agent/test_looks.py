"""Looks at what serves: none from before the end of a deployment is told after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepflow.agent.deployment import Outcome
from keepflow.agent.journal import Journal, Journals
from keepflow.agent.looks import Looks
from keepflow.core.states import Phase
from keepflow.wire.messages import ServiceState
from tests.agent.test_journal import deployment

_DONE = Outcome(Phase.DONE, "", "it serves", "sha256:new", {}, "")


def state(service: str, instance: str) -> ServiceState:
    return ServiceState(service=service, instance=instance, environment="shop/test", identity="sha256:old")


@pytest.fixture
def journals(tmp_path: Path) -> Journals:
    return Journals(tmp_path)


@pytest.fixture
def looks(journals: Journals) -> Looks:
    looks = Looks(journals)
    looks.take([("shop", "main")], state)
    return looks


def end(journal: Journal) -> None:
    journal.append("outcome", outcome=_DONE.to_json())


def test_a_look_is_told_as_long_as_nothing_happens(journals: Journals, looks: Looks) -> None:
    assert looks.fresh() == looks.fresh() == (state("shop", "main"),)
    assert Looks(journals).fresh() == ()


def test_a_look_from_before_a_deployment_is_not_told_once_that_has_begun(journals: Journals, looks: Looks) -> None:
    journal = journals.accept(deployment(1))
    assert looks.fresh() == ()
    end(journal)
    assert looks.fresh() == ()
    journals.close(journal)
    assert looks.fresh() == ()


def test_a_look_during_a_deployment_is_not_told_after_its_end(journals: Journals) -> None:
    looks, journal = Looks(journals), journals.accept(deployment(1))
    looks.take([("shop", "main")], state)
    journal.append("phase", phase="switching", detail="")
    assert looks.fresh() == (state("shop", "main"),), "while it goes on, what is seen is news"
    end(journal)
    assert looks.fresh() == (), "its end is told next"
    journals.close(journal)
    assert looks.fresh() == ()
    looks.take([("shop", "main")], state)
    assert looks.fresh() == (state("shop", "main"),)


def test_what_happens_while_one_looks_makes_the_look_an_old_one(journals: Journals) -> None:
    def slow(service: str, instance: str) -> ServiceState:
        seen = state(service, instance)
        journal = journals.accept(deployment(1))
        end(journal)
        journals.close(journal)
        return seen

    looks = Looks(journals)
    looks.take([("shop", "main")], slow)
    assert looks.fresh() == ()


def test_a_rollback_typed_on_the_host_counts_as_any_deployment(journals: Journals, tmp_path: Path) -> None:
    journals.close(journals.accept(deployment(1)))
    looks = Looks(journals)
    looks.take([("shop", "main"), ("blog", "main")], state)
    elsewhere = Journals(tmp_path)  # another process of this host
    journal = elsewhere.accept(deployment(1, id="by-hand", nonce="by-hand", by="root on web1"))
    assert looks.fresh() == (state("blog", "main"),)
    end(journal)
    elsewhere.close(journal)
    assert looks.fresh() == ()
