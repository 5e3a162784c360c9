"""A Flask application around a real store with the story told into it, and browsers without a window."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from keepflow.engine import signin
from keepflow.engine.context import Master
from keepflow.web.app import create_app
from tests.web import story as stories
from tests.web.story import PASSWORD, Story

SignedIn = Callable[[str], FlaskClient]


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Story]:
    """Return a home with the whole story in it, told once; tests work on copies."""
    home = tmp_path_factory.mktemp("told") / "home"
    with stories.open_master(home) as master:
        story = Story(master)
        stories.tell(story)
    return home, story


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
    """Sign somebody in and return their session cookie."""
    return signin.SignIn(story.master).login(name, PASSWORD, "127.0.0.1", story.now)


@pytest.fixture
def app(story: Story) -> Flask:
    """The application with the story in it."""
    return web_app(story)


@pytest.fixture
def signed_in(app: Flask, story: Story) -> SignedIn:
    """Return a signed-in client for a person of the story."""

    def sign_in(name: str) -> FlaskClient:
        client = app.test_client()
        client.set_cookie("kf", cookie_for(story, name))
        return client

    return sign_in


@pytest.fixture
def master(story: Story) -> Master:
    """The master of the story."""
    return story.master
