"""A project's page says whether its forge has the webhook that keepflow keeps there (R11)."""

from __future__ import annotations

import html
import re

from flask import Flask

from keepflow.engine import hooking
from keepflow.store import forge_hooks
from keepflow.wire.desired import DesiredApi
from tests.web.conftest import browser
from tests.web.story import Story

SAID = "git.example.org answered 403: <b>no</b> scope; it needs a token"
TOKEN = "a-token-nobody-may-see"


def _hook(story: Story, **columns: object) -> int:
    how = DesiredApi(token=TOKEN, api="https://git.example.org/api/v1")
    project = story.project()
    story.write(lambda tx: hooking.want(tx, story.master, project, how, story.now))
    with story.master.database.read() as conn:
        [hook] = forge_hooks.of_project(conn, project.id)
    story.write(lambda tx: forge_hooks.change(tx.conn, hook.id, story.now, **columns))
    return hook.id


def test_r11_a_failure_stands_on_the_page_with_a_button_for_admins(app: Flask, story: Story) -> None:
    number = _hook(story, state="failed", said=SAID, next_at=story.now + 10**12)
    page = browser(app, story, "root").get("/projects/keepwork").text
    assert html.escape(SAID) in page
    assert f"/hooks-at-forges/{number}/again" in page
    assert TOKEN not in page
    other = browser(app, story, "bo").get("/projects/keepwork").text
    assert html.escape(SAID) in other
    assert "hooks-at-forges" not in other


def test_r11_the_button_has_the_forge_asked_at_once(app: Flask, story: Story) -> None:
    number = _hook(story, state="failed", said=SAID, next_at=story.now + 10**12)
    client = browser(app, story, "root")
    token = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/projects/keepwork").text)
    assert token is not None
    sent = client.post(
        f"/hooks-at-forges/{number}/again",
        data={"csrf_token": token[1]},
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    assert (sent.status_code, sent.headers["Location"]) == (303, "/projects/keepwork")
    with story.master.database.read() as conn:
        [hook] = forge_hooks.of_project(conn, story.project().id)
    assert (hook.state, hook.next_at) == ("due", story.now)
    assert client.get("/api/v1/hooks").json["items"][0]["state"] == "due"


def test_r11_a_kept_hook_is_one_quiet_line(app: Flask, story: Story) -> None:
    _hook(story, state="kept", said="", next_at=story.now + 10**12)
    assert "is kept by keepflow" in browser(app, story, "bo").get("/projects/keepwork").text
