"""The agents: who is connected, what they can do, what they serve."""

from __future__ import annotations

from flask import Blueprint, render_template

from keepflow.web.access import needs
from keepflow.web.answers import server as answers
from keepflow.web.state import caller, reading, web

blueprint = Blueprint("agents", __name__)


@blueprint.get("/agents")
@needs("enter")
def list_agents() -> str:
    """List the agents the caller may see."""
    return render_template("agents.html", **_facts())


@blueprint.get("/agents/now")
@needs("enter")
def agents_now() -> str:
    """Show the part of the page that changes."""
    return render_template("parts/agents.html", **_facts())


def _facts() -> dict[str, object]:
    found = answers.visible_agents(reading(), caller().user)
    return {"section": "agents", "agents": found, "url": web().master.url(), "admin": caller().user.admin}
