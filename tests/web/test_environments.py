"""The board, the page that asks before a promote, and the press of the button."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from keepflow.engine import advice
from keepflow.engine import people as rules
from keepflow.store import agents
from keepflow.store.tables import deployments, environments
from tests.web import story as stories
from tests.web.conftest import browser, web_app
from tests.web.story import Story, promote, pushed

OURS = {"Origin": "http://localhost"}
BOARD = "/projects/keepwork/environments"
CONFIRM = f"{BOARD}/production/promote"


def _text(page: str) -> str:
    """Return what a reader sees of a page, on one line."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).replace("&#39;", "'").replace("&amp;", "&")


def _hidden(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None, f"the form has no field {name}"
    return found[1]


def _press(client: FlaskClient, source: str = "3", typed: str = "production", **more: str) -> TestResponse:
    """Open the confirm page and send its form."""
    page = client.get(f"{CONFIRM}?source={source}").text
    fields = {name: _hidden(page, name) for name in ("csrf_token", "source", "key")}
    return client.post(CONFIRM, headers=OURS, data={**fields, "typed": typed, "note": "ann tested it", **more})


def _count(story: Story, environment: str = "production") -> int:
    query = select(func.count()).select_from(
        deployments.join(environments, environments.c.id == deployments.c.environment_id)
    )
    with story.master.database.read() as conn:
        return int(conn.execute(query.where(environments.c.name == environment)).scalar_one())


# --- the board -------------------------------------------------------------------------------------------------------


def test_the_board_shows_every_environment_with_what_serves_and_who_did_it(still: Flask, settled: Story) -> None:
    page = browser(still, settled, "bo").get(BOARD).text
    cards = re.split(r'(?=<section class="sheet card)', page)[1:]
    assert [re.search(r"<h2>(\w+)</h2>", card)[1] for card in cards] == ["dev", "test", "production"]  # type: ignore[index]  # a missing name fails the test
    production = _text(cards[2])
    for fact in ("Serve the login page over HTTP/2", "a0a0a0a0a0a0", "bo, from keepwork#1", "prod-1 online", "serving"):
        assert fact in production
    assert f'data-copy="{pushed("a").digest}"' in cards[2]
    assert "3 commits would go live" in production
    for subject in ("修复登录页的时区显示", "Cap uploads at 20 MB and say so", "Keep drafts when the connection drops"):
        assert subject in production
    assert "Promote #3 to production" in production


def test_environments_that_never_served_are_shown_too(still: Flask, settled: Story) -> None:
    page = _text(browser(still, settled, "root").get("/projects/shop/environments").text)
    assert page.count("never deployed") == 3
    assert "A push to master or main deploys here" in page
    assert "It takes what served in test" in page


def test_what_serves_is_not_offered_again(story: Story) -> None:
    promote(story, "3")
    page = _text(browser(web_app(story), story, "bo").get(BOARD).text)
    assert "Promote #3" not in page
    assert "What served last in test serves here" in page


def test_a_greyed_button_says_which_rule_it_waits_for(story: Story) -> None:
    story.lose_agent("prod-1")
    page = browser(web_app(story), story, "ann").get(BOARD).text
    title = "ann needs the role release-manager on this project; agent prod-1 is not connected"
    assert f'<button disabled title="{title}">' in page
    assert "ann needs the role release-manager on this project" in _text(page)
    assert "agent prod-1 is not connected" in _text(page)
    assert "prod-1 offline" in _text(page)


@pytest.mark.parametrize(("where", "warned"), [("here", True), ("elsewhere", False), ("", False)])
def test_builds_beside_the_keys_that_order_production_are_told_until_they_move(
    story: Story, monkeypatch: pytest.MonkeyPatch, where: str, warned: bool
) -> None:
    monkeypatch.setattr(advice, "machine_id", lambda: "here")
    with story.master.database.read() as conn:
        local = agents.by_name(conn, "local")
    assert local is not None
    hello = {**(local.hello or {}), "machine_id": where}
    story.master.writer.call(lambda tx: agents.change(tx.conn, local.id, hello=hello, capabilities=["run", "deploy"]))
    page = _text(browser(web_app(story), story, "bo").get(BOARD).text)
    assert ("agent local builds on the master's own machine" in page) is warned


def test_drift_is_shown_red_and_in_words(story: Story) -> None:
    from keepflow.store import environments as stored
    from keepflow.store import placements

    place = story.project()
    with story.master.database.read() as conn:
        production = stored.by_name(conn, place.id, "production")
    assert production is not None
    seen = {**(production.hosts[0].observed or {}), "identity": "sha256:" + "9" * 64}
    story.write(lambda tx: placements.observe(tx.conn, production.id, "prod-1", seen))
    page = browser(web_app(story), story, "bo").get(BOARD).text
    assert 'class="sheet card drifts"' in page
    assert f"sha256:{'9' * 12} serves; {(pushed('a').digest or '')[:19]} was deployed" in _text(page)


def test_the_right_release_that_does_not_serve_is_an_alarm_with_the_hosts_own_words(story: Story) -> None:
    from keepflow.store import environments as stored
    from keepflow.store import placements

    place = story.project()
    with story.master.database.read() as conn:
        production = stored.by_name(conn, place.id, "production")
    assert production is not None
    seen = {**(production.hosts[0].observed or {}), "healthy": False, "note": "the container does not run"}
    story.write(lambda tx: placements.observe(tx.conn, production.id, "prod-1", seen))
    page = _text(browser(web_app(story), story, "bo").get(BOARD).text)
    assert "visitors: the container does not run instead of answers of the release" in page


def test_a_deployment_under_way_shows_its_phase_and_whose_it_is(story: Story) -> None:
    number = promote(story, "3", by="cy", outcome="")
    story.deploy(number, until="gating")
    page = _text(browser(web_app(story), story, "bo").get(BOARD).text)
    assert f"cy is deploying keepwork#{number}" in page
    assert "gating" in page
    assert "a deployment to production by cy is not finished" in page


def test_a_failed_try_stays_on_the_card_with_its_reason(story: Story) -> None:
    number = promote(story, "3", outcome="")
    story.deploy(number, "failed", sentence="the new container never answered on / within 60 s")
    client = browser(web_app(story), story, "bo")
    page = _text(client.get(BOARD).text)
    assert f"The last try, keepwork#{number} , failed" in page
    assert "the new container never answered on / within 60 s" in page
    assert "a0a0a0a0a0a0" in page
    run = _text(client.get(f"/projects/keepwork/runs/{number}").text)
    assert "Cannot find module" in run.replace("cannot", "Cannot")


# --- asking ----------------------------------------------------------------------------------------------------------


def test_the_confirm_page_shows_the_difference_and_every_rule(still: Flask, settled: Story) -> None:
    page = _text(browser(still, settled, "bo").get(f"{CONFIRM}?source=3").text)
    assert page.count("met:") == 8
    assert "not met" not in page
    assert "3 commits go live" in page
    assert "No setting changes" in page


def test_the_confirm_page_of_an_older_release_says_which_commits_go_away(story: Story) -> None:
    promote(story, "3")
    page = _text(browser(web_app(story), story, "bo").get(f"{CONFIRM}?source=1").text)
    assert "3 commits go away" in page


@pytest.mark.parametrize("source", ["99", "sha256:" + "0" * 64, "", "x' OR 1=1", "99999999999999999999"])
def test_a_source_that_is_not_there_is_told_so(source: str, still: Flask, settled: Story) -> None:
    answer = browser(still, settled, "bo").get(CONFIRM, query_string={"source": source})
    assert answer.status_code in (400, 404)


# --- pressing --------------------------------------------------------------------------------------------------------


def test_the_press_starts_the_promote_and_shows_the_run_that_carries_it_out(story: Story) -> None:
    client = browser(web_app(story), story, "bo")
    answer = _press(client)
    assert (answer.status_code, answer.location) == (303, "/projects/keepwork/runs/7")
    page = _text(client.get(answer.location).text)
    assert "bo promoted keepwork#3 to production" in page
    assert "ann tested it" in page
    story.deploy(7)
    board = client.get("/api/v1/projects/keepwork/environments").json["items"]
    assert board[2]["serving"]["identity"] == pushed("b").digest
    assert board[1]["serving"]["identity"] == pushed("b").digest
    assert board[2]["serving"]["by"] == "bo"


@pytest.mark.parametrize("typed", ["", "prod", "Production", "test"])
def test_another_name_typed_starts_nothing(typed: str, story: Story) -> None:
    answer = _press(browser(web_app(story), story, "bo"), typed=typed)
    assert (answer.status_code, "type production to confirm" in answer.text) == (400, True)
    assert _count(story) == 1


def test_a_hundred_clicks_on_one_form_are_one_promote(story: Story) -> None:
    app = web_app(story)
    client = browser(app, story, "bo")
    page = client.get(f"{CONFIRM}?source=3").text
    form = {name: _hidden(page, name) for name in ("csrf_token", "source", "key")} | {"typed": "production"}
    cookie = client.get_cookie("kf")
    assert cookie is not None

    def click(_: int) -> str | None:
        other = app.test_client()
        other.set_cookie("kf", cookie.value)
        return other.post(CONFIRM, headers=OURS, data=form).location

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(click, range(100))) == {"/projects/keepwork/runs/7"}
    assert _count(story) == 2


