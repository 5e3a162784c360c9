"""Headless Chromium against a served story; whatever it loads, shows or complains about is remembered."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, sync_playwright

from keepflow.engine import clock
from tests.real.parts import find, missing
from tests.web import story as stories
from tests.web.conftest import cookie_for
from tests.web.serving import served
from tests.web.story import HOUR, Story


@dataclass
class Watched:
    """A page and everything suspicious it did."""

    page: Page
    url: str
    dialogs: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        """Go to a path of the served master."""
        self.page.goto(self.url + path)
        return self.page

    def _dialog(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _request(self, request: Request) -> None:
        if not request.url.startswith(f"{self.url}/"):
            self.foreign.append(request.url)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def watch(self) -> Watched:
        """Begin to remember."""
        self.page.on("dialog", self._dialog)
        self.page.on("request", self._request)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return self

    def check(self) -> None:
        """Fail when the page did anything it must not."""
        assert (self.dialogs, self.foreign, self.complaints) == ([], [], [])


Open = Callable[..., Watched]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser that is installed here; playwright's event loop must not outlive the tests that need it."""
    program = find("chromium")
    if program is None:
        missing("missing: chromium")
    with sync_playwright() as playwright:
        # No sandbox: the tests run as root in CI, where Chromium refuses to make one.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Story]]:
    """A served master with the story in it, up to now, and its address."""
    with served(tmp_path_factory.mktemp("browser") / "home", clock.now() - 5 * 24 * HOUR) as (url, story):
        stories.tell(story)
        story.now = clock.now()
        yield url, story


@pytest.fixture
def opened(chromium: Browser, told: tuple[str, Story]) -> Iterator[Open]:
    """Open a watched page: `opened("root")` is signed in, `opened(None)` is not. Checked when the test ends."""
    url, story = told
    made: list[Watched] = []

    def make(name: str | None = "root", width: int = 1280, height: int = 800, scheme: str = "light") -> Watched:
        size = {"width": width, "height": height}
        context = chromium.new_context(viewport=size, color_scheme=scheme, locale="en-GB")  # type: ignore[arg-type]  # both are the literals playwright names
        if name is not None:
            context.add_cookies([{"name": "kf", "value": cookie_for(story, name), "url": url}])
        made.append(Watched(context.new_page(), url).watch())
        return made[-1]

    yield make
    for watched in made:
        watched.page.context.close()
        watched.check()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: KEEPFLOW_SCREENSHOTS, else a directory of this session."""
    chosen = os.environ.get("KEEPFLOW_SCREENSHOTS")
    path = Path(chosen) if chosen else tmp_path_factory.mktemp("pictures")
    path.mkdir(parents=True, exist_ok=True)
    return path
