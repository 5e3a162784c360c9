"""Hostile text in every field of every page: it is shown as text, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient

from tests.web import hostile_story, payloads
from tests.web import story as stories
from tests.web.conftest import browser, web_app
from tests.web.story import Story

#: Every element our templates use; anything else came from outside.
_TEXT = """
html head meta title link script body a header img nav div span form input button svg use main
footer section h1 h2 h3 p dl dt dd ul ol li strong code small hr br time pre details summary label
select option noscript textarea table thead tbody tr th td q b
"""
ELEMENTS = frozenset(_TEXT.split())
URLS = frozenset({"href", "src", "action", "hx-get", "hx-post", "formaction", "data-stream", "data-live", "xlink:href"})


class Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []
        self.shown: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        if tag not in ELEMENTS or (tag == "script" and not (dict(attrs).get("src") or "").startswith("/static/")):
            self.wrong.append(f"<{tag}>")
        for name, value in attrs:
            if name.startswith("on") or name in ("style", "srcdoc", "hx-on", "hx-vals", "http-equiv"):
                self.wrong.append(f"{tag} {name}={value}")
            if name in URLS and not self._ours(tag, name, value or ""):
                self.wrong.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        """Collect text."""
        self.shown.append(data)

    def _ours(self, tag: str, name: str, value: str) -> bool:
        parts = urlsplit(value)
        if parts.scheme in ("http", "https") and parts.netloc:
            return (tag, name) == ("a", "href")
        return not parts.scheme and not parts.netloc and value.startswith(("/", "#", "?"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FlaskClient, list[str]]]:
    """An admin's browser in the hostile story, and the pages that show some of it."""
    with stories.open_master(tmp_path_factory.mktemp("hostile") / "home") as master:
        story = Story(master)
        paths = hostile_story.tell(story)
        yield browser(web_app(story), story, "root"), paths


def test_no_page_contains_an_element_attribute_or_address_from_outside(
    hostile: tuple[FlaskClient, list[str]],
) -> None:
    client, paths = hostile
    for path in paths:
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert Page(answer.text).wrong == [], path


def test_the_hostile_text_really_is_on_the_pages(hostile: tuple[FlaskClient, list[str]]) -> None:
    client, paths = hostile
    shown = "\n".join("".join(Page(client.get(path).text).shown) for path in paths)
    missing = [text for text in payloads.XSS if text.replace("\x00", " ").strip("\ufeff\u202e\u202c")[:60] not in shown]
    assert not missing


def test_no_text_is_run_as_a_template(hostile: tuple[FlaskClient, list[str]]) -> None:
    client, paths = hostile
    for path in paths:
        page = client.get(path).text
        assert payloads.RESULT not in page, path
        assert "SECRET_KEY" not in page
        assert "<class" not in page.replace("&lt;class", "")


def test_an_address_is_a_link_only_when_it_leads_to_a_web_server(hostile: tuple[FlaskClient, list[str]]) -> None:
    page = hostile[0].get("/projects/keepwork/environments").text
    assert "javascript:alert(1)//" not in page
    assert 'href="https://x.example/&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;"' in page


def test_control_characters_never_reach_a_page(hostile: tuple[FlaskClient, list[str]]) -> None:
    client, paths = hostile
    allowed = {"\n", "\t"}
    for path in paths:
        found = {character for character in client.get(path).text if ord(character) < 32} - allowed
        assert not found, (path, found)


@pytest.mark.parametrize("text", payloads.XSS)
def test_what_is_typed_into_forms_and_addresses_comes_back_as_text(
    text: str, hostile: tuple[FlaskClient, list[str]]
) -> None:
    client, _ = hostile
    fresh = client.application.test_client()
    ours = {"Origin": "http://localhost"}
    pages = [
        fresh.post("/login", headers=ours, data={"name": text, "password": "x", "next": text}),
        client.get("/runs", query_string={"branch": text, "flow": text[:40], "project": text, "state": text[:12]}),
        client.get(f"/{text.replace('/', '')}"),
        client.get("/projects/keepwork/environments/production/promote", query_string={"source": text}),
        client.get(f"/projects/keepwork/environments/{text.replace('/', '')}/deployments"),
    ]
    for page in pages:
        assert page.mimetype == "text/html"
        assert Page(page.text).wrong == []
