"""Gates and rules through the real application: marks, four eyes, locks, freezes, going back, breaking the glass."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from keepflow.config.desired import desired
from keepflow.config.server_file import load_server
from keepflow.core.rules import LAPSE_AFTER
from keepflow.engine import apply, gates, locking
from keepflow.errors import UsageError
from keepflow.store import deployments, environments, events
from keepflow.store import gates as stored_gates
from keepflow.store.environments import Environment
from keepflow.store.tables import deployments as table
from tests.web.conftest import browser, web_app
from tests.web.story import SECOND, Story, promote, pushed, run_test

OURS = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
API = "/api/v1/projects/keepwork"
PLACE = "/environments"
PAGES = "/projects/keepwork/environments"
REASON = "the shop takes no orders, and this mends it"
STRICT = {"verified_by": ["testers"], "approved_by": ["release-managers"], "rules": {"four_eyes": True}}


@pytest.fixture
def rule(story: Story) -> Callable[..., None]:
    """Give production other rules, as an apply does."""

    def give(**columns: Any) -> None:
        production = _place(story, "production")
        story.write(lambda tx: environments.put(tx.conn, production.project_id, "production", story.now, columns))

    return give


@pytest.fixture
def strict(rule: Callable[..., None], story: Story) -> Story:
    """Production wants a tester's mark and another person's press; cy and dee are there, too."""
    rule(**STRICT)
    story.user("cy", role="release-manager")
    story.user("dee", role="tester")
    return story


@pytest.fixture
def web(strict: Story) -> Flask:
    return web_app(strict)


def _place(story: Story, name: str) -> Environment:
    with story.master.database.read() as conn:
        found = environments.by_name(conn, story.project().id, name)
    assert found is not None
    return found


def _current(story: Story) -> str:
    """Return the deployment that made test serve what it serves."""
    with story.master.database.read() as conn:
        found = deployments.newest_current(conn, _place(story, "test").hosts)
    assert found is not None
    return found.id


def _ask(client: FlaskClient, method: str, path: str, body: object = None) -> TestResponse:
    """Call the API as a page's script would, with the form token of the session."""
    token = _fields(client.get(PAGES).text, "csrf_token")["csrf_token"]
    return client.open(f"{API}{path}", method=method, json=body, headers={**OURS, "X-CSRF-Token": token})


def _mark(client: FlaskClient, verdict: str = "tested", note: str = "clicked through it", **more: Any) -> TestResponse:
    return _ask(client, "POST", f"{PLACE}/test/marks", {"verdict": verdict, "note": note, **more})


def _promote(client: FlaskClient, run: int = 3, **more: Any) -> TestResponse:
    return _ask(client, "POST", f"{PLACE}/production/promotions", {"run": run, **more})


def _fields(page: str, *names: str) -> dict[str, str]:
    """Return the hidden fields of a page's form."""
    found = {name: re.search(rf'name="{name}" value="([^"]*)"', page) for name in names}
    return {name: match[1] for name, match in found.items() if match}


def _form(page: str) -> dict[str, str]:
    return _fields(page, "csrf_token", "source", "serving", "way", "key")


def _said(answer: TestResponse) -> dict[str, Any]:
    """Return the JSON of an answer."""
    found: dict[str, Any] | None = answer.json
    assert found is not None
    return found


def _guards(client: FlaskClient, run: int = 3) -> dict[str, bool]:
    found = _said(client.get(f"{API}{PLACE}/production/preview?source={run}"))
    return {guard["code"]: guard["met"] for guard in found["guards"]}


def _gate(story: Story) -> tuple[int, str] | None:
    with story.master.database.read() as conn:
        found = stored_gates.open_one(conn, _place(story, "production").id)
    return (found.gate.run, found.identity) if found else None


def _count(story: Story) -> int:
    query = select(func.count()).where(table.c.environment_id == _place(story, "production").id)
    with story.master.database.read() as conn:
        return int(conn.execute(query).scalar_one())


def _text(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).replace("&#39;", "'").replace("&quot;", '"')


# --- marks -----------------------------------------------------------------------------------------------------------


def test_what_nobody_tested_waits_and_a_testers_mark_lets_it_through(web: Flask, strict: Story) -> None:
    bo = browser(web, strict, "bo")
    refused = _promote(bo)
    assert (refused.status_code, _said(refused)["code"]) == (409, "verified-by")
    assert _mark(browser(web, strict, "ann")).status_code == 201
    assert _promote(bo).status_code == 202


