"""Who is told what, and whether it got there."""

from __future__ import annotations

from keepflow.engine import notifying
from keepflow.web.answers import notices as answers
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.state import reading, web
from keepflow.wire import api

endpoints = Endpoints("Notices")


@endpoints.add("GET", "/notices", "administer", api.NoticePage, query=api.NoticesQuery)
def list_notices(query: api.NoticesQuery) -> api.NoticePage:
    """List what channels were told, newest first."""
    return answers.page(reading(), query)


@endpoints.add("GET", "/channels", "administer", api.Channels)
def list_channels() -> api.Channels:
    """List the channels of the server file; their secrets are never told."""
    return answers.all_channels(reading(), web().master)


@endpoints.add("POST", "/channels/<name>/test", "administer", api.Tries)
def test_channel(name: str) -> api.Tries:
    """Tell every recipient of a channel that it works, and say what became of it."""
    tried = notifying.test(reading(), web().master, name, web().now())
    return api.Tries(items=[api.Tried(recipient=who, problem=problem) for who, problem in tried.items()])
