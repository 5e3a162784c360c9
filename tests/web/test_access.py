"""Who may do what, for every address, method and kind of caller; and what other sites may not make a browser do."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.routing import Rule

from keepflow.crypto import tokens
from keepflow.engine import people as rules
from keepflow.store import credentials, people
from keepflow.store.tables import metadata
from keepflow.web import access
from tests.web import story as stories
from tests.web.conftest import browser, cookie_for, web_app
from tests.web.story import HOUR, Story
from tests.web.test_pages import PAGES

#: The verb each address needs. A new address without a row fails here: decide, then write it down.
VERB_OF = {
    "static_file": "anyone",
    "schemas.schema": "anyone",
    "account.login_page": "anyone",
    "account.login": "anyone",
    "account.logout": "enter",
    "account.setup_page": "anyone",
    "account.setup": "anyone",
    "board.home": "enter",
    "board.show_project": "see",
    "board.project_now": "see",
    "runs.list_runs": "enter",
    "runs.show_run": "see",
    "runs.run_now": "see",
    "runs.cancel_run": "cancel",
    "control.run_again": "run",
    "control.pause": "pause",
    "control.resume": "pause",
    "runs.approve_run": "run",
    "runs.approve_job": "promote",
    "runs.raw_log": "see",
    "environments.board": "see",
    "environments.board_now": "see",
    "environments.history": "see",
    "environments.confirm": "see",
    "environments.promote": "promote",
    "canary.steer": "promote",
    "quarantine.lift": "promote",
    "drift.mend": "rollback",
    "rehearsals.rehearse": "promote",
    "rollbacks.confirm": "see",
    "rollbacks.rollback": "rollback",
    "settling.settle": "rollback",
    "api.settle_deployment": "rollback",
    "secrets.list_secrets": "secrets",
    "secrets.set_secret": "secrets",
    "secrets.remove_secret": "secrets",
    "secrets.list_job_secrets": "secrets",
    "secrets.set_job_secret": "secrets",
    "secrets.remove_job_secret": "secrets",
    "rules.mark": "tested",
    "rules.lock": "lock",
    "rules.unlock": "lock",
    "rules.gate": "promote",
    "rules.acknowledge": "acknowledge",
    "starting.choose": "run",
    "starting.start": "run",
    "deliveries.list_deliveries": "see",
    "deliveries.show_delivery": "see",
    "deliveries.replay_delivery": "run",
    "hooks.again": "administer",
    "agents.list_agents": "enter",
    "agents.agents_now": "enter",
    "api.openapi": "anyone",
    "api.docs": "anyone",
    "api.projects": "enter",
    "api.list_agents": "enter",
    "api.join_token": "administer",
    "api.revoke_agent": "administer",
    "api.drain_agent": "administer",
    "api.undrain_agent": "administer",
    "api.list_hooks": "administer",
    "api.mend_hook": "administer",
    "api.forget_hook": "administer",
    "api.apply": "administer",
    "api.check": "administer",
    "api.all_runs": "enter",
    "api.project_runs": "see",
    "api.start_run": "run",
    "api.show_run": "see",
    "api.backup": "administer",
    "api.run_log": "see",
    "api.search_logs": "see",
    "api.list_artifacts": "see",
    "api.show_storage": "administer",
    "api.prune_storage": "administer",
    "api.get_artifact": "see",
    "api.run_receipt": "see",
    "api.cancel_run": "cancel",
    "api.run_again": "run",
    "api.show_pause": "see",
    "api.why_run": "see",
    "api.pause_project": "pause",
    "api.resume_project": "pause",
    "api.schedules": "see",
    "api.approve_run": "run",
    "api.approve_job": "promote",
    "api.project_deliveries": "see",
    "api.show_delivery": "see",
    "api.replay_delivery": "run",
    "api.environments": "see",
    "api.deployments": "see",
    "api.preview": "see",
    "api.promote": "promote",
    "api.drift": "see",
    "api.mend_drift": "rollback",
    "api.readying": "see",
    "api.rehearse": "promote",
    "api.rollback_preview": "see",
    "api.rollback": "rollback",
    "api.deployment": "enter",
    "api.deployment_receipt": "enter",
    "api.steer_canary": "promote",
    "api.list_job_secrets": "secrets",
    "api.set_job_secret": "secrets",
    "api.remove_job_secret": "secrets",
    "api.list_secrets": "secrets",
    "api.set_secret": "secrets",
    "api.remove_secret": "secrets",
    "api.quarantine": "see",
    "api.lift_quarantine": "promote",
    "api.receipts": "see",
    "api.countersign_receipt": "promote",
    "api.list_marks": "see",
    "api.add_mark": "tested",
    "api.lock": "lock",
    "api.unlock": "lock",
    "api.open_gate": "promote",
    "api.list_break_glass": "see",
    "api.acknowledge": "acknowledge",
    "api.list_channels": "administer",
    "api.list_notices": "administer",
    "api.test_channel": "administer",
    "notices.list_notices": "administer",
    "api.order_keys": "enter",
    "api.rotate_order_key": "administer",
    "api.whoami": "enter",
    "api.users": "administer",
    "api.add_user": "administer",
    "api.new_link": "administer",
    "api.set_disabled": "administer",
    "api.groups": "administer",
    "api.set_group": "administer",
    "api.remove_group": "administer",
    "api.roles": "roles",
    "api.set_role": "roles",
    "api.tokens": "tokens",
    "api.make_token": "tokens",
    "api.revoke_token": "tokens",
}
#: What each caller may do in the project keepwork and on the server.
ALLOWED = {
    "nobody": {"anyone"},
    "stranger": {"anyone", "enter", "tokens"},
    "viewer": {"anyone", "enter", "tokens", "see"},
    "developer": {"anyone", "enter", "tokens", "see", "run", "cancel", "pause", "acknowledge"},
    "tester": {"anyone", "enter", "tokens", "see", "run", "cancel", "pause", "acknowledge", "tested"},
    "release-manager": set(access.VERBS) - {"administer", "roles"},
    "project-admin": set(access.VERBS) - {"administer"},
    "server-admin": set(access.VERBS),
    "read-token": {"anyone", "enter", "see"},
    "promote-token": {"anyone", "enter", "see", "promote", "rollback", "lock", "acknowledge"},
    "admin-token": set(access.VERBS),
    "dead-token": set(),
}
VALUES = {
    "project": "keepwork",
    "number": 1,
    "job": "build",
    "artifact": 1,
    "environment": "production",
    "delivery": 1,
    "deployment": "x" * 32,
    "digest": "sha256:x",
    "flow": "dev",
}
VALUES |= {"name": "ann", "token": "1"}
PASSED = 299


@dataclass
class Callers:
    """A client per kind of caller, for an application that only says whether the door opened."""

    app: Flask
    story: Story
    headers: dict[str, dict[str, str]]
    cookies: dict[str, str]

    def ask(self, caller: str, method: str, path: str) -> int:
        """Return the status of one request."""
        client = self.app.test_client()
        headers = dict(self.headers.get(caller, {}))
        if method not in ("GET", "HEAD"):
            headers["Sec-Fetch-Site"] = "same-origin"
        if caller in self.cookies:
            cookie = self.cookies[caller]
            client.set_cookie("kf", cookie)
            with self.story.master.database.read() as conn:
                session = credentials.session(conn, tokens.digest(cookie))
            assert session is not None
            headers["X-CSRF-Token"] = session.csrf
        return client.open(path, method=method, headers=headers).status_code


@pytest.fixture(scope="module")
def callers(told: tuple[Path, Story], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    """Callers of every kind, around a story of their own."""
    home, before = told
    copy = tmp_path_factory.mktemp("callers") / "home"
    shutil.copytree(home, copy)
    with stories.open_master(copy) as master:
        yield _callers(Story(master, before.now))


def _callers(story: Story) -> Callers:
    for name, role in (
        ("stranger", None),
        ("viewer", "viewer"),
        ("developer", "developer"),
        ("tester", "tester"),
        ("release-manager", "release-manager"),
        ("project-admin", "admin"),
    ):
        story.user(name, role=role)
    story.user("server-admin", admin=True)
    cookies = {
        name: cookie_for(story, name)
        for name in ("stranger", "viewer", "developer", "tester", "release-manager", "project-admin", "server-admin")
    }
    app = web_app(story)

    @app.before_request
    def passed() -> tuple[str, int]:
        return "the door opened", PASSED

    headers = {
        "read-token": _token(story, "server-admin", ["read"]),
        "promote-token": _token(story, "server-admin", ["promote"]),
        "admin-token": _token(story, "server-admin", ["admin"]),
        "dead-token": {"Authorization": f"Bearer {tokens.new('api')}"},
    }
    return Callers(app, story, headers, cookies)


def _token(story: Story, name: str, scopes: list[str], days: int | None = None) -> dict[str, str]:
    with story.master.database.read() as conn:
        user = people.user_by_name(conn, name)
    assert user is not None
    made = story.write(lambda tx: rules.make_token(tx, user, "test", scopes, days, name, story.now))
    return {"Authorization": f"Bearer {made}"}


def test_every_address_declares_the_verb_it_needs(still: Flask) -> None:
    declared = {name: access.needed_by(view) for name, view in still.view_functions.items()}
    assert declared == VERB_OF


@pytest.mark.parametrize("caller", ALLOWED)
def test_the_door_opens_for_exactly_those_who_may(caller: str, callers: Callers) -> None:
    wrong = []
    for rule in callers.app.url_map.iter_rules():
        verb = VERB_OF[rule.endpoint]
        for method in sorted((rule.methods or set()) - {"OPTIONS"}):
            path = rule.build({name: VALUES[name] for name in rule.arguments})
            status = callers.ask(caller, method, path[1] if path else "")
            if status not in _expected(caller, verb, path[1] if path else ""):
                wrong.append((caller, method, path, verb, status))
    assert not wrong


def _address(rule: Rule) -> str:
    values = {**VALUES, "token": "1"} if "static" not in rule.endpoint else {"name": "keepflow.css"}
    return re.sub(r"<(?:\w+:)?(\w+)>", lambda found: str(values[found[1]]), rule.rule)


def _expected(caller: str, verb: str, path: str) -> set[int]:
    if verb in ALLOWED[caller]:
        return {PASSED}
    if caller == "dead-token":
        return {401} if path.startswith("/api/") else {303}
    if caller == "nobody":
        return {401} if path.startswith("/api/") else {303}
    if caller == "stranger" and verb not in access.roles.SERVER_VERBS:
        return {404}
    return {403}


def test_an_address_that_declares_nothing_is_closed_to_everybody(story: Story) -> None:
    app = web_app(story)
    app.add_url_rule("/forgotten", "forgotten", lambda: "open")
    client = browser(app, story, "root")
    assert client.get("/forgotten").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/projects/keepwork/;.css",
        "//projects/keepwork",
        "/projects/%2e%2e/agents",
        "/static/../projects/keepwork",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/x/../agents",
        "/agents/.css",
        "/agents%00.css",
        "/AGENTS",
        "/login/../agents",
        "/api/v1/users;/openapi.json",
        "/api/v1/users/../openapi.json",
        "/api/v1//users",
    ],
)
def test_an_odd_spelling_of_an_address_opens_nothing(path: str, still: Flask) -> None:
    answer = still.test_client().get(path)
    assert answer.status_code in (301, 303, 308, 400, 401, 404)
    assert b"keepwork" not in answer.data.replace(path.encode(), b"")


def test_opening_any_page_changes_no_row(still: Flask, settled: Story) -> None:
    client = browser(still, settled, "root")
    before = _all_rows(settled)
    for path in (*PAGES, "/api/v1/tokens", "/api/v1/users", "/login", "/projects/keepwork/runs/1/log"):
        assert client.get(path).status_code in (200, 303)
    assert _all_rows(settled) == before


def _all_rows(story: Story) -> dict[str, list[object]]:
    with story.master.database.read() as conn:
        return {table.name: [tuple(row) for row in conn.execute(select(table))] for table in metadata.sorted_tables}


# --- other sites -----------------------------------------------------------------------------------------------------


@pytest.fixture
def manager(still: Flask, settled: Story) -> FlaskClient:
    """A release manager's browser."""
    return browser(still, settled, "bo")


