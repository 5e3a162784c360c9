"""The webhook that keepflow keeps at a forge, on the page of its project: why it failed, and a button (R11)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from keepflow.engine import hooking
from keepflow.engine.hooking import HookKeeper
from keepflow.store import forge_hooks, projects
from keepflow.store.projects import hook_secret_place
from keepflow.wire.desired import DesiredApi
from tests.browser.conftest import Open
from tests.forges.served import TOKEN, served_forge
from tests.web.story import Story

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("width", [1280, 390])
def test_r11_a_refusal_is_read_on_the_page_and_asking_again_mends_it_while_one_looks(
    width: int, opened: Open, told: tuple[str, Story], pictures: Path
) -> None:
    url, story = told
    master, project = story.master, replace(story.project(), repo="https://git.example.org/team/keepwork.git")
    with served_forge("github") as forge:
        secret = master.vault.seal(b"a-secret-of-the-story", hook_secret_place(project.name))
        story.write(lambda tx: projects.change(tx.conn, project.id, hook_secret=secret))
        how = DesiredApi(token=TOKEN, api=forge.api, private=True)
        forge.refuse = [(403, {"message": "Resource not accessible by personal access token"})]
        story.write(lambda tx: hooking.want(tx, master, project, how, story.now))
        keeper = HookKeeper(master)
        keeper.start()
        try:
            page = opened("root", width, 844).open("/projects/keepwork")
            page.get_by_text("answered 403: Resource not accessible by personal access token").wait_for()
            assert page.get_by_text("Webhooks: read and write").is_visible()
            page.screenshot(path=pictures / f"project-hook-failed-{width}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.get_by_role("button", name="Ask it again").click()
            page.get_by_text("The webhook at github is kept by keepflow").wait_for()
            assert forge.urls() == [f"{url}/hooks/keepwork"]
            page.screenshot(path=pictures / f"project-hook-kept-{width}.png", full_page=True)
        finally:
            keeper.stop(5)
            story.write(lambda tx: [forge_hooks.drop(tx.conn, hook.id) for hook in forge_hooks.every(tx.conn)])
