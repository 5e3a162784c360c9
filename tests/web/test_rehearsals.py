"""Getting ready for a promote: images laid ahead on hosts, rehearsals, and what the promote page says of both."""

from __future__ import annotations

from typing import Any

import pytest

from keepflow.crypto import dsse
from keepflow.engine import sending
from keepflow.store import preparations
from keepflow.store.tables import environments
from keepflow.wire import messages
from keepflow.wire.orders import PAYLOAD_TYPE, DeployOrder
from tests.web import story as stories
from tests.web.conftest import browser, web_app
from tests.web.story import Story, promote, pushed
from tests.web.test_api import Caller, _token
from tests.web.test_environments import CONFIRM, OURS, _hidden, _text
from tests.web.test_rollbacks import PATH, beat

NEW = pushed("b").digest or ""


@pytest.fixture
def manager(story: Story) -> Caller:
    """A program of a release manager."""
    return Caller(web_app(story), _token(story, "bo", ["promote"]))


def orders(story: Story, action: str) -> list[tuple[messages.Deploy, DeployOrder]]:
    """Return what the production host was ordered to do, of one kind, oldest first."""
    with story.master.database.read() as conn:
        sent = [one.body for one in sending.waiting(conn, story.master, story.agent_ids["prod-1"])]
    key = story.master.order_key.public
    found = [
        (body, DeployOrder.model_validate_json(dsse.open_(body.envelope, PAYLOAD_TYPE, key)))
        for body in sent
        if isinstance(body, messages.Deploy)
    ]
    return [(body, order) for body, order in found if order.action == action]


def end(story: Story, body: messages.Deploy, outcome: str = "done", **more: Any) -> None:
    facts: dict[str, Any] = {"fence": body.fence, "deployment": body.deployment}
    story.report("prod-1", messages.DeployAnswer(**facts, at=story.wait(0.1), accepted=True))
    story.report("prod-1", messages.DeployPhase(**facts, at=story.wait(0.1), phase="gating"))
    story.report("prod-1", messages.DeployFinished(**facts, at=story.wait(1), outcome=outcome, **more))


def rehearse(caller: Caller, source: str = "3", **more: Any) -> tuple[int, Any]:
    return caller.ask("POST", f"{PATH}/rehearsals", {"source": source, **more})


# --- laid ahead -------------------------------------------------------------------------------------------------------


def test_what_served_in_test_is_laid_on_the_hosts_that_promote_from_there(story: Story, manager: Caller) -> None:
    staged = orders(story, "stage")
    assert [order.image.digest for _, order in staged] == [pushed("a").digest, NEW]
    body, order = staged[-1]
    assert (order.environment, order.service, order.expect_current) == ("keepwork/production", "keepwork", None)
    assert "a promote pulls it first" in _text(browser(web_app(story), story, "bo").get(f"{CONFIRM}?source=3").text)
    end(story, body, sentence="it is on this host (85 MB)")
    beat(story, identity=pushed("a").digest, kept=(messages.KeptRelease(identity=NEW, how="staged", bytes=85_000_000),))
    assert manager.get(f"{PATH}/readiness", source="3")["on_host"] == ["prod-1"]
    assert "on the host already" in _text(browser(web_app(story), story, "bo").get(f"{CONFIRM}?source=3").text)


def test_what_is_on_the_way_or_there_is_not_sent_again(story: Story) -> None:
    before = len(orders(story, "stage"))
    sha = story.commit("Build the same again", "Bo")
    stories.run_test(story, sha, "Build the same again", "b")
    assert len(orders(story, "stage")) == before


def test_a_host_that_is_away_gets_it_when_it_comes_back(story: Story) -> None:
    before = len(orders(story, "stage"))
    story.lose_agent("prod-1")
    stories.run_test(story, story.commit("One more", "Bo"), "One more", "c")
    assert len(orders(story, "stage")) == before
    story.connect("prod-1", "deploy")
    assert orders(story, "stage")[-1][1].image.digest == pushed("c").digest


