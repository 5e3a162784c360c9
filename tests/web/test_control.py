"""Running again and holding back through the real application: API, pages, and who may."""

from __future__ import annotations

import re

from flask import Flask
from flask.testing import FlaskClient

from keepflow.core.states import FINAL
from tests.web.conftest import browser
from tests.web.story import Story

OURS = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
API = "/api/v1/projects/keepwork"
FAILED = 5  #: the run of the story whose push failed


def token_of(client: FlaskClient) -> str:
    """Return the token that forms of this browser carry."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get(f"/projects/keepwork/runs/{FAILED}").text)
    assert found is not None
    return found[1]


def ours(client: FlaskClient) -> dict[str, str]:
    """Return the headers of what our own pages send."""
    return {**OURS, "X-CSRF-Token": token_of(client)}


def test_r59_an_ended_run_runs_again_by_api_and_the_two_name_each_other(app: Flask, story: Story) -> None:
    client = browser(app, story, "root")
    before = client.get(f"{API}/runs/{FAILED}").get_json()
    assert before["state"] in FINAL
    answer = client.post(f"{API}/runs/{FAILED}/rerun", json={}, headers=ours(client))
    assert answer.status_code == 202
    number = answer.get_json()["run"]
    made, old = (client.get(f"{API}/runs/{one}").get_json() for one in (number, FAILED))
    assert (made["rerun_of"], old["reruns"]) == (FAILED, [number])
    assert (made["sha"], made["flow"], made["ref"]) == (before["sha"], before["flow"], before["ref"])
    assert {key: value for key, value in old.items() if key != "reruns"} == {
        key: value for key, value in before.items() if key != "reruns"
    }
    assert made["why"] == f"keepwork#{FAILED} again, asked for by root"


def test_r59_the_page_of_an_ended_run_has_buttons_that_lead_to_the_new_one(app: Flask, story: Story) -> None:
    client = browser(app, story, "root")
    page = client.get(f"/projects/keepwork/runs/{FAILED}").text
    for words in ("Run again", "Run failed again", "from here"):
        assert words in page
    token = token_of(client)
    answer = client.post(
        f"/projects/keepwork/runs/{FAILED}/rerun", data={"csrf_token": token, "job": "build"}, headers=OURS
    )
    assert answer.status_code == 303
    made = client.get(answer.headers["Location"]).text
    assert f"keepwork#{FAILED} again from build on, asked for by root" in made
    assert f'href="/projects/keepwork/runs/{FAILED}"' in made


def test_r59_bad_wishes_are_refused_with_the_way_out(app: Flask, story: Story) -> None:
    client = browser(app, story, "root")

    def again(number: int, **body: object) -> tuple[int, str]:
        answer = client.post(f"{API}/runs/{number}/rerun", json=body, headers=ours(client))
        return answer.status_code, answer.get_json()["code"]

    assert again(FAILED, failed=True, job="build") == (400, "one-choice")
    assert again(FAILED, job="biuld") == (404, "no-job")
    assert again(999) == (404, "no-run")


def test_a_project_is_paused_and_goes_on_by_api_and_page(app: Flask, story: Story) -> None:
    client = browser(app, story, "root")
    assert client.get(f"{API}/pause").get_json()["sentence"] == "keepwork is not paused"
    assert client.post(f"{API}/pause", json={"why": " "}, headers=ours(client)).get_json()["code"] == "needs-why"
    answer = client.post(f"{API}/pause", json={"why": "the <registry> moves"}, headers=ours(client)).get_json()
    assert answer["sentence"] == "keepwork is paused by root: the <registry> moves"
    page = client.get("/projects/keepwork").text
    assert "paused by root" in page
    assert "the &lt;registry&gt; moves" in page
    token = token_of(client)
    assert client.post("/projects/keepwork/resume", data={"csrf_token": token}, headers=OURS).status_code == 303
    page = client.get("/projects/keepwork").text
    assert "Pause keepwork" in page
    data = {"csrf_token": token, "why": "a change of disks"}
    assert client.post("/projects/keepwork/pause", data=data, headers=OURS).status_code == 303
    assert client.get(f"{API}/pause").get_json()["paused_why"] == "a change of disks"
