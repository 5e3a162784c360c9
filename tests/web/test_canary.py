"""Canaries as people ask for them and steer them: the order names the steps, words are signed, buttons say them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import update

from keepflow.crypto import dsse
from keepflow.engine import sending
from keepflow.store import deployments
from keepflow.store.deployments import Deployment
from keepflow.store.tables import environments
from keepflow.wire import messages
from keepflow.wire.orders import CANARY_TYPE, PAYLOAD_TYPE
from tests.web.conftest import browser, web_app
from tests.web.story import Story
from tests.web.test_environments import BOARD, CONFIRM, OURS, _hidden, _press, _text

API = "/api/v1/projects/keepwork/environments/production/canary"


def _asked(story: Story) -> Deployment:
    """Press the button with a canary and return the deployment."""
    client = browser(web_app(story), story, "bo")
    assert _press(client, canary="5,25,50", hold="300").status_code == 303
    with story.master.database.read() as conn:
        found = deployments.unsent(conn)
    assert len(found) == 1
    return found[0]


def _at(story: Story, asked: Deployment, step: int) -> None:
    """Let the agent say that it is at a step."""
    facts = {"fence": asked.fence, "deployment": asked.id}
    story.report("prod-1", messages.DeployAnswer(**facts, at=story.wait(0.1), accepted=True))
    detail = f"{step} % of visitors for 300 s"
    story.report("prod-1", messages.DeployPhase(**facts, at=story.wait(1), phase="canary", detail=detail))


def _words(story: Story) -> list[dict[str, Any]]:
    """Return what the host would be told about its canary, opened with the master's key."""
    with story.master.database.read() as conn:
        bodies = [one.body for one in sending.waiting(conn, story.master, story.agent_ids["prod-1"])]
    key = story.master.order_key.public
    return [json.loads(dsse.open_(one.envelope, CANARY_TYPE, key)) for one in bodies if one.type == "steer"]


def test_the_order_names_the_steps_and_agents_must_understand_them(story: Story) -> None:
    asked = _asked(story)
    assert asked.canary == {"steps": [5, 25, 50], "hold": 300}
    assert asked.order is not None
    order = json.loads(dsse.open_(asked.order, PAYLOAD_TYPE, story.master.order_key.public))
    assert (order["canary"], order["canary_hold"]) == ([5, 25, 50], 300)
    assert {"canary", "canary_hold"} <= set(order["critical"])


@pytest.mark.parametrize(("canary", "hold"), [("7", "60"), ("25,5", "60"), ("5,5", "60"), ("x", "60"), ("5", "")])
def test_steps_that_make_no_sense_start_nothing(story: Story, canary: str, hold: str) -> None:
    client = browser(web_app(story), story, "bo")
    assert _press(client, canary=canary, hold=hold).status_code == 400
    with story.master.database.read() as conn:
        assert deployments.unsent(conn) == []


def test_what_cannot_overlap_can_have_no_canary(story: Story) -> None:
    stop_first = update(environments).values(overrides={"strategy": "stop-first"})
    story.write(lambda tx: tx.conn.execute(stop_first))
    client = browser(web_app(story), story, "bo")
    assert "canary" not in client.get(f"{CONFIRM}?source=3").text
    answer = _press(client, canary="5", hold="60")
    assert (answer.status_code, "stop-first" in answer.text) == (400, True)


def test_the_card_shows_the_step_and_its_buttons_say_the_word_to_the_host(story: Story) -> None:
    asked = _asked(story)
    _at(story, asked, 25)
    client = browser(web_app(story), story, "bo")
    page = client.get(BOARD).text
    assert "Canary: 25 % of visitors" in _text(page)
    form = {"csrf_token": _hidden(page, "csrf_token"), "percent": _hidden(page, "percent"), "word": "hold"}
    assert client.post(f"{BOARD}/production/canary", headers=OURS, data=form).status_code == 303
    [word] = _words(story)
    assert (word["word"], word["percent"], word["by"]) == ("hold", 25, "bo")
    assert (word["deployment"], word["fence"], word["agent"]) == (asked.id, asked.fence, "prod-1")
    assert "Canary:" not in browser(web_app(story), story, "ann").get(BOARD).text, "a tester steers nothing"


def test_a_word_about_a_step_that_is_over_is_refused_and_an_abort_never_is(story: Story) -> None:
    asked = _asked(story)
    client = browser(web_app(story), story, "bo")
    headers = {**OURS, "X-CSRF-Token": _hidden(client.get(f"{CONFIRM}?source=3").text, "csrf_token")}

    def say(word: str, percent: int | None) -> int:
        return client.post(API, headers=headers, json={"word": word, "percent": percent}).status_code

    assert say("abort", None) == 409
    _at(story, asked, 25)
    assert say("continue", 5) == 409
    assert say("reboot", 25) == 422
    assert say("abort", 5) == 202
    assert [word["word"] for word in _words(story)] == ["abort"]


def test_the_receipt_of_a_finished_one_is_no_canary_under_way(story: Story) -> None:
    asked = _asked(story)
    _at(story, asked, 50)
    facts = {"fence": asked.fence, "deployment": asked.id, "at": story.wait(1)}
    done = messages.DeployFinished(**facts, outcome="reverted", code="canary-aborted", sentence="bo called it off")
    story.report("prod-1", done)
    page = browser(web_app(story), story, "bo").get(BOARD).text
    assert "Canary:" not in page
    assert "Quarantine" not in page, "a person called it off; the release did nothing wrong"
