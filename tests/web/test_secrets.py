"""Secrets over the API: set by who may, named to who may, shown to nobody."""

from __future__ import annotations

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
