"""Starting a flow by hand: API and page take the same inputs, and refuse the same ones (R09, R18)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import update

from keepflow.store.tables import projects
from tests.tools import repositories
from tests.web.conftest import browser, web_app
from tests.web.story import Story
from tests.web.test_api import Caller, _token
from tests.web.test_environments import OURS

FLOW = """version: 1
flows:
  release:
    on: {manual: true}
    inputs:
      version: {required: true, help: "like <b>1.2</b>"}
      level: {choices: [low, high], default: low}
      dry: {type: boolean}
      workers: {type: number, default: 4}
    steps: [{run: make}]
  dev: {on: push, steps: [{run: make}]}
"""
HOSTILE = '$(touch x)\'; echo "<script>"'


@pytest.fixture
def startable(story: Story, tmp_path: Path) -> Story:
    """The story, with the repository of keepwork where it can be read."""
    repository = repositories.bare(tmp_path / "keepwork.git")
    repositories.commit(repository, {".keepflow.yml": FLOW}, "Read <inputs>", "main")
    story.write(lambda tx: tx.conn.execute(update(projects).values(repo=str(repository))))
    return story


@pytest.fixture
def pages(startable: Story) -> Flask:
    return web_app(startable)


def _inputs(story: Story) -> dict[str, str]:
    from keepflow.store import runs

    with story.master.database.read() as conn:
        newest = runs.page(conn, limit=1)[0]
    assert newest.flow == "release"
    return newest.event.inputs


def test_r18_the_api_takes_typed_inputs_and_names_everything_that_is_wrong(startable: Story, pages: Flask) -> None:
    admin = Caller(pages, _token(startable, "root", ["admin"]))
    status, started = admin.ask(
        "POST",
        "/projects/keepwork/runs",
        {"flow": "release", "inputs": {"version": HOSTILE, "dry": True, "workers": 2}},
    )
    assert (status, "run" in started) == (202, True)
    assert _inputs(startable) == {"version": HOSTILE, "level": "low", "dry": "true", "workers": "2"}
    status, refusal = admin.ask(
        "POST", "/projects/keepwork/runs", {"flow": "release", "inputs": {"workers": "x", "levle": "low"}}
    )
    assert (status, refusal["code"]) == (400, "unknown-input")
    for words in ("did you mean 'level'?", "version must be given", "workers must be a number"):
        assert words in refusal["detail"]


def test_r09_the_page_makes_a_form_of_the_inputs_and_starts_the_flow(startable: Story, pages: Flask) -> None:
    ann = browser(pages, startable, "root")
    page = ann.get("/projects/keepwork/start").text
    assert re.findall(r'name="input\.(\w+)"', page) == ["version", "level", "dry", "workers"]
    assert "like &lt;b&gt;1.2&lt;/b&gt;" in page
    assert "Start release" in page
    assert "Start dev" not in page
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert token is not None
    fields = {"csrf_token": token[1], "flow": "release", "ref": "", "input.version": "1.2", "input.level": "high"}
    answer = ann.post("/projects/keepwork/start", data=fields, headers=OURS)
    assert answer.status_code == 303
    assert re.fullmatch(r"/projects/keepwork/runs/\d+", answer.location)
    assert _inputs(startable) == {"version": "1.2", "level": "high", "dry": "false", "workers": "4"}


def test_r18_what_does_not_fit_comes_back_filled_in_with_what_is_wrong(startable: Story, pages: Flask) -> None:
    ann = browser(pages, startable, "root")
    token = re.search(r'name="csrf_token" value="([^"]+)"', ann.get("/projects/keepwork/start").text)
    assert token is not None
    fields = {"csrf_token": token[1], "flow": "release", "input.version": HOSTILE, "input.workers": "many"}
    answer = ann.post("/projects/keepwork/start", data=fields, headers=OURS)
    assert answer.status_code == 400
    assert "workers must be a number" in answer.text
    assert "<script>&#34;" not in answer.text
    assert "$(touch x)&#39;; echo &#34;&lt;script&gt;&#34;" in answer.text


def test_a_branch_that_is_not_there_is_said(startable: Story, pages: Flask) -> None:
    answer = browser(pages, startable, "root").get("/projects/keepwork/start?ref=mian")
    assert answer.status_code == 404
    assert "did you mean &#39;main&#39;?" in answer.text


def test_r09_api_and_page_start_a_flow_with_branch_and_commit(startable: Story, pages: Flask, tmp_path: Path) -> None:
    repository = tmp_path / "keepwork.git"
    old = repositories.commit(repository, {".keepflow.yml": FLOW}, "An older one", "side")
    other = "version: 1\nflows: {x: {on: push, steps: [{run: a}]}}\n"
    new = repositories.commit(repository, {".keepflow.yml": other}, "A newer one", "side")
    admin = Caller(pages, _token(startable, "root", ["admin"]))
    wanted = {"flow": "release", "ref": "side", "commit": old[:10], "inputs": {"version": "1"}}
    status, started = admin.ask("POST", "/projects/keepwork/runs", wanted)
    assert status == 202, started
    run = admin.ask("GET", f"/projects/keepwork/runs/{started['run']}")[1]
    assert (run["sha"], run["ref"]) == (old, "refs/heads/side")
    for commit, code in ((new, "no-flow"), ("f" * 12, "no-commit"), ("$(id)", "bad-commit")):
        status, refusal = admin.ask("POST", "/projects/keepwork/runs", {**wanted, "commit": commit})
        assert (status, refusal["code"]) == (400 if code == "bad-commit" else 404, code)
    page = browser(pages, startable, "root").get(f"/projects/keepwork/start?ref=side&commit={old[:10]}").text
    assert f'name="commit" value="{old[:10]}"' in page
    assert "Start release" in page
