"""What browsers load: only our own files, unchanged, under a policy that allows nothing else."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from flask import Flask

import keepflow.web
from tests.web.conftest import browser
from tests.web.story import Story
from tests.web.test_pages import PAGES

WEB = Path(keepflow.web.__file__).parent
VENDOR = WEB / "static" / "vendor"
OWN = sorted(path for path in (WEB / "static").iterdir() if path.is_file())


def test_every_vendored_file_is_the_one_that_was_looked_at() -> None:
    listed = dict(reversed(line.split()) for line in (VENDOR / "SHA256SUMS").read_text().splitlines())
    there = {path.name for path in VENDOR.iterdir()} - {"SHA256SUMS", "README.md"}
    assert set(listed) == there
    for name, digest in listed.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name


def test_every_vendored_script_has_its_licence_and_its_version_in_its_name() -> None:
    scripts = sorted(path.name for path in VENDOR.glob("*.js"))
    assert scripts == ["ansi_up-6.0.6.js", "htmx-2.0.11.min.js"]
    page = (VENDOR / "README.md").read_text()
    for name in scripts:
        assert f"`{name}`" in page
        assert (VENDOR / f"{name.partition('-')[0]}.LICENSE").stat().st_size > 200


def test_the_policy_allows_our_own_scripts_and_styles_and_nothing_inline(still: Flask) -> None:
    policy = still.test_client().get("/login").headers["Content-Security-Policy"]
    rules = dict(part.split(" ", 1) for part in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert {rules[name] for name in ("script-src", "style-src", "img-src", "connect-src", "form-action")} == {"'self'"}
    assert {rules[name] for name in ("base-uri", "frame-ancestors", "object-src")} == {"'none'"}
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", [*PAGES, "/login", "/nothing", "/static/keepflow.css", "/api/v1/projects"])
def test_every_answer_carries_the_headers_that_protect_it(path: str, still: Flask, settled: Story) -> None:
    with browser(still, settled, "root").get(path) as answer:
        headers = answer.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert ("no-store" in headers["Cache-Control"]) is not path.startswith("/static/")


def test_no_page_loads_or_contains_anything_inline_or_foreign(still: Flask, settled: Story) -> None:
    client = browser(still, settled, "root")
    pages = {path: client.get(path).text for path in PAGES} | {"/login": still.test_client().get("/login").text}
    for path, page in pages.items():
        assert not re.search(r"<script(?![^>]*\bsrc=)", page), path
        assert not re.search(r"\s(?:on\w+|style)\s*=", page), path
        assert "<style" not in page
        loaded = re.findall(r'<(?:script|link|img|use)[^>]*?(?:src|href)="([^"]*)"', page)
        assert loaded
        assert all(address.startswith("/static/") for address in loaded), path


def test_our_own_scripts_never_make_code_or_markup_of_text() -> None:
    for path in OWN:
        if path.suffix == ".js":
            text = re.sub(r"//.*", "", path.read_text())
            for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
                assert word not in text, f"{path.name}: {word}"


def test_templates_never_switch_escaping_off() -> None:
    for path in (WEB / "templates").rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert path.suffix == ".html", "only .html is escaped by itself"
            for word in ("|safe", "| safe", "autoescape", "hx-on", "javascript:", "hx-vals='js"):
                assert word not in text, f"{path.name}: {word}"


def test_every_icon_that_is_named_exists() -> None:
    drawn = set(re.findall(r'<symbol id="([a-z]+)"', (WEB / "static" / "icons.svg").read_text()))
    named = {
        found
        for path in (WEB / "templates").rglob("*.html")
        for found in re.findall(r'icon\("(\w+)"\)', path.read_text())
    }
    from keepflow.web.present import _BADGES

    assert named | {badge.icon for badge in _BADGES.values()} <= drawn


@pytest.mark.parametrize("name", ["..%2fapp.py", "../app.py", "vendor/../../app.py", "nothing.css", "vendor"])
def test_only_files_of_the_folder_are_served(name: str, still: Flask) -> None:
    assert still.test_client().get(f"/static/{name}").status_code == 404
