"""Artifacts over API, page and command line: listed, downloaded whole or in part, never a document (R69)."""

from __future__ import annotations

import hashlib
from typing import Any

from keepflow.engine.artifacts import place_of
from keepflow.store import artifacts, jobs, runs
from keepflow.store.artifacts import NewArtifact
from tests.web.conftest import browser, web_app
from tests.web.story import Story

API = "/api/v1/projects/keepwork/runs/5/artifacts"
DATA = b"<script>alert(1)</script>" * 40


def kept(story: Story, path: str = "dist/<b>é.html", data: bytes = DATA, expires_at: int | None = None) -> int:
    """Keep a file as the first attempt of keepwork#5 does."""
    digest = hashlib.sha256(data).hexdigest()
    place = place_of(story.master.home, digest)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)

    def write(tx: Any) -> int:
        run = runs.by_number(tx.conn, 1, 5)
        assert run is not None
        attempt = jobs.attempts_of_run(tx.conn, run.id)[0]
        return artifacts.put(tx.conn, attempt.id, NewArtifact(path, len(data), digest, False, expires_at), story.now)

    return int(story.master.writer.call(write))


def test_r69_files_are_listed_and_downloaded_as_files_never_as_pages(story: Story) -> None:
    number = kept(story)
    client = browser(web_app(story), story, "ann")
    [one] = client.get(API).json["items"]
    assert (one["path"], one["size"], one["job"], one["attempt"]) == ("dist/<b>é.html", len(DATA), "build", 1)
    answer = client.get(one["url"], buffered=True)
    assert (answer.status_code, answer.data) == (200, DATA)
    assert answer.mimetype == "application/octet-stream"
    disposition = answer.headers["Content-Disposition"]
    assert disposition.startswith("attachment")
    assert "filename*=UTF-8''%3Cb%3E%C3%A9.html" in disposition
    assert "dist/" not in disposition
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    part = client.get(one["url"], headers={"Range": "bytes=3-9"}, buffered=True)
    assert (part.status_code, part.data) == (206, DATA[3:10])
    page = client.get("/projects/keepwork/runs/5").text
    assert "dist/&lt;b&gt;é.html" in page
    assert f"{API}/{number}" in page


def test_r69_what_is_gone_or_of_another_run_is_not_there(story: Story) -> None:
    number = kept(story, "old.txt", b"old")
    client = browser(web_app(story), story, "ann")
    assert client.get(f"{API}/{number}", buffered=True).status_code == 200
    for path in (f"{API}/{number + 7}", API.replace("/5/", "/3/") + f"/{number}", f"{API}/../../5"):
        assert client.get(path).status_code == 404
    story.master.writer.call(lambda tx: artifacts.let_go(tx.conn, [number], story.now))
    assert client.get(f"{API}/{number}").status_code == 404
    assert client.get(API).json["items"][0]["removed_at"] is not None
    assert "gone" in client.get("/projects/keepwork/runs/5").text
