"""The agents page and its API: what each can do, what it is busy with, who drained it, since when it is silent."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from keepflow.core.flows import JobKind
from keepflow.engine import enrol
from keepflow.store import jobs
from tests.web.conftest import browser, web_app
from tests.web.story import Story
from tests.web.test_api import Caller, _token


@pytest.fixture
def root(story: Story) -> FlaskClient:
    return browser(web_app(story), story, "root")


def card(client: FlaskClient, name: str) -> str:
    """Return the text of one agent's card."""
    page = client.get("/agents").get_data(as_text=True)
    found = next(part for part in page.split("<section")[1:] if f'aria-label="{name}"' in part)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", found))


def busy(story: Story, name: str) -> list[str]:
    with story.master.database.read() as conn:
        held = [one for one in jobs.holdings(conn) if one.agent_id == story.agent_ids[name]]
    return [f"{one.project}#{one.number}" for one in held if one.kind == JobKind.SCRIPT]


def test_r42_a_card_says_labels_slots_and_what_they_are_busy_with(story: Story, root: FlaskClient) -> None:
    shown = card(root, "local")
    held = busy(story, "local")
    assert f"Busy {len(held)} of 2" in shown
    assert all(name in shown for name in held)
    assert "Labels linux, docker" in shown


def test_r42_a_drained_agent_says_who_drained_it(story: Story, root: FlaskClient) -> None:
    assert "drained" not in card(root, "local")
    story.write(lambda tx: enrol.drain(tx, story.master, story.agent_ids["local"], "ann", story.now))
    assert "ann gives it no new script jobs" in card(root, "local")
    story.write(lambda tx: enrol.undrain(tx, story.master, story.agent_ids["local"], "ann", story.now))
    assert "drained" not in card(root, "local")


def test_r40_an_offline_agent_says_why_and_since_when_it_is_silent(story: Story, root: FlaskClient) -> None:
    assert "Seen" in card(root, "local")
    story.lose_agent("local")
    shown = card(root, "local")
    assert "offline the link was cut" in shown
    assert "Silent since" in shown


def test_r42_the_api_drains_and_says_what_is_still_running(story: Story) -> None:
    admin = Caller(web_app(story), _token(story, "root", ["admin"]))
    assert admin.ask("POST", "/agents/nobody/drain")[0] == 404
    for verb, by in (("drain", "root"), ("undrain", "")):
        assert admin.ask("POST", f"/agents/local/{verb}")[0] == 200
        found = next(one for one in admin.get("/agents")["items"] if one["name"] == "local")
        assert (found["drained_by"], found["running"]) == (by, busy(story, "local"))
