"""What the pages show."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy import update

from keepflow.core.flows import NO_FLOW
from keepflow.engine.deciding import decided
from keepflow.store.tables import deliveries
from keepflow.web.present import ref_name
from tests.web.conftest import browser, web_app
from tests.web.story import Story

PAGES = (
    "/",
    "/projects/keepwork",
    "/projects/keepwork/environments",
    "/projects/keepwork/environments/production/promote?source=3",
    "/projects/keepwork/environments/production/deployments",
    "/projects/keepwork/deliveries",
    "/projects/keepwork/deliveries/1",
    "/projects/keepwork/runs/1",
    "/projects/keepwork/runs/2",
    "/projects/keepwork/runs/5",
    "/projects/keepwork/runs/6",
    "/runs",
    "/agents",
    "/api/v1/docs",
)


@pytest.mark.parametrize("path", PAGES)
def test_every_page_can_be_opened(path: str, still: Flask, settled: Story) -> None:
    answer = browser(still, settled, "root").get(path)
    assert answer.status_code == 200, answer.text


def test_the_schemas_are_served_to_everybody(still: Flask) -> None:
    anybody = still.test_client()
    for file in ("flow", "server", "agent"):
        answer = anybody.get(f"/schema/{file}.json")
        assert (answer.status_code, answer.mimetype) == (200, "application/schema+json")
        assert answer.get_json(force=True)["$id"] == f"urn:keepflow:{file}-file:1"
    assert anybody.get("/schema/other.json").status_code == 404


@pytest.mark.parametrize(
    ("ref", "shown"),
    [
        ("refs/heads/dev", "dev"),
        ("refs/tags/v1", "v1"),
        ("refs/pull/7/head", "#7"),
        ("refs/merge-requests/12/head", "#12"),
        ("refs/pull/x/head", "refs/pull/x/head"),
    ],
)
def test_a_ref_is_shown_by_the_name_people_use(ref: str, shown: str) -> None:
    assert ref_name(ref) == shown


def test_a_push_without_a_usable_flow_file_is_no_flow_that_started(story: Story) -> None:
    """R15: nothing green is said of a commit whose flow file cannot be read."""
    wrong = ".keepflow.yml:3:1: missing flows"
    decision = decided(wrong, [{"flow": NO_FLOW, "run": 1, "why": "the commit has no usable flow file"}])
    story.write(lambda tx: tx.conn.execute(update(deliveries).where(deliveries.c.id == 1).values(decision=decision)))
    client = browser(web_app(story), story, "ann")
    page = client.get("/projects/keepwork/deliveries/1").text
    assert "no flow started; <a " in page
    assert "failed: the commit has no usable flow file" in page
    assert "<strong>none</strong>" not in page
    listed = client.get("/projects/keepwork/deliveries").text
    [row] = [one for one in listed.split("<li>") if "missing flows" in one]
    assert '<span class="state bad">' in row
    assert "started" not in row
