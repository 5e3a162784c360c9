"""Holding a project back and running again with a browser: buttons, words, and that all of it fits (R59)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.browser.conftest import Open


@pytest.mark.parametrize("width", [1280, 390])
def test_r59_a_run_again_waits_while_its_project_is_paused_and_the_page_says_so(
    width: int, opened: Open, pictures: Path
) -> None:
    page = opened("root", width, 844).open("/projects/keepwork")
    page.get_by_text("Pause keepwork").click()
    page.get_by_label("Why").fill("the registry is being moved to another machine")
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("paused by root").wait_for()
    page.screenshot(path=pictures / f"project-paused-{width}.png", full_page=True)
    page.goto(page.url + "/runs/5")
    page.get_by_role("button", name="Run again", exact=True).click()
    page.wait_for_url(re.compile(r"/runs/([7-9]|\d\d)$"))
    page.get_by_text("Somebody holds its project back").wait_for()
    assert page.get_by_text("keepwork is paused by root: the registry is being moved").is_visible()
    assert page.get_by_text("keepwork#5 again, asked for by root").is_visible()
    page.screenshot(path=pictures / f"run-paused-{width}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("button", name="Cancel").click()
    answer = page.locator("#run-said").get_by_text("nothing of it was running; it is cancelled")
    answer.wait_for()
    for _ in range(2):  # the first answer may be to a question from before the press
        with page.expect_request_finished(lambda asked: asked.url.endswith("/now")):
            page.evaluate("document.body.dispatchEvent(new CustomEvent('keepflow:changed'))")
    page.get_by_text("cancelled by root").first.wait_for()
    assert answer.is_visible(), "a refresh takes nothing away that was not read yet"
    page.screenshot(path=pictures / f"run-cancelled-{width}.png", full_page=True)
    page.goto(page.url.partition("/runs/")[0])
    page.get_by_role("button", name="Let it go on").click()
    page.get_by_text("Pause keepwork").wait_for()
