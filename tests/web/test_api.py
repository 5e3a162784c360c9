"""The REST API: what it answers, how lists go on, how errors look, and that its description is true."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from keepflow.store import credentials, people, runs, statuses
from keepflow.web.api import SUBJECTS
from tests.web.conftest import browser, web_app
from tests.web.story import Story, pushed
from tests.web.test_access import _token

API = "/api/v1"


class Caller:
    """A program with a token."""

    def __init__(self, app: Flask, headers: dict[str, str]) -> None:
        self._client, self._headers = app.test_client(), headers

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        """Return status and JSON of one request."""
        more = {"query_string": query} if query else {}
        answer = self._client.open(API + path, method=method, headers=self._headers, json=body, **more)
        return answer.status_code, answer.json

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of a request that must work."""
        status, found = self.ask("GET", path, **query)
        assert status == 200, found
        return found


@pytest.fixture
def reader(still: Flask, settled: Story) -> Caller:
    """A token of the admin that can only read."""
    return Caller(still, _token(settled, "root", ["read"]))


@pytest.fixture
def admin(app: Flask, story: Story) -> Caller:
    """A token of the admin that can do everything."""
    return Caller(app, _token(story, "root", ["admin"]))


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_run_tells_its_jobs_steps_release_and_deployment(reader: Caller) -> None:
    run = reader.get("/projects/keepwork/runs/3")
    assert (run["state"], run["flow"], run["actor"], run["event"]) == ("succeeded", "test", "ann", "push")
    assert run["created_at"].endswith("Z")
    build, deploy = run["jobs"]
    assert [step["name"] for step in build["attempts"][0]["steps"]] == [
        "scripts/build-image.sh test",
        "scripts/push-image.sh test",
    ]
    assert deploy["deployment"]["phases"][-1]["phase"] == "done"
    assert deploy["deployment"]["identity"] == pushed("b").digest
    assert [(release["digest"], release["promotable"]) for release in run["releases"]] == [(pushed("b").digest, True)]


def test_a_failed_step_says_what_its_exit_code_means(reader: Caller) -> None:
    run = reader.get("/projects/keepwork/runs/5")
    step = run["jobs"][0]["attempts"][0]["steps"][1]
    assert (step["exit_code"], step["meaning"]) == (137, "it was killed, or the machine ran out of memory")
    assert run["jobs"][1]["state"] == "skipped"
    assert run["jobs"][1]["reason"]


def test_lists_go_on_where_the_page_before_ended(reader: Caller) -> None:
    seen, before = [], None
    for _ in range(10):
        page = reader.get("/projects/keepwork/runs", limit=2, **({"before": before} if before else {}))
        seen += [run["number"] for run in page["items"]]
        before = page["next"]
        if before is None:
            break
    assert seen == [6, 5, 4, 3, 2, 1]


def test_runs_can_be_chosen_by_flow_state_and_branch(reader: Caller) -> None:
    def numbers(**query: str) -> list[int]:
        return [run["number"] for run in reader.get("/runs", **query)["items"]]

    assert numbers(flow="dev") == [6, 4]
    assert numbers(state="failed") == [5]
    assert numbers(branch="master", flow="test") == [5, 3, 1]
    assert numbers(branch="refs/heads/dev") == [6, 4]
    assert numbers(branch="no-such-branch") == []


def test_the_log_is_whole_and_equal_to_what_was_written(still: Flask, settled: Story) -> None:
    from tests.web.story import BUILD_LOG

    client = browser(still, settled, "root")
    expected = f"\x1b[1m$ scripts/build-image.sh test\x1b[0m\n{BUILD_LOG}"
    answer = client.get(f"{API}/projects/keepwork/runs/5/log")
    assert answer.text.startswith(expected)
    assert answer.text.endswith("Killed\x1b[0m\n")
    assert answer.mimetype == "text/plain"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    tail = client.get(f"{API}/projects/keepwork/runs/5/log?tail=2").text
    assert tail == "The push refers to repository\nlayer 3: \x1b[31mKilled\x1b[0m\n"
    assert client.get(f"{API}/projects/keepwork/runs/5/log?job=deploy-test").text == ""
    wrong = client.get(f"{API}/projects/keepwork/runs/5/log?job=nojob").get_json()
    assert (wrong["status"], wrong["code"], "there are: " in wrong["detail"]) == (404, "no-job", True)
    assert "deploy-test" in wrong["detail"]
    job = client.get(f"{API}/projects/keepwork/runs/5").get_json()["jobs"][0]["key"]
    assert client.get(f"{API}/projects/keepwork/runs/5/log?job={job}&attempt=1").text == answer.text
    download = client.get("/projects/keepwork/runs/5/log")
    assert download.headers["Content-Disposition"] == 'attachment; filename="keepwork-5.log"'
    assert download.text == answer.text