def test_a_mark_names_the_deployment_and_the_digest(web: Flask, strict: Story) -> None:
    made = _said(_mark(browser(web, strict, "ann")))
    assert (made["deployment"], made["identity"], made["person"]) == (_current(strict), pushed("b").digest, "ann")


def test_marks_of_who_is_in_no_group_of_testers_are_refused(web: Flask, strict: Story) -> None:
    refused = _mark(browser(web, strict, "dee"))
    assert (refused.status_code, _said(refused)["code"]) == (403, "not-a-tester")
    assert _mark(browser(web, strict, "root")).status_code == 403, "admins are in no group of testers either"


def test_a_rejection_stands_until_whoever_made_it_says_otherwise(web: Flask, strict: Story) -> None:
    ann, bo = browser(web, strict, "ann"), browser(web, strict, "bo")
    _mark(ann)
    assert _mark(ann, "rejected", "").status_code == 400, "a rejection says why"
    _mark(ann, "rejected", "the login page is white")
    refused = _promote(bo)
    assert _said(refused)["code"] == "rejected"
    assert "the login page is white" in _said(refused)["detail"]
    _mark(ann, note="it was my own cookie")
    assert _promote(bo).status_code == 202


def test_who_tested_it_does_not_approve_it(strict: Story, rule: Callable[..., None], web: Flask) -> None:
    rule(verified_by=["release-managers"])
    bo, cy = browser(web, strict, "bo"), browser(web, strict, "cy")
    assert _mark(bo).status_code == 201
    refused = _promote(bo)
    assert (refused.status_code, _said(refused)["code"]) == (409, "four-eyes")
    assert _promote(cy).status_code == 202


def test_a_mark_is_for_what_the_tester_looked_at(web: Flask, strict: Story) -> None:
    seen = _current(strict)
    newer = strict.commit("Count the sheep")
    run_test(strict, newer, "Count the sheep", "c")
    assert _mark(browser(web, strict, "ann"), deployment=seen).status_code == 201
    guards = [_guards(browser(web, strict, "bo"), run)["verified-by"] for run in (3, 7)]
    assert guards == [True, False]


def test_what_no_environment_takes_needs_no_mark(web: Flask, strict: Story) -> None:
    refused = _ask(browser(web, strict, "ann"), "POST", f"{PLACE}/dev/marks", {"verdict": "tested"})
    assert _said(refused)["code"] == "nothing-to-mark"


def test_the_card_of_test_has_the_buttons_and_says_who_may_not(web: Flask, strict: Story) -> None:
    ann = browser(web, strict, "ann")
    page = ann.get(PAGES).text
    fields = _fields(page, "csrf_token", "deployment")
    answer = ann.post(f"{PAGES}/test/mark", headers=OURS, data={**fields, "verdict": "tested", "note": "all of it"})
    assert answer.status_code == 303
    assert "ann says tested" in _text(ann.get(PAGES).text)
    other = browser(web, strict, "dee").get(PAGES).text
    assert '<button disabled title="only members of testers may mark here, and dee is in none of them">' in other


# --- the one open gate -----------------------------------------------------------------------------------------------


def test_a_release_waits_at_the_gate_from_its_test_to_its_promote(web: Flask, strict: Story) -> None:
    with strict.master.database.read() as conn:
        open_before = stored_gates.open_one(conn, _place(strict, "production").id)
    assert open_before is not None, "the story's production asked for no mark"
    _mark(browser(web, strict, "ann"))
    bo = browser(web, strict, "bo")
    assert _gate(strict) == (3, pushed("b").digest)
    assert "keepwork#3 waits for approval by" in _text(bo.get(PAGES).text)
    assert "lapses in 13d" in _text(bo.get(PAGES).text) or "lapses in 14d" in _text(bo.get(PAGES).text)
    _promote(bo)
    assert _gate(strict) is None


def test_a_newer_tested_release_supersedes_the_one_at_the_gate_and_a_stale_click_ships_nothing(story: Story) -> None:
    bo = browser(web_app(story), story, "bo")
    assert _gate(story) == (3, pushed("b").digest)
    newer = story.commit("Count the sheep")
    number = run_test(story, newer, "Count the sheep", "c")
    assert _gate(story) == (number, pushed("c").digest)
    refused = _promote(bo)
    assert (refused.status_code, _said(refused)["code"]) == (409, "gate")
    assert f"superseded by keepwork#{number}" in _said(refused)["detail"]
    assert _ask(bo, "POST", f"{PLACE}/production/gate", {"source": "3"}).status_code == 201
    assert _gate(story) == (3, pushed("b").digest)
    assert _promote(bo).status_code == 202


