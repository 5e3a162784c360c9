"""Flows that the clock starts."""

from __future__ import annotations

from keepflow.web.answers import schedules as answers
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.state import current_project, reading
from keepflow.wire import api

endpoints = Endpoints("Schedules")


@endpoints.add("GET", "/projects/<project>/schedules", "see", api.Schedules)
def schedules() -> api.Schedules:
    """List the flows of a project that the clock starts, their next times, and what was missed."""
    return api.Schedules(items=answers.of_project(reading(), current_project()))