def test_r61_any_range_of_bytes_of_a_log_can_be_asked_for(still: Flask, settled: Story) -> None:
    client = browser(still, settled, "ann")
    path = f"{API}/projects/keepwork/runs/5/log"
    whole = client.get(path).data
    assert client.get(path).headers["Accept-Ranges"] == "bytes"
    for asked, part in (("5-", whole[5:]), ("3-9", whole[3:10]), ("-7", whole[-7:]), (f"0-{10**9}", whole)):
        answer = client.get(path, headers={"Range": f"bytes={asked}"})
        assert (answer.status_code, answer.data) == (206, part)
        assert answer.headers["Content-Range"].endswith(f"/{len(whole)}")
        assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert client.get(path, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416
    for odd in ("bytes=0-1,3-4", "lines=1-2", "bytes=x"):
        assert client.get(path, headers={"Range": odd}).data == whole


def test_a_text_is_found_in_a_run_and_in_all_runs_of_a_flow(still: Flask, settled: Story) -> None:
    client = browser(still, settled, "ann")
    found = client.get(f"{API}/projects/keepwork/runs/5/log", query_string={"grep": "Killed"}).text
    assert found == "build:13: layer 3: Killed\n"
    everywhere = client.get(f"{API}/projects/keepwork/flows/test/log", query_string={"grep": "Killed"}).text
    assert "keepwork#5 build:13: layer 3: Killed\n" in everywhere
    assert client.get(f"{API}/projects/keepwork/flows/nothing/log", query_string={"grep": "x"}).status_code == 404
    assert client.get(f"{API}/projects/keepwork/flows/test/log").status_code == 422


def test_a_delivery_tells_its_event_and_the_decision(reader: Caller) -> None:
    delivery = reader.get("/projects/keepwork/deliveries/1")
    assert delivery["event"]["ref"] == "refs/heads/master"
    assert delivery["decision"]["runs"] == [{"flow": "test", "run": 1, "why": "push to master"}]
    assert len(reader.get("/projects/keepwork/deliveries")["items"]) == 5
    assert reader.ask("GET", "/projects/shop/deliveries/1")[0] == 404, "deliveries of others are not there"


def test_environments_tell_what_serves_and_what_could_be_promoted(reader: Caller) -> None:
    dev, test, production = reader.get("/projects/keepwork/environments")["items"]
    assert dev["serving"]["identity"].startswith("sha256:ddd")
    assert test["serving"]["run"] == 3
    assert production["serving"]["run"] == 1
    assert [(found["run"], found["serves"]) for found in production["candidates"]] == [(3, False), (1, True)]
    assert production["sentence"] == "production serves keepwork#1, deployed by bo"
    history = reader.get("/projects/keepwork/environments/production/deployments")
    assert [(found["kind"], found["phase"], found["requested_by"]) for found in history["items"]] == [
        ("promote", "done", "bo")
    ]
    assert reader.get(f"/deployments/{history['items'][0]['id']}") == history["items"][0]


def test_a_preview_tells_every_guard_and_the_commits(reader: Caller) -> None:
    preview = reader.get("/projects/keepwork/environments/production/preview", source="3")
    assert preview["allowed"] is True
    assert [commit["author"] for commit in preview["commits"]] == ["Li Wei", "Cy", "Bo"]
    refused = reader.get("/projects/keepwork/environments/production/preview", source="4")
    assert refused["allowed"] is False
    assert [guard["code"] for guard in refused["guards"] if not guard["met"]] == ["origin", "promote-from"]


def test_agents_tell_what_they_are_and_what_they_serve(reader: Caller) -> None:
    local, prod = reader.get("/agents")["items"]
    assert (local["name"], local["connected"], local["capabilities"]) == ("local", True, ["run", "deploy"])
    assert prod["environments"] == ["keepwork/production", "shop/production"]


# --- changing --------------------------------------------------------------------------------------------------------


def test_a_promotion_by_api_with_one_key_is_one_deployment(story: Story) -> None:
    caller = Caller(web_app(story), _token(story, "bo", ["promote"]))
    body = {"run": 3, "note": "from a script", "key": "0123456789abcdef"}
    path = "/projects/keepwork/environments/production/promotions"
    first, second = caller.ask("POST", path, body), caller.ask("POST", path, body)
    assert first[0] == second[0] == 202
    assert first[1] == second[1]
    assert (first[1]["id"], first[1]["requested_by"], first[1]["run"]) == ("0123456789abcdef", "bo", 7)


def test_a_promotion_needs_the_scope_too(story: Story) -> None:
    caller = Caller(web_app(story), _token(story, "bo", ["run"]))
    path = "/projects/keepwork/environments/production/promotions"
    assert caller.ask("POST", path, {"run": 3})[1]["code"] == "scope"


@pytest.mark.parametrize("body", [{}, {"run": 3, "identity": pushed("b").digest}])
def test_a_promotion_names_exactly_one_source(body: dict[str, Any], admin: Caller) -> None:
    path = "/projects/keepwork/environments/production/promotions"
    assert admin.ask("POST", path, body)[1]["code"] == "one-source"


def test_a_refused_promotion_names_the_guard(admin: Caller) -> None:
    path = "/projects/keepwork/environments/production/promotions"
    status, problem = admin.ask("POST", path, {"run": 4})
    assert (status, problem["code"]) == (409, "origin")
    assert "never pushed to a registry" in problem["detail"]


def test_r66_a_run_says_what_its_forge_was_told_and_what_it_did_not_take(admin: Caller, story: Story) -> None:
    assert admin.get("/projects/keepwork/runs/6")["forge_told"] is None
    with story.master.database.read() as conn:
        run = runs.by_number(conn, 1, 6)
    assert run is not None
    story.write(lambda tx: statuses.want(tx.conn, run.id, run.project_id, "pending", 1))
    with story.master.database.read() as conn:
        wanted = statuses.of_run(conn, run.id)
    assert wanted is not None
    story.write(lambda tx: statuses.failed(tx.conn, wanted, "git.example.org answered 403", 2))
    found = admin.get("/projects/keepwork/runs/6")
    assert (found["forge_told"], found["forge_problem"]) == ("", "git.example.org answered 403")
    story.write(lambda tx: statuses.ended(tx.conn, wanted, "pending", ""))
    found = admin.get("/projects/keepwork/runs/6")
    assert (found["forge_told"], found["forge_problem"]) == ("pending", "")


def test_r06_only_a_run_that_waits_for_approval_can_be_approved(admin: Caller) -> None:
    status, refusal = admin.ask("POST", "/projects/keepwork/runs/6/approve")
    assert (status, refusal["code"]) == (409, "no-approval")
    assert admin.ask("POST", "/projects/keepwork/runs/99/approve")[0] == 404


def test_cancel_says_what_becomes_of_it(admin: Caller) -> None:
    assert admin.ask("POST", "/projects/keepwork/runs/6/cancel")[1]["word"] == "stopping"
    assert admin.get("/projects/keepwork/runs/6")["state"] == "cancelled"
    assert admin.ask("POST", "/projects/keepwork/runs/6/cancel")[1]["word"] == "ended"
    assert admin.ask("POST", "/projects/keepwork/runs/99/cancel")[0] == 404


def test_people_are_added_grouped_given_roles_and_shut_out(admin: Caller, story: Story) -> None:
    status, made = admin.ask("POST", "/users", {"name": "dee", "email": "dee@example.org"})
    assert (status, made["user"]["has_password"]) == (201, False)
    assert re.fullmatch(r"http://localhost/setup/kf_password_\w{30}_\w{6}", made["link"])
    assert admin.ask("POST", "/users", {"name": "dee"})[1]["code"] == "exists"
    assert admin.ask("PUT", "/groups/night-shift", {"members": ["dee", "ann", "dee"]})[1]["items"][0] == {
        "name": "night-shift",
        "managed": False,
        "members": ["ann", "dee"],
    }
    assert admin.ask("PUT", "/groups/testers", {"members": []})[1]["code"] == "managed"
    _, given = admin.ask("POST", "/projects/keepwork/roles", {"group": "night-shift", "role": "developer"})
    assert {"project": "keepwork", "role": "developer", "user": None, "group": "night-shift"} in given["items"]
    with story.master.database.read() as conn:
        dee = people.user_by_name(conn, "dee")
        assert dee is not None
        assert people.roles_of(conn, dee, story.project().id) == {"developer"}
    assert admin.ask("DELETE", "/groups/night-shift")[0] == 200
    assert all(role["group"] is None for role in admin.get("/projects/keepwork/roles")["items"])
    assert admin.ask("POST", "/users/dee/disabled", {"disabled": True})[1]["disabled"] is True
    assert admin.ask("POST", "/users/nobody-here/link")[0] == 404


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"role": "developer"}, "one-holder"),
        ({"role": "developer", "user": "ann", "group": "testers"}, "one-holder"),
        ({"role": "emperor", "user": "ann"}, "no-role"),
        ({"role": "viewer", "user": "nobody-here"}, "no-user"),
        ({"role": "viewer", "group": "nobodies"}, "no-group"),
    ],
)
def test_a_role_that_makes_no_sense_is_refused(body: dict[str, str], code: str, admin: Caller) -> None:
    assert admin.ask("POST", "/projects/keepwork/roles", body)[1]["code"] == code