def test_an_older_release_tested_again_does_not_take_the_gate_from_a_newer_one(web: Flask, strict: Story) -> None:
    newer = strict.commit("Count the sheep")
    number = run_test(strict, newer, "Count the sheep", "c")
    ann = browser(web, strict, "ann")
    _mark(ann)
    assert _gate(strict) == (number, pushed("c").digest)
    _mark(ann, run=3)
    assert _gate(strict) == (number, pushed("c").digest)
    assert _guards(browser(web, strict, "bo"))["gate"] is False


def test_time_lets_a_gate_lapse_and_never_makes_it_a_yes(story: Story) -> None:
    bo, before = browser(web_app(story), story, "bo"), _count(story)
    story.now += int(LAPSE_AFTER * SECOND)
    story.write(lambda tx: gates.lapse(tx, story.now))
    bo = browser(web_app(story), story, "bo")
    assert (_gate(story), _count(story)) == (None, before)
    refused = _promote(bo)
    assert (_said(refused)["code"], "lapsed" in _said(refused)["detail"]) == ("gate", True)
    page = bo.get(f"{PAGES}/production/promote?source=3").text
    assert "Open the gate anew for #3" in page
    form = {**_fields(page, "csrf_token"), "source": pushed("b").digest}
    assert bo.post(f"{PAGES}/production/gate", headers=OURS, data=form).status_code == 303
    assert _promote(bo).status_code == 202


def test_a_hundred_presses_at_once_are_one_deployment(story: Story) -> None:
    app, before = web_app(story), _count(story)
    bo = browser(app, story, "bo")
    cookie = bo.get_cookie("kf")
    assert cookie is not None
    token = _fields(bo.get(f"{PAGES}/production/promote?source=3").text, "csrf_token")["csrf_token"]
    headers = {**OURS, "X-CSRF-Token": token}

    def press(number: int) -> tuple[int, str]:
        client = app.test_client()
        client.set_cookie("kf", cookie.value)
        key = {"key": "one-press-of-bo"} if number % 2 else {}
        answer = client.post(f"{API}{PLACE}/production/promotions", json={"run": 3, **key}, headers=headers)
        return answer.status_code, (answer.json or {}).get("id", "")

    with ThreadPoolExecutor(16) as pool:
        said = list(pool.map(press, range(100)))
    assert {status for status, _ in said} <= {202, 409}
    assert len({name for status, name in said if status == 202}) == 1
    assert _count(story) == before + 1


# --- time ------------------------------------------------------------------------------------------------------------


def test_what_was_tested_too_long_ago_is_refused(story: Story, rule: Callable[..., None]) -> None:
    rule(rules={"max_age": 3600.0})
    assert _guards(browser(web_app(story), story, "bo"))["max-age"] is False
    rule(rules={"max_age": 30 * 86400.0})
    assert _guards(browser(web_app(story), story, "bo"))["max-age"] is True


def test_a_freeze_window_holds_in_its_own_time_zone(story: Story, rule: Callable[..., None]) -> None:
    window = {"from": "Fri 16:00", "to": "Mon 08:00", "tz": "Europe/Berlin", "why": "nobody is here"}
    rule(rules={"freeze": [window]})
    for moment, held in (("2026-06-05T13:59", False), ("2026-06-05T14:00", True), ("2026-06-08T06:00", False)):
        story.now = int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() * SECOND)
        client = browser(web_app(story), story, "bo")
        assert ("freeze" in _guards(client)) is held, moment
        if held:
            until = "until Mon 2026-06-08 08:00 Europe/Berlin: nobody is here"
            assert until in _said(_promote(client))["detail"]


def test_a_branch_that_may_not_come_here_is_refused(story: Story, rule: Callable[..., None]) -> None:
    rule(branches=["release/*"])
    refused = _promote(browser(web_app(story), story, "bo"))
    assert (_said(refused)["code"], "release/*" in _said(refused)["detail"]) == ("branch", True)


# --- locks -----------------------------------------------------------------------------------------------------------


def test_a_lock_keeps_everybody_out_until_its_holder_or_an_admin_lets_go(web: Flask, strict: Story) -> None:
    bo, cy, root = (browser(web, strict, name) for name in ("bo", "cy", "root"))
    _mark(browser(web, strict, "ann"))
    assert _ask(bo, "PUT", f"{PLACE}/production/lock", {"why": "the auditors look at it"}).status_code == 200
    refused = _promote(cy)
    assert (_said(refused)["code"], "the auditors look at it" in _said(refused)["detail"]) == ("locked", True)
    assert "locked by bo" in _text(cy.get(PAGES).text)
    assert _said(_ask(cy, "PUT", f"{PLACE}/production/lock", {"why": "mine"}))["code"] == "locked"
    assert _ask(cy, "DELETE", f"{PLACE}/production/lock").status_code == 403
    assert _ask(root, "DELETE", f"{PLACE}/production/lock").status_code == 200
    assert _promote(cy).status_code == 202


