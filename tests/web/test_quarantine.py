"""Quarantine: what did badly is not pressed again by accident, all see it, and lifting it has a name and a why."""

from __future__ import annotations

import re

import pytest

from keepflow.store import environments, quarantines
from keepflow.store.quarantines import Quarantine
from tests.web.conftest import browser, web_app
from tests.web.story import Story, promote, pushed
from tests.web.test_environments import BOARD, CONFIRM, OURS, _hidden, _text

BAD = str(pushed("b").digest)
API = "/api/v1/projects/keepwork/environments/production/quarantine"


def _standing(story: Story, environment: str = "production") -> list[Quarantine]:
    with story.master.database.read() as conn:
        place = environments.by_name(conn, story.project().id, environment)
        assert place is not None
        return quarantines.standing(conn, place.id)


def _reverted(story: Story, outcome: str = "reverted") -> int:
    number = promote(story, "3", outcome="")
    story.deploy(number, outcome, sentence="7 of 31 (22.6 %) requests of visitors failed in the new release")
    return number


@pytest.mark.parametrize("outcome", ["reverted", "failed"])
def test_a_release_that_did_badly_in_production_is_refused_there_until_it_is_lifted(story: Story, outcome: str) -> None:
    _reverted(story, outcome)
    client = browser(web_app(story), story, "bo")
    page = _text(client.get(f"{CONFIRM}?source=3").text)
    assert "this digest is under quarantine in production: 7 of 31 (22.6 %) requests" in page
    assert page.count("not met:") == 1
    preview = client.get("/api/v1/projects/keepwork/environments/production/preview?source=3").json
    assert [guard["code"] for guard in preview["guards"] if not guard["met"]] == ["quarantined"]
    assert client.get(f"{CONFIRM}?source=1").text.count("not met:") == 0, "another release may go"


def test_the_card_says_it_loudly_and_the_button_there_lifts_it(story: Story) -> None:
    number = _reverted(story)
    client = browser(web_app(story), story, "bo")
    page = client.get(BOARD).text
    assert re.search(r'<div class="note bad" role="alert">.*Quarantine', page, re.S)
    fields = {name: _hidden(page, name) for name in ("csrf_token", "identity")}
    assert fields["identity"] == BAD
    lift = f"{BOARD}/production/quarantine/lift"
    assert client.post(lift, headers=OURS, data={**fields, "why": " "}).status_code == 400
    assert client.post(lift, headers=OURS, data={**fields, "why": "the database was down"}).status_code == 303
    assert "Quarantine" not in client.get(BOARD).text
    told = client.get(f"{API}?lifted=true").json["items"]
    assert [(one["lifted_by"], one["lifted_why"]) for one in told] == [("bo", "the database was down")]
    assert promote(story, "3") == number + 1


def test_a_tester_sees_it_and_cannot_lift_it(story: Story) -> None:
    _reverted(story)
    client = browser(web_app(story), story, "ann")
    page = client.get(BOARD).text
    assert "does not go to production again" in _text(page)
    assert "quarantine/lift" not in page


def test_lifting_what_is_not_under_quarantine_is_told_so(story: Story) -> None:
    client = browser(web_app(story), story, "bo")
    token = _hidden(client.get(f"{CONFIRM}?source=3").text, "csrf_token")
    headers = {**OURS, "X-CSRF-Token": token}
    for identity, status in ((BAD, 404), ("b0b0", 400)):
        answer = client.post(f"{API}/lift", headers=headers, json={"identity": identity, "why": "x"})
        assert answer.status_code == status


def test_bad_luck_of_the_host_is_not_blamed_on_the_release(story: Story) -> None:
    number = promote(story, "3", outcome="")
    story.deploy(number, "failed", sentence="only 12 MiB are free on this host", code="disk-full")
    assert _standing(story) == []


def test_what_was_put_back_in_test_is_not_promoted_from_there(story: Story) -> None:
    again = story.commit("Try once more")
    run = story.push("test", again, "Try once more")
    story.begin(run).step("scripts/push-image.sh test").end(image=pushed("b"))
    story.deploy(run, "reverted", sentence="it died")
    assert [one.identity for one in _standing(story, "test")] == [BAD]
    page = _text(browser(web_app(story), story, "bo").get(f"{CONFIRM}?source=3").text)
    assert "under quarantine in test: it died" in page


def test_a_gate_failed_in_test_is_ordinary_work(story: Story) -> None:
    run = story.push("test", story.commit("Break it"), "Break it")
    story.begin(run).step("scripts/push-image.sh test").end(image=pushed("c"))
    story.deploy(run, "failed", sentence="it was not healthy")
    assert _standing(story, "test") == []


def test_what_served_after_all_is_under_quarantine_no_longer(story: Story) -> None:
    run = story.push("test", story.commit("Break it"), "Break it")
    story.begin(run).step("scripts/push-image.sh test").end(image=pushed("c"))
    story.deploy(run, "reverted", sentence="it died")
    run = story.push("test", story.commit("The same again"), "The same again")
    story.begin(run).step("scripts/push-image.sh test").end(image=pushed("c"))
    story.deploy(run)
    assert _standing(story, "test") == []