def test_a_token_is_told_once_stored_as_its_digest_and_can_be_revoked(admin: Caller, story: Story) -> None:
    _, made = admin.ask("POST", "/tokens", {"name": "ci", "scopes": ["run", "read"], "user": "ann", "days": 7})
    bearer = {"Authorization": f"Bearer {made['token']}"}
    fresh = Caller(web_app(story), bearer)
    assert fresh.get("/whoami") == {"name": "ann", "admin": False, "scopes": ["read", "run"]}
    listed = admin.get("/tokens")["items"]
    assert made["token"] not in json.dumps(listed)
    number = next(one["id"] for one in listed if one["name"] == "ci")
    assert fresh.ask("DELETE", f"/tokens/{number}")[0] == 403, "a token with these scopes makes and ends no tokens"
    assert admin.ask("DELETE", f"/tokens/{number}")[0] == 200
    assert fresh.ask("GET", "/whoami")[0] == 401
    with story.master.database.read() as conn:
        assert all(made["token"] not in repr(token) for token in credentials.tokens(conn))


def test_a_person_makes_tokens_for_themselves_only(story: Story) -> None:
    caller = Caller(web_app(story), _token(story, "ann", ["admin"]))
    assert caller.ask("POST", "/tokens", {"name": "x", "scopes": ["read"]})[0] == 201
    assert caller.ask("POST", "/tokens", {"name": "x", "scopes": ["read"], "user": "bo"})[0] == 403
    assert {one["user"] for one in caller.get("/tokens")["items"]} == {"ann"}
    root_token = next(iter(Caller(web_app(story), _token(story, "root", ["admin"])).get("/tokens")["items"]))
    assert caller.ask("DELETE", f"/tokens/{root_token['id']}")[0] == 404


