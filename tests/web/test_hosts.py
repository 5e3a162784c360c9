"""An environment on two hosts, as its pages and the API show it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask

from keepflow.store import environments, placements
from tests.web.conftest import browser, web_app
from tests.web.story import Story, promote, pushed
from tests.web.test_access import _token
from tests.web.test_api import Caller

BOARD = "/projects/keepwork/environments"
HOUR = 3600


@pytest.fixture
def story(story: Story) -> Story:
    """The story so far, and production on a second host that never served anything."""
    story.agent("prod-2", "deploy")
    with story.master.database.read() as conn:
        production = environments.by_name(conn, story.project().id, "production")
    assert production is not None
    story.write(lambda tx: placements.put(tx.conn, production.id, ("prod-1", "prod-2"), story.now))
    return story


def _text(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def _api(app: Flask, story: Story) -> Caller:
    return Caller(app, _token(story, "root", ["admin"]))


def _production(api: Caller) -> Any:
    return next(one for one in api.get(f"{BOARD}")["items"] if one["name"] == "production")


def test_hosts_that_serve_different_versions_are_said_to_be_mixed(story: Story) -> None:
    app = web_app(story)
    found = _production(_api(app, story))
    assert found["mixed"] is True
    assert [(host["agent"], host["online"], bool(host["serving"])) for host in found["hosts"]] == [
        ("prod-1", True, True),
        ("prod-2", True, False),
    ]
    assert "prod-1 serves keepwork#1" in found["sentence"]
    assert not any(candidate["serves"] for candidate in found["candidates"]), "not on every host"
    page = browser(app, story, "bo").get(BOARD).text
    assert "mixed versions" in page
    assert "prod-2 serves nothing that was deployed" in _text(page)


def test_before_a_promote_the_page_says_in_what_order_its_hosts_are_switched(story: Story) -> None:
    app = web_app(story)
    said = (
        "goes to prod-1, prod-2, one after the other; "
        "when one fails, the others are not begun and those switched before go back"
    )
    found = _api(app, story).get(f"{BOARD}/production/preview", source="3")
    assert (found["hosts"], found["order"]) == (["prod-1", "prod-2"], said)
    assert said in _text(browser(app, story, "bo").get(f"{BOARD}/production/promote?source=3").text)


def test_a_promote_to_two_hosts_ends_in_one_receipt_over_both(story: Story) -> None:
    app = web_app(story)
    api = _api(app, story)
    number = promote(story, "3", outcome="")
    story.deploy(number, host="prod-1")
    story.deploy(number, host="prod-2")
    found = api.get(f"/projects/keepwork/runs/{number}/receipt")
    assert [(host["host"], host["phase"], host["kind"]) for host in found["hosts"]] == [
        ("prod-1", "done", "promote"),
        ("prod-2", "done", "promote"),
    ]
    assert (found["sent"], found["failed"], found["p99_ms"], found["state"]) == (824, 0, 9.5, "succeeded")
    page = _text(browser(app, story, "bo").get(f"/projects/keepwork/runs/{number}").text)
    assert "2 hosts" in page
    assert "9.5 ms at worst" in page
    production = _production(api)
    assert production["mixed"] is False
    assert {host["serving"]["identity"] for host in production["hosts"]} == {pushed("b").digest}


def test_a_second_host_that_fails_is_shown_with_the_first_going_back(story: Story) -> None:
    app = web_app(story)
    number = promote(story, "3", outcome="")
    story.deploy(number, host="prod-1")
    story.deploy(number, "failed", host="prod-2", sentence="GET / answered 500 for 60 s")
    failed = _text(browser(app, story, "bo").get(f"/projects/keepwork/runs/{number}").text)
    assert "GET / answered 500 for 60 s" in failed
    page = _text(browser(app, story, "bo").get(f"/projects/keepwork/runs/{number + 1}").text)
    assert f"keepwork#{number} failed on prod-2; prod-1 goes back to what served before" in page
    story.deploy(number + 1)
    serving = {host["agent"]: host["serving"] for host in _production(_api(app, story))["hosts"]}
    assert serving["prod-1"]["identity"] == pushed("a").digest
    assert serving["prod-2"] is None


def test_the_receipt_of_a_run_that_is_not_there_is_not_found(story: Story) -> None:
    status, found = _api(web_app(story), story).ask("GET", "/projects/keepwork/runs/999/receipt")
    assert (status, found["code"]) == (404, "no-run")


def test_a_silent_agent_is_said_to_be_silent_and_its_deployment_goes_on(story: Story) -> None:
    app = web_app(story)
    number = promote(story, "3", outcome="")
    story.deploy(number, host="prod-1", until="pulling")
    story.lose_agent("prod-1")
    story.wait(10 * HOUR)
    said = "agent prod-1 is silent for 36000 s, last phase pulling; it finishes or puts everything back by itself"
    found = _production(_api(app, story))
    assert found["hosts"][0]["underway"]["silence"] == said
    assert found["sentence"].endswith(f"is in phase pulling: {said}")
    bo = browser(app, story, "bo")
    assert said in _text(bo.get(BOARD).text)
    assert said in _text(bo.get(f"/projects/keepwork/runs/{number}").text)
    assert _api(app, story).get(f"/projects/keepwork/runs/{number}")["state"] == "running"