def test_where_a_person_must_mark_it_first_the_mark_stages_and_the_deployment_does_not(story: Story) -> None:
    story.write(lambda tx: tx.conn.execute(environments.update().values(verified_by=["testers"])))
    before = len(orders(story, "stage"))
    stories.run_test(story, story.commit("One more", "Bo"), "One more", "c")
    assert len(orders(story, "stage")) == before
    ann = Caller(web_app(story), _token(story, "ann", ["test"]))
    marks = "/projects/keepwork/environments/test/marks"
    assert ann.ask("POST", marks, {"verdict": "tested", "note": "clicked through it"})[0] == 201
    assert orders(story, "stage")[-1][1].image.digest == pushed("c").digest


# --- rehearsals -------------------------------------------------------------------------------------------------------


def test_a_rehearsal_is_ordered_told_and_changes_nothing_that_serves(story: Story, manager: Caller) -> None:
    before = manager.get(PATH.rpartition("/")[0])
    status, started = rehearse(manager, key="rehearse-today")
    assert (status, started["kind"], started["phase"], started["requested_by"]) == (202, "rehearsal", "offered", "bo")
    assert rehearse(manager, key="rehearse-today")[1]["id"] == started["id"]
    [(body, order)] = orders(story, "rehearse")
    assert (order.image.digest, order.deployment) == (NEW, started["id"])
    end(story, body, sentence="healthy in 1.2 s; no visitor saw it", receipt={"gate": {"seconds": 1.2}})
    assert manager.get(PATH.rpartition("/")[0]) == before
    assert manager.get(f"{PATH}/deployments")["items"][0]["kind"] == "promote"
    [told] = manager.get(f"{PATH}/readiness", source="3")["rehearsals"]
    assert (told["phase"], told["reason"]) == ("done", "healthy in 1.2 s; no visitor saw it")
    assert "healthy in 1.2 s" in _text(browser(web_app(story), story, "bo").get(f"{CONFIRM}?source=3").text)
    assert promote(story, "3"), "a promote after it goes on as ever"


def test_a_failed_rehearsal_shows_its_last_words_and_forbids_nothing(story: Story, manager: Caller) -> None:
    rehearse(manager)
    [(body, _)] = orders(story, "rehearse")
    end(story, body, "failed", code="exited", sentence="it ended with exit code 7", log_tail="no database\n")
    end(story, body, "done", sentence="late words change nothing")
    page = _text(browser(web_app(story), story, "bo").get(f"{CONFIRM}?source=3").text)
    assert "it ended with exit code 7" in page
    assert "no database" in page
    assert manager.get(f"{PATH}/preview", source="3")["allowed"] is True


def test_a_promote_does_not_wait_for_a_rehearsal_but_no_rehearsal_starts_beside_a_deploy(
    story: Story, manager: Caller
) -> None:
    rehearse(manager)
    assert rehearse(manager)[1]["code"] == "rehearsing"
    promote(story, "3", outcome="")
    assert orders(story, "deploy")
    [(body, _)] = orders(story, "rehearse")
    end(story, body)
    assert rehearse(manager)[1]["code"] == "underway"


def test_only_who_may_promote_may_rehearse_and_only_what_was_pushed(story: Story, manager: Caller) -> None:
    tester = Caller(web_app(story), _token(story, "ann", ["admin"]))
    assert rehearse(tester)[0] == 403
    assert rehearse(manager, source="4")[1]["code"] == "origin"


def test_the_button_of_the_promote_page_rehearses_and_says_what_it_costs(story: Story) -> None:
    beat(story, identity=pushed("a").digest, kept=(messages.KeptRelease(identity=NEW, how="hot"),))
    client = browser(web_app(story), story, "bo")
    page = client.get(f"{CONFIRM}?source=3").text
    assert "kept hot for a rollback gives up its slot" in _text(page)
    fields = {name: _hidden(page, name) for name in ("csrf_token", "source", "key")}
    answer = client.post(f"{PATH}/rehearsals", headers=OURS, data=fields)
    assert (answer.status_code, answer.location) == (303, f"{CONFIRM}?source=3")
    assert "is under way" in _text(client.get(f"{CONFIRM}?source=3").text)


def test_a_host_speaks_only_of_its_own_preparations(story: Story, manager: Caller) -> None:
    started = rehearse(manager)[1]
    [(body, _)] = orders(story, "rehearse")
    lie = messages.DeployFinished(
        fence=body.fence, deployment=body.deployment, at=1, outcome="done", sentence="of another host"
    )
    story.report("local", lie)
    with story.master.database.read() as conn:
        found = preparations.by_id(conn, started["id"])
    assert found is not None
    assert found.phase == "offered"