def test_a_join_token_is_made_for_one_name(admin: Caller) -> None:
    status, made = admin.ask("POST", "/agents", {"name": "prod-2"})
    assert (status, made["agent"]) == (201, "prod-2")
    assert re.match(r"kf_join_\w{30}_\w{6}\.sha256:", made["token"])
    assert admin.ask("POST", "/agents", {"name": "Prod 2; rm -rf"})[1]["code"] == "bad-name"
    assert admin.ask("POST", "/agents/prod-1/revoke")[1]["revoked"] is True
    assert admin.ask("POST", "/agents/prod-9/revoke")[0] == 404


def test_apply_plans_and_then_does_it(admin: Caller) -> None:
    desired = {"projects": {"one": {"repo": "https://github.com/example/one.git", "forge": "github", "flow_file": "f"}}}
    _, planned = admin.ask("POST", "/apply", {"desired": desired, "dry_run": True})
    assert planned["applied"] is False
    assert {"action": "add", "what": "project one", "detail": ""} in planned["lines"]
    assert "one" not in [found["name"] for found in admin.get("/projects")["items"]]
    _, done = admin.ask("POST", "/apply", {"desired": desired})
    assert done == {"lines": planned["lines"], "applied": True}
    assert [found["name"] for found in admin.get("/projects")["items"]] == ["one"]


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not-found"),
        ("DELETE", "/projects", 405, "method-not-allowed"),
        ("GET", "/projects/nothere/runs", 404, "no-project"),
        ("GET", "/projects/keepwork/runs/99", 404, "no-run"),
        ("GET", "/projects/keepwork/environments/nowhere/deployments", 404, "no-environment"),
        ("GET", "/deployments/nothing", 404, "no-deployment"),
        ("GET", "/projects/keepwork/runs/99999999999999999999", 404, "not-found"),
        ("GET", "/projects/keepwork/runs?before=99999999999999999999", 422, "invalid"),
        ("GET", "/projects/keepwork/environments/production/preview?source=99999999999999999999", 400, "usage"),
        ("GET", "/projects/keepwork/runs?limit=0", 422, "invalid"),
        ("GET", "/projects/keepwork/runs?limit=x", 422, "invalid"),
        ("GET", "/projects/keepwork/runs?limt=3", 422, "invalid"),
        ("GET", "/projects/keepwork/runs?limit=3&limit=4", 400, "invalid"),
        ("GET", "/projects/keepwork/runs/1/log?job=nothing", 404, "no-job"),
        ("GET", "/projects/keepwork/runs/1/log?attempt=9", 404, "no-attempt"),
    ],
)
def test_every_error_is_a_problem_with_a_code(method: str, path: str, status: int, code: str, reader: Caller) -> None:
    found_status, problem = reader.ask(method, path)
    assert (found_status, problem["status"], problem["code"]) == (status, status, code)
    assert problem["detail"]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"name": "x", "x": 1}', b"[" * 90_000]
)
def test_a_body_that_is_not_what_is_asked_for_is_refused_without_being_repeated(data: bytes, story: Story) -> None:
    client, headers = web_app(story).test_client(), _token(story, "root", ["admin"])
    answer = client.post(f"{API}/users", headers=headers, data=data, content_type="application/json")
    assert (answer.status_code, answer.mimetype) == (422, "application/problem+json")


