"""The page of a run that is a graph: which jobs stand side by side, after whom, and how each of them is."""

from __future__ import annotations

import re

from flask import Flask

from tests.web.conftest import browser
from tests.web.story import Story


def _levels(page: str) -> list[str]:
    found = re.search(r'<ol class="levels">(.*?)</ol>', page, re.DOTALL)
    if found is None:
        return []
    levels = re.split(r"<li>\s*<p|<li>\s*<ul", found[1])[1:]
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]*>|^[^>]*>", " ", level)).strip() for level in levels]


def test_the_jobs_of_a_graph_stand_level_by_level_with_what_they_wait_for(app: Flask, story: Story) -> None:
    number = story.push("graph", story.commit("Show a graph"), "Show a graph")
    page = browser(app, story, "bo").get(f"/projects/keepwork/runs/{number}").text
    assert _levels(page) == [
        "test unit-3-11 running unit-3-12 queued style queued, may fail",
        "build package waiting after unit-3-11, unit-3-12, style",
        "ship ship waiting after package",
        "tell mail waiting on failure of unit-3-11, unit-3-12, package, ship",
    ]


def test_one_line_of_work_needs_no_picture(app: Flask, story: Story) -> None:
    assert _levels(browser(app, story, "bo").get("/projects/keepwork/runs/1").text) == []