def test_a_lock_holds_back_what_flows_deploy_and_unlocking_lets_it_go(story: Story) -> None:
    place = _place(story, "test")
    story.write(lambda tx: locking.lock(tx, story.master, place, "the tester is in the middle of it", "ann", story.now))
    sha = story.commit("Count the sheep")
    number = run_test(story, sha, "Count the sheep", "c", outcome="")
    with story.master.database.read() as conn:
        [waiting] = deployments.of_environment(conn, place.id, 1)
    assert (waiting.phase, waiting.fence) == ("queued", None)
    bo = browser(web_app(story), story, "bo")
    run = _said(bo.get(f"/api/v1/projects/keepwork/runs/{number}"))
    assert "the tester is in the middle of it" in run["reason"]
    story.write(lambda tx: locking.unlock(tx, story.master, _place(story, "test"), "ann", False, story.now))
    story.renew()
    story.deploy(number)
    assert _current(story) == waiting.id


# --- going back ------------------------------------------------------------------------------------------------------


def test_nothing_older_goes_out_without_the_word_rollback(story: Story) -> None:
    promote(story, "3")
    bo = browser(web_app(story), story, "bo")
    refused = _promote(bo, run=1)
    assert (refused.status_code, _said(refused)["code"]) == (409, "rollback")
    started = _promote(bo, run=1, rollback=True)
    assert (started.status_code, _said(started)["kind"]) == (202, "rollback")


@pytest.mark.parametrize(("typed", "status"), [("production", 400), ("rollback production", 303)])
def test_the_page_asks_for_the_word_before_it_goes_back(typed: str, status: int, story: Story) -> None:
    promote(story, "3")
    bo = browser(web_app(story), story, "bo")
    page = bo.get(f"{PAGES}/production/promote?source=1").text
    assert "Roll production back to keepwork#1" in page
    assert (
        bo.post(f"{PAGES}/production/promote", headers=OURS, data={**_form(page), "typed": typed}).status_code == status
    )


def test_a_page_that_is_out_of_date_starts_nothing(story: Story) -> None:
    newer = story.commit("Count the sheep")
    number = run_test(story, newer, "Count the sheep", "c")
    bo = browser(web_app(story), story, "bo")
    page = bo.get(f"{PAGES}/production/promote?source={number}").text
    story.write(lambda tx: gates.open_anew(tx, _place(story, "production"), _release(story, 3), "bo", story.now))
    promote(story, "3")
    before = _count(story)
    answer = bo.post(f"{PAGES}/production/promote", headers=OURS, data={**_form(page), "typed": "production"})
    assert answer.status_code == 409
    assert _count(story) == before


def _release(story: Story, run: int) -> Any:
    from keepflow.engine.promoting import find_release

    with story.master.database.read() as conn:
        return find_release(conn, story.project(), str(run))


# --- breaking the glass ----------------------------------------------------------------------------------------------


def test_breaking_the_glass_is_told_to_everybody_and_the_actor_cannot_silence_it(web: Flask, strict: Story) -> None:
    bo, cy, ann = (browser(web, strict, name) for name in ("bo", "cy", "ann"))
    short = _promote(bo, break_glass="it is urgent")
    assert _said(short)["code"] == "short-reason"
    started = _promote(bo, break_glass=REASON)
    assert started.status_code == 202
    with strict.master.database.read() as conn:
        [told] = events.since(conn, 0, 10, kind="break-glass")
        order = deployments.by_id(conn, _said(started)["id"])
    assert (told.actor, told.data["reason"]) == ("bo", REASON)
    assert [rule["code"] for rule in told.data["overridden"]] == ["verified-by", "four-eyes", "receipt"]
    assert order is not None
    assert _approver(order) == f"bo (break-glass: {REASON})"
    for path in ("/projects/keepwork", PAGES, "/projects/keepwork/runs/1", "/projects/keepwork/deliveries"):
        page = _text(ann.get(path).text)
        assert "bo broke the glass" in page, path
        assert "nobody of testers has marked it tested" in page, path
    assert "broke the glass" not in browser(web, strict, "root").get("/projects/shop").text
    own = _ask(bo, "POST", "/break-glass/1/acknowledge")
    assert (own.status_code, _said(own)["code"]) == (403, "own-glass")
    assert "I have followed it up" not in bo.get(PAGES).text
    assert _ask(cy, "POST", "/break-glass/1/acknowledge").status_code == 200
    assert "broke the glass" not in ann.get(PAGES).text
    assert _ask(ann, "POST", "/break-glass/1/acknowledge").status_code == 409