def test_what_was_sent_is_never_in_the_answer(story: Story) -> None:
    client, headers = web_app(story).test_client(), _token(story, "root", ["admin"])
    body = {"name": 7, "email": {"secret": "hunter2-hunter2"}, "surprise-hunter2": True}
    answer = client.post(f"{API}/users", headers=headers, json=body)
    assert answer.status_code == 422
    assert "hunter2-hunter2" not in answer.text
    desired = {"projects": {"one": {"repo": "x", "forge": "github", "flow_file": "f", "hook_secret": ["hunter2"]}}}
    assert "hunter2" not in client.post(f"{API}/apply", headers=headers, json={"desired": desired}).text


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_only_json_is_taken(kind: str, story: Story) -> None:
    client, headers = web_app(story).test_client(), _token(story, "root", ["admin"])
    answer = client.post(f"{API}/users", headers=headers, data=b'{"name": "x"}', content_type=kind)
    assert answer.status_code == 415


def test_too_much_is_refused(story: Story) -> None:
    client, headers = web_app(story).test_client(), _token(story, "root", ["admin"])
    body = {"name": "x", "email": "y" * 1_100_000}
    assert client.post(f"{API}/users", headers=headers, json=body).status_code == 413


def test_a_bug_says_nothing_about_itself(story: Story, caplog: pytest.LogCaptureFixture) -> None:
    app = web_app(story)

    def fail() -> str:
        raise ZeroDivisionError("secret detail")

    app.view_functions["board.home"] = fail
    from keepflow.web.access import needs

    needs("anyone")(fail)
    answer = app.test_client().get("/", headers={"Accept": "application/json"})
    assert (answer.status_code, answer.json["code"]) == (500, "bug")
    assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text


def test_a_person_gets_a_page_and_a_program_a_problem(still: Flask, settled: Story) -> None:
    client = browser(still, settled, "root")
    assert client.get("/nothing", headers={"Accept": "text/html,*/*;q=0.8"}).mimetype == "text/html"
    assert client.get("/nothing", headers={"Accept": "application/json"}).mimetype == "application/problem+json"


# --- the description -------------------------------------------------------------------------------------------------


def test_the_description_names_every_endpoint_and_only_loads_from_here(still: Flask) -> None:
    client: FlaskClient = still.test_client()
    document = client.get(f"{API}/openapi.json").json
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    made = {(endpoint.method, API + endpoint.shown) for subject in SUBJECTS for endpoint in subject.all}
    assert described == made
    text = json.dumps(document)
    for ref in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert ref in document["components"]["schemas"]
    page = client.get(f"{API}/docs").text
    assert all(endpoint.shown in page for subject in SUBJECTS for endpoint in subject.all)
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)


def test_times_are_described_as_they_are_sent(still: Flask) -> None:
    schemas = still.test_client().get(f"{API}/openapi.json").json["components"]["schemas"]
    assert schemas["Run"]["properties"]["created_at"] == {
        "format": "date-time",
        "type": "string",
        "title": "Created At",
    }