def _csrf(story: Story, client: FlaskClient) -> str:
    cookie = client.get_cookie("kf")
    assert cookie is not None
    with story.master.database.read() as conn:
        session = credentials.session(conn, tokens.digest(cookie.value))
    assert session is not None
    return session.csrf


CANCEL = "/projects/keepwork/runs/6/cancel"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Referer": "http://localhost/"},
    ],
)
def test_a_form_sent_from_another_site_does_nothing(
    headers: dict[str, str], manager: FlaskClient, settled: Story
) -> None:
    answer = manager.post(CANCEL, headers=headers, data={"csrf_token": _csrf(settled, manager)})
    assert (answer.status_code, b"cross-site" in answer.data) == (403, True)


@pytest.mark.parametrize("token", ["", "x", "0" * 43])
def test_a_form_without_its_token_does_nothing(token: str, manager: FlaskClient) -> None:
    answer = manager.post(CANCEL, headers={"Sec-Fetch-Site": "same-origin"}, data={"csrf_token": token})
    assert (answer.status_code, b"csrf" in answer.data) == (403, True)


def test_the_form_token_of_another_person_does_not_fit(manager: FlaskClient, still: Flask, settled: Story) -> None:
    data = {"csrf_token": _csrf(settled, browser(still, settled, "ann"))}
    assert manager.post(CANCEL, headers={"Origin": "http://localhost"}, data=data).status_code == 403


