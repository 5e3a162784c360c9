"""Secrets over the API: set by who may, named to who may, shown to nobody."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keepflow.core.flows import Plan
from keepflow.engine import confiding, enrol
from keepflow.errors import Refused
from keepflow.store import environments
from keepflow.wire import messages
from tests.web import story as stories
from tests.web.conftest import browser, web_app
from tests.web.story import Story
from tests.web.test_environments import BOARD, OURS, _hidden

API = "/api/v1/projects/keepwork/environments/production/secrets"
JOBS = "/api/v1/projects/keepwork/secrets"


def test_a_secret_is_set_named_and_removed_and_its_value_never_comes_back(story: Story) -> None:
    client = browser(web_app(story), story, "bo")
    headers = {**OURS, "X-CSRF-Token": _hidden(client.get(BOARD).text, "csrf_token")}
    largest = "c4nary" + "\n" * (64 * 1024 - 6)
    answers = [
        client.put(f"{API}/PASSWORD", headers=headers, json={"value": "c4nary"}),
        client.put(f"{API}/PASSWORD", headers=headers, json={"value": largest}),
        client.get(API),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200], [answer.text for answer in answers]
    assert [(one["name"], one["version"], one["set_by"]) for one in answers[2].json["items"]] == [("PASSWORD", 2, "bo")]
    answers += [
        client.put(f"{API}/PASSWORD", headers=headers, json={"value": value})
        for value in ("c4nary\0", largest + "c", "")
    ]
    answers += [
        client.put(f"{API}/1", headers=headers, json={"value": "c4nary"}),
        client.put(f"{API}/A", headers=headers, json={"value": ["c4nary"]}),
    ]
    assert {answer.status_code for answer in answers[3:]} == {400, 422}
    answers.append(client.delete(f"{API}/PASSWORD", headers=headers))
    assert answers[-1].json == {"items": []}
    assert client.delete(f"{API}/PASSWORD", headers=headers).status_code == 404
    assert not [answer.text for answer in answers if "c4nary" in answer.text]


def test_a_tester_neither_sets_nor_sees_names(story: Story) -> None:
    client = browser(web_app(story), story, "ann")
    headers = {**OURS, "X-CSRF-Token": _hidden(client.get(BOARD).text, "csrf_token")}
    assert client.get(API).status_code == 403
    assert client.get(JOBS).status_code == 403
    assert client.put(f"{JOBS}/A", headers=headers, json={"value": "c4nary"}).status_code == 403
    refused = client.put(f"{API}/PASSWORD", headers=headers, json={"value": "x"})
    assert refused.status_code == 403
    assert "cross-site" not in refused.text


def test_r31_a_projects_secret_is_set_bound_and_removed_and_its_value_never_comes_back(story: Story) -> None:
    client = browser(web_app(story), story, "bo")
    headers = {**OURS, "X-CSRF-Token": _hidden(client.get(BOARD).text, "csrf_token")}
    bound = {"branches": ["dev"], "environments": ["dev"]}
    answers = [
        client.put(f"{JOBS}/config.page", headers=headers, json={"value": "c4nary", "bound": bound}),
        client.put(f"{JOBS}/config.page", headers=headers, json={"value": "c4nary-2"}),
        client.get(JOBS),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200], [answer.text for answer in answers]
    [one] = answers[2].json["items"]
    assert (one["name"], one["version"], one["set_by"]) == ("config.page", 2, "bo")
    assert one["bound"] == {"flows": [], "branches": ["dev"], "tags": [], "environments": ["dev"]}
    answers += [
        client.put(f"{JOBS}/{name}", headers=headers, json={"value": value, "bound": given})
        for name, value, given in (
            ("short", "c4n", None),
            ("1", "c4nary", None),
            ("A", "c4nary", {"branches": ["refs/heads/x"]}),
            ("A", "c4nary", {"environments": ["nowhere"]}),
            ("A", "c4nary", {"branch": ["x"]}),
        )
    ]
    assert {answer.status_code for answer in answers[3:]} <= {400, 422}
    answers.append(client.delete(f"{JOBS}/config.page", headers=headers))
    assert answers[-1].json == {"items": []}
    assert not [answer.text for answer in answers if "c4nary" in answer.text]


def test_the_page_names_secrets_sets_one_from_a_form_and_never_shows_a_value(story: Story) -> None:
    client = browser(web_app(story), story, "bo")
    page = "/projects/keepwork/environments/production/secrets"
    token = {"csrf_token": _hidden(client.get(page).text, "csrf_token")}
    assert f'href="{page}"' in client.get(BOARD).text
    told = {**token, "name": "KEY", "value": "c4nary-1\r\nc4nary-2\r\n"}
    assert client.post(page, headers=OURS, data=told).status_code == 303
    shown = client.get(page).text
    assert "KEY" in shown
    assert "version 1" in shown
    assert "c4nary" not in shown
    refused = client.post(page, headers=OURS, data={**told, "name": "1 <b>", "value": "c4nary-3"})
    assert refused.status_code == 400
    assert "c4nary" not in refused.text
    assert "<b>" not in refused.text
    with story.master.database.read() as conn:
        place = environments.by_name(conn, story.project().id, "production")
        assert place is not None
        project = story.project()
        assert confiding.values(conn, story.master.vault, project) == ("c4nary-1\nc4nary-2\n",)
    assert client.post(f"{page}/remove", headers=OURS, data={**token, "name": "KEY"}).status_code == 303
    assert "version 1" not in client.get(page).text
    ann = browser(web_app(story), story, "ann")
    assert ann.get(page).status_code == 403
    assert f'href="{page}"' not in ann.get(BOARD).text


def test_r31_the_page_of_a_project_binds_its_secrets_and_never_shows_a_value(story: Story) -> None:
    client = browser(web_app(story), story, "bo")
    page = "/projects/keepwork/secrets"
    token = {"csrf_token": _hidden(client.get(page).text, "csrf_token")}
    assert f'href="{page}"' in client.get("/projects/keepwork").text
    assert '<a href="/projects/keepwork" aria-current="page">Overview</a>' in client.get(page).text
    told = {**token, "name": "config.page", "value": "c4nary-1\r\nc4nary-2\r\n", "branches": "dev, release/*"}
    assert client.post(page, headers=OURS, data=told).status_code == 303
    shown = client.get(page).text
    assert "config.page" in shown
    assert "branches dev release/*" in shown
    assert "c4nary" not in shown
    refused = client.post(page, headers=OURS, data={**told, "name": "<b>", "value": "c4nary-3"})
    assert refused.status_code == 400
    assert "c4nary" not in refused.text
    assert "<b>" not in refused.text
    again = {**token, "name": "config.page", "value": "c4nary-4"}
    assert client.post(page, headers=OURS, data=again).status_code == 303
    assert "branches dev release/*" in client.get(page).text
    assert client.post(f"{page}/remove", headers=OURS, data={**token, "name": "config.page"}).status_code == 303
    assert "version 2" not in client.get(page).text
    ann = browser(web_app(story), story, "ann")
    assert ann.get(page).status_code == 403
    assert f'href="{page}"' not in ann.get("/projects/keepwork").text


def _host_tells(story: Story, given: tuple[str, ...]) -> None:
    """Let production's host say which secrets its own env_file holds."""
    with story.master.database.read() as conn:
        place = environments.by_name(conn, story.project().id, "production")
    assert place is not None
    serves = messages.ServiceState(
        service=place.service,
        instance="main",
        environment="keepwork/production",
        slot="blue",
        identity=place.hosts[0].identity,
        deployment=place.hosts[0].current_id,
        since=1,
        healthy=True,
        given=given,
    )
    beat = messages.Heartbeat(at=story.now, services=(serves,))
    story.write(lambda tx: enrol.heartbeat(tx, story.master, story.agent_ids["prod-1"], beat, story.now))


