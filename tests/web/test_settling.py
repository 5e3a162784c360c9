"""A deployment whose end nobody knows, settled from the page, the API and the command line by who may roll back."""

from __future__ import annotations

from flask.testing import FlaskClient

from keepflow.core.states import Phase
from tests.web.conftest import browser, web_app
from tests.web.story import Story, promote
from tests.web.test_environments import BOARD, OURS, _hidden, _text

API = "/api/v1/projects/keepwork/environments/production/settle"
FORM = "/projects/keepwork/environments/production/settle"


def _unknown(story: Story) -> None:
    number = promote(story, "3", outcome="")
    story.deploy(number, "unknown", sentence="the engine did not answer", code="engine")


def _headers(client: FlaskClient) -> dict[str, str]:
    return {**OURS, "X-CSRF-Token": _hidden(client.get(BOARD).text, "csrf_token")}


def test_the_board_asks_what_serves_and_says_afterwards_who_settled_it(story: Story) -> None:
    _unknown(story)
    web = web_app(story)
    client = browser(web, story, "bo")
    page = client.get(BOARD).text
    assert "say what serves" in page
    token = _hidden(page, "csrf_token")
    told = {"csrf_token": token, "host": "prod-1", "serves": "old", "why": "curl <b>answered</b> with the old version"}
    assert client.post(FORM, headers=OURS, data={**told, "serves": "both"}).status_code == 400
    assert client.post(FORM, headers=OURS, data=told).status_code == 303
    page = client.get(BOARD).text
    assert "say what serves" not in page
    found = client.get("/api/v1/projects/keepwork/environments/production/deployments").json["items"][0]
    assert (found["phase"], found["reason_code"]) == (Phase.REVERTED.value, "settled")
    assert found["reason"].startswith("settled by bo, the old release serves: curl <b>")
    history = client.get("/projects/keepwork/environments/production/deployments").text
    assert "settled by bo" in _text(history)
    assert "<b>answered" not in history


def test_settling_is_refused_to_testers_and_when_the_host_says_otherwise(story: Story) -> None:
    _unknown(story)
    web = web_app(story)
    ann, bo = browser(web, story, "ann"), browser(web, story, "bo")
    body = {"serves": "old", "why": "I looked"}
    assert "say what serves" not in ann.get(BOARD).text
    assert ann.post(API, headers=_headers(ann), json=body).status_code == 403
    contradicted = bo.post(API, headers=_headers(bo), json={**body, "serves": "new"})
    assert (contradicted.status_code, contradicted.json["code"]) == (409, "contradicted")
    assert bo.post(API, headers=_headers(bo), json={**body, "why": ""}).status_code == 422
    settled = bo.post(API, headers=_headers(bo), json=body)
    assert (settled.status_code, settled.json["phase"]) == (200, Phase.REVERTED.value)
    again = bo.post(API, headers=_headers(bo), json=body)
    assert (again.status_code, again.json["code"]) == (404, "nothing-unknown")
