"""What every button of an environment needs to know: which environment is meant, and who presses."""

from __future__ import annotations

from keepflow.engine.guarding import Presser
from keepflow.store.environments import Environment
from keepflow.web.answers import deployments
from keepflow.web.state import caller, current_project, reading


def placed(environment: str) -> tuple[Environment, Presser]:
    """Return the environment of this name in the project a request is about, and its caller; raises NotFound."""
    project = current_project()
    place = deployments.by_name(reading(), project, environment)
    return place, deployments.presser(reading(), caller().user, project)