def _set(story: Story, environment: str, *names: str) -> None:
    with story.master.database.read() as conn:
        place = environments.by_name(conn, story.project().id, environment)
    assert place is not None
    for name in names:
        story.write(lambda tx, name=name: confiding.put(tx, story.master, place, name, "value", "bo", story.now))


def test_a_promote_is_refused_until_production_has_every_secret_its_container_reads(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard of a promote: refused beforehand, by name and with its cure, not half way through a deployment."""
    usual = stories.plan

    def reading_secrets(flow: str) -> Plan:
        made = usual(flow)
        assert made.container is not None
        return replace(made, container=replace(made.container, secrets=("DATABASE_URL", "TOKEN")))

    monkeypatch.setattr(stories, "plan", reading_secrets)
    _set(story, "test", "DATABASE_URL", "TOKEN")
    _set(story, "production", "TOKEN")
    source = stories.run_test(story, story.commit("Read secrets"), "Read secrets", "e")
    _host_tells(story, given=("ELSEWHERE",))
    preview = "/api/v1/projects/keepwork/environments/production/preview"
    client = browser(web_app(story), story, "bo")
    [guard] = [one for one in client.get(f"{preview}?source={source}").json["guards"] if one["code"] == "secrets"]
    cure = "keepflow secret set keepwork/production DATABASE_URL"
    assert (guard["met"], guard["overridable"]) == (False, False)
    assert guard["sentence"] == f"production has no value for DATABASE_URL: {cure}"
    with pytest.raises(Refused) as caught:
        stories.promote(story, str(source))
    assert caught.value.code == "secrets"
    _set(story, "production", "DATABASE_URL")
    assert [one for one in client.get(f"{preview}?source={source}").json["guards"] if one["code"] == "secrets"] == []
    stories.promote(story, str(source), outcome="")
