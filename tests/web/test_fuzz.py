"""Whatever is sent, no request is answered with 5xx, and every error is a problem with a code."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepflow.engine import people as rules
from keepflow.web.api import BASE, SUBJECTS
from keepflow.web.api.endpoint import Endpoint
from tests.web import story as stories
from tests.web.conftest import web_app
from tests.web.payloads import TEMPLATES, XSS
from tests.web.story import Story

#: Asks the remote of a project, which is somebody else's machine.
AWAY = {"start_run"}
ENDPOINTS = [endpoint for subject in SUBJECTS for endpoint in subject.all if endpoint.name not in AWAY]
REAL = ("keepwork", "shop", "production", "dev", "test", "ann", "bo", "testers", "local", "build", "3", "5", "6", "1")
WORDS = st.one_of(
    st.sampled_from(REAL),
    st.text(max_size=40),
    st.sampled_from((*XSS, *TEMPLATES)),
    st.sampled_from(
        ("sha256:" + "b0" * 32, "0" * 32, "..", "%00", "\x00", "'", '"', "\ud800".encode("utf-8", "replace").decode())
    ),
)
NUMBERS = st.one_of(st.integers(-3, 9), st.integers(-(2**70), 2**70))
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def client(told: tuple[Path, Story], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FlaskClient, Any]]:
    """A client with an admin's token, on a story of its own."""
    home, before = told
    copy = tmp_path_factory.mktemp("fuzz") / "home"
    shutil.copytree(home, copy)
    with stories.open_master(copy) as master:
        token = rules.install_admin_token(master).read_text().strip()  # nothing that is drawn can revoke this one
        yield web_app(Story(master, before.now)).test_client(), {"Authorization": f"Bearer {token}"}


@st.composite
def requests(draw: st.DrawFn) -> tuple[Endpoint, str, dict[str, Any] | None, bytes | None]:
    """Draw an endpoint, a path, a query and a body; often right, sometimes only nearly."""
    endpoint = draw(st.sampled_from(ENDPOINTS))
    path = re.sub(
        r"<(?:(int):)?\w+>",
        lambda found: str(draw(NUMBERS)) if found[1] else quote(draw(WORDS), safe=""),
        endpoint.path,
    )
    query = draw(_fields(endpoint.query)) if endpoint.query else None
    body = None
    if endpoint.body:
        fixed = {"dry_run": True} if endpoint.name == "apply" else {}  # an apply would end the story
        fields = _fields(endpoint.body).map(lambda data: json.dumps({**data, **fixed}).encode())
        body = draw(st.one_of(fields, st.binary(max_size=60)))
    return endpoint, path, query, body


def _fields(model: Any) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from([*model.model_fields, "surprise"])
    return st.dictionaries(names, VALUES, max_size=len(model.model_fields) + 1)


@settings(max_examples=1500, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(requests())
def test_nothing_sent_makes_the_server_fail(
    client: tuple[FlaskClient, Any], drawn: tuple[Endpoint, str, dict[str, Any] | None, bytes | None]
) -> None:
    flask, headers = client
    endpoint, path, query, body = drawn
    answer = flask.open(
        BASE + path,
        method=endpoint.method,
        headers=headers,
        query_string={name: json.dumps(value) for name, value in (query or {}).items()} or None,
        data=body,
        content_type="application/json" if body is not None else None,
    )
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.mimetype == "application/problem+json"
        assert answer.json["code"]
    assert flask.get(f"{BASE}/whoami", headers=headers).status_code == 200
