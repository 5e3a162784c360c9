"""A Flask application around a real store with the story told into it, and browsers without a window."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from keepflow.crypto import tokens
from keepflow.store import credentials, people
from keepflow.web.app import create_app
from tests.web import story as stories
from tests.web.story import Story


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Story]:
    """Return a home with the whole story in it, told once; tests work on copies."""
    home = tmp_path_factory.mktemp("told") / "home"
    with stories.open_master(home) as master:
        story = Story(master)
        stories.tell(story)
    return home, story


@pytest.fixture(scope="session")
def settled(told: tuple[Path, Story], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The story so far, one copy for all tests that change nothing."""
    home, before = told
    copy = tmp_path_factory.mktemp("settled") / "home"
    shutil.copytree(home, copy)
    with stories.open_master(copy) as master:
        yield Story(master, before.now, dict(before.agent_ids), dict(before._reports))


@pytest.fixture(scope="session")
def still(settled: Story) -> Flask:
    """The application with the settled story in it."""
    return web_app(settled)


@pytest.fixture
def story(told: tuple[Path, Story], tmp_path: Path) -> Iterator[Story]:
    """The story so far, on a copy that this test may go on with."""
    home, before = told
    shutil.copytree(home, tmp_path / "home")
    with stories.open_master(tmp_path / "home") as master:
        yield Story(master, before.now, dict(before.agent_ids), dict(before._reports))


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Story]:
    """A server nobody has set up yet."""
    with stories.open_master(tmp_path / "home") as master:
        yield Story(master)


def web_app(story: Story) -> Flask:
    """Return the application of a story, whose clock is the story's."""
    app = create_app(story.master, now=lambda: story.now)
    app.testing = False
    return app


def cookie_for(story: Story, name: str) -> str:
    """Open a session for somebody, as signing in does, and return its cookie."""
    cookie = secrets.token_urlsafe(32)
    with story.master.database.read() as conn:
        user = people.user_by_name(conn, name)
    assert user is not None
    hashed, csrf = tokens.digest(cookie), secrets.token_urlsafe(32)
    story.write(lambda tx: credentials.add_session(tx.conn, hashed, user.id, csrf, story.now))
    return cookie


def browser(app: Flask, story: Story, name: str) -> FlaskClient:
    """Return a client that somebody is signed in with."""
    client = app.test_client()
    client.set_cookie("kf", cookie_for(story, name))
    return client


@pytest.fixture
def app(story: Story) -> Flask:
    """The application with the story in it."""
    return web_app(story)