def test_a_form_with_its_token_from_our_own_page_works(app: Flask, story: Story) -> None:
    client = browser(app, story, "bo")
    data = {"csrf_token": _csrf(story, client)}
    assert client.post(CANCEL, headers={"Origin": "http://localhost"}, data=data).status_code == 200


def test_a_form_without_any_sign_of_where_it_came_from_cannot_sign_in(still: Flask) -> None:
    answer = still.test_client().post("/login", data={"name": "root", "password": "x"})
    assert (answer.status_code, b"cross-site" in answer.data) == (403, True)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "[", "127.0.0.1.evil.example:80"])
def test_a_name_that_is_not_ours_is_refused(host: str, still: Flask) -> None:
    assert still.test_client().get("/login", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "localhost:7070", "127.0.0.1:7070", "[::1]:7070", "10.0.0.5"])
def test_names_nobody_can_point_elsewhere_are_ours(host: str, still: Flask) -> None:
    assert still.test_client().get("/login", headers={"Host": host}).status_code == 200


def test_a_token_in_the_address_or_a_cookie_is_no_token(app: Flask, story: Story) -> None:
    bearer = _token(story, "root", ["admin"])["Authorization"].removeprefix("Bearer ")
    client = app.test_client()
    client.set_cookie("kf", bearer)
    assert client.get(f"/api/v1/users?token={bearer}&access_token={bearer}").status_code == 401