def test_a_second_press_while_one_is_under_way_is_refused_with_the_rule(story: Story) -> None:
    client = browser(web_app(story), story, "bo")
    page = client.get(f"{CONFIRM}?source=3").text
    form = {name: _hidden(page, name) for name in ("csrf_token", "source", "key")} | {"typed": "production"}
    promote(story, "3", by="cy", outcome="")
    answer = client.post(CONFIRM, headers=OURS, data=form)
    assert answer.status_code == 409
    assert "a deployment to production by cy is not finished" in _text(answer.text)
    assert _count(story) == 2


@pytest.mark.parametrize("person", ["ann", "cy"])
def test_who_lacks_the_role_cannot_press_whatever_they_send(person: str, story: Story) -> None:
    if person == "cy":
        story.user("cy")
    app = web_app(story)
    page = browser(app, story, "bo").get(f"{CONFIRM}?source=3").text
    client = browser(app, story, person)
    own = _hidden(client.get("/agents").text, "csrf_token")
    form = {"csrf_token": own, "source": "3", "key": _hidden(page, "key"), "typed": "production"}
    assert client.post(CONFIRM, headers=OURS, data=form).status_code == (403 if person == "ann" else 404)
    assert _count(story) == 1


def test_a_list_of_an_environment_narrows_even_admins(tmp_path: stories.Path) -> None:
    with stories.open_master(tmp_path / "home") as master:
        story = Story(master)
        stories.tell(story)
        place = story.project()
        values = {"approved_by": ["release-managers"]}
        from keepflow.store import environments as stored

        story.write(lambda tx: stored.put(tx.conn, place.id, "production", story.now, values))
        app = web_app(story)
        admin = _text(browser(app, story, "root").get(f"{CONFIRM}?source=3").text)
        assert "only members of release-managers may promote here" in admin
        assert _press(browser(app, story, "bo")).status_code == 303


