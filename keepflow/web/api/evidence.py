"""Receipts of releases, to be kept and checked elsewhere."""

from __future__ import annotations

from keepflow.web.answers import evidence as answers
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.state import current_project, reading, web
from keepflow.wire import api

endpoints = Endpoints("Evidence")


@endpoints.add("GET", "/projects/<project>/releases/<digest>/receipts", "see", api.Evidence)
def receipts(digest: str) -> api.Evidence:
    """Give out what is proven about a pushed digest, to be checked anywhere: keepflow verify FILE."""
    return answers.evidence(reading(), web().master, current_project(), digest)