def _approver(deployment: deployments.Deployment) -> str:
    import base64
    import json

    assert deployment.order is not None
    return str(json.loads(base64.b64decode(deployment.order["payload"]))["approver"])


def test_the_glass_opens_no_other_door(web: Flask, strict: Story) -> None:
    assert _promote(browser(web, strict, "ann"), break_glass=REASON).status_code == 403
    bo = browser(web, strict, "bo")
    assert _said(_promote(bo, run=4, break_glass=REASON))["code"] == "origin"
    strict.lose_agent("prod-1")
    assert _said(_promote(bo, break_glass=REASON))["code"] == "agent"


def test_the_page_has_a_form_of_its_own_for_it(web: Flask, strict: Story) -> None:
    bo = browser(web, strict, "bo")
    page = bo.get(f"{PAGES}/production/promote?source=3").text
    assert "Break the glass" in page
    form = {**_form(page), "typed": "production", "reason": "too short"}
    refused = bo.post(f"{PAGES}/production/promote", headers=OURS, data=form)
    assert (refused.status_code, "at least 15 characters" in refused.text) == (400, True)
    assert bo.post(f"{PAGES}/production/promote", headers=OURS, data={**form, "reason": REASON}).status_code == 303
    assert "broke the glass" in bo.get(PAGES).text


# --- where the rules come from ---------------------------------------------------------------------------------------

FILE = """
projects:
  keepwork: {repo: "https://github.com/example/keepwork.git", images: [keepwork]}
groups: {testers: [ann], release-managers: [bo, cy]}
environments:
  keepwork/test: {agent: local, service: keepwork-test, branches: [master, main]}
  keepwork/production:
    agent: prod-1
    service: keepwork
    promote_from: test
    branches: master
    verified_by: testers
    approved_by: release-managers
    four_eyes: true
    max_age: 7d
    lapse_after: 3d
    freeze:
      - {from: Fri 16:00, to: Mon 08:00, tz: Europe/Berlin, why: nobody is here}
      - {from: 2026-12-24, to: 2027-01-02, tz: Europe/Berlin}
"""


def test_what_the_server_file_says_is_what_the_environment_demands(story: Story) -> None:
    wanted = desired(load_server(FILE))
    story.write(lambda tx: apply.apply(tx, story.master, wanted, "root", story.now))
    production = _place(story, "production")
    assert (production.verified_by, production.branches) == (("testers",), ("master",))
    rules = production.rules
    assert (rules.four_eyes, rules.max_age, rules.lapse_after) == (True, 7 * 86400.0, 3 * 86400.0)
    assert [(window.start, window.end, window.why) for window in rules.freeze] == [
        ("Fri 16:00", "Mon 08:00", "nobody is here"),
        ("2026-12-24", "2027-01-02", ""),
    ]
    with story.master.database.read() as conn:
        assert apply.plan(conn, story.master, wanted) == [], "applying it again changes nothing"


@pytest.mark.parametrize(
    "freeze",
    [
        {},
        {"from": "Fri", "to": "Mon", "tz": "UTC", "why": ""},
        {"from": "Fri 16:00", "to": "Mon 08:00", "why": "", "tz": "x"},
    ],
)
def test_rules_no_master_can_keep_are_refused_before_anything_changes(story: Story, freeze: dict[str, str]) -> None:
    wanted = desired(load_server(FILE))
    place = wanted.environments["keepwork/production"].model_copy(update={"rules": {"freeze": [freeze]}})
    broken = wanted.model_copy(update={"environments": {**wanted.environments, "keepwork/production": place}})
    with pytest.raises(UsageError) as refused:
        story.write(lambda tx: apply.apply(tx, story.master, broken, "root", story.now))
    assert refused.value.code == "bad-rules"
    assert _place(story, "production").verified_by == ()


def test_no_gate_is_opened_anew_for_what_no_tester_passed(web: Flask, strict: Story) -> None:
    bo = browser(web, strict, "bo")
    newer = strict.commit("Count the sheep")
    number = run_test(strict, newer, "Count the sheep", "c")
    refused = _ask(bo, "POST", f"{PLACE}/production/gate", {"source": str(number)})
    assert (refused.status_code, _said(refused)["code"]) == (409, "not-passed")