def test_a_bad_token_is_not_made_good_by_a_session(app: Flask, story: Story) -> None:
    client = browser(app, story, "root")
    answer = client.get("/api/v1/users", headers={"Authorization": f"Bearer {tokens.new('api')}"})
    assert (answer.status_code, answer.json["code"]) == (401, "bad-token")


def test_a_token_ends_with_its_time_its_revocation_and_its_owner(app: Flask, story: Story) -> None:
    client = app.test_client()
    soon = _token(story, "ann", ["read"], days=1)
    lasting = _token(story, "ann", ["read"])
    assert client.get("/api/v1/whoami", headers=soon).status_code == 200
    story.wait(25 * 3600)
    assert client.get("/api/v1/whoami", headers=soon).status_code == 401
    assert client.get("/api/v1/whoami", headers=lasting).json == {"name": "ann", "admin": False, "scopes": ["read"]}
    story.write(lambda tx: rules.set_disabled(tx, "ann", True, "root", story.now))
    assert client.get("/api/v1/whoami", headers=lasting).status_code == 401


def test_a_session_ends_after_eight_idle_hours_and_after_a_day(app: Flask, story: Story) -> None:
    client = browser(app, story, "bo")
    for _ in range(5):
        story.now += 4 * HOUR
        assert client.get("/agents").status_code == 200
        story.write(lambda _tx: None)  # the last use was handed to the writer before this
    story.now += 5 * HOUR
    assert client.get("/agents").status_code == 303, "a day is the longest, however busy"
    client.set_cookie("kf", cookie_for(story, "bo"))
    story.now += 8 * HOUR + 1
    assert client.get("/agents").status_code == 303


def test_what_one_may_not_see_looks_like_what_is_not_there(app: Flask, story: Story) -> None:
    story.user("guest")
    client = browser(app, story, "guest")
    for path in ("", "/environments", "/deliveries/1", "/runs/1", "/runs/1/log"):
        there, absent = client.get(f"/projects/keepwork{path}"), client.get(f"/projects/nothere{path}")
        assert (there.status_code, there.data) == (404, absent.data)
    assert b"keepwork" not in client.get("/").data
    assert b"keepwork" not in client.get("/runs").data
    assert client.get("/api/v1/projects").json == {"items": []}
    assert client.get("/api/v1/agents").json == {"items": []}