def test_a_right_taken_away_after_the_page_was_opened_is_gone(story: Story) -> None:
    client = browser(web_app(story), story, "bo")
    page = client.get(f"{CONFIRM}?source=3").text
    form = {name: _hidden(page, name) for name in ("csrf_token", "source", "key")} | {"typed": "production"}
    place = story.project()
    story.write(lambda tx: rules.set_role(tx, place.id, "tester", user="bo", by="root", now=story.now))
    assert client.post(CONFIRM, headers=OURS, data=form).status_code == 403
    assert _count(story) == 1


def test_a_key_of_another_promote_is_not_taken_for_this_one(story: Story) -> None:
    promote(story, "3", key="a" * 32)
    client = browser(web_app(story), story, "bo")
    page = client.get(f"{CONFIRM}?source=1").text
    form = {name: _hidden(page, name) for name in ("csrf_token", "source")} | {"typed": "production", "key": "a" * 32}
    answer = client.post(CONFIRM, headers=OURS, data=form)
    assert (answer.status_code, "idempotency key" in answer.text) == (409, True)
    assert _count(story) == 2


def test_the_confirm_page_shows_what_proves_the_release_and_gives_it_out(still: Flask, settled: Story) -> None:
    response = browser(still, settled, "bo").get(f"{CONFIRM}?source=3")
    page = _text(response.text)
    assert "seen serving by keepwork#3" in page
    assert "built by keepwork#3" in page
    address = f"/api/v1/projects/keepwork/releases/{pushed('b').digest}/receipts"
    assert f'href="{address}"' in response.text
    evidence = browser(still, settled, "bo").get(address)
    assert (evidence.status_code, len(evidence.json["receipts"])) == (200, 2)
    assert f'href="{address}"' in browser(still, settled, "bo").get("/projects/keepwork/runs/3").text


def test_a_digest_nobody_pushed_has_no_evidence(still: Flask, settled: Story) -> None:
    for digest in ("sha256:" + "9" * 64, "latest", "sha256:x"):
        answer = browser(still, settled, "bo").get(f"/api/v1/projects/keepwork/releases/{digest}/receipts")
        assert (answer.status_code, answer.json["code"]) == (404, "no-release")
