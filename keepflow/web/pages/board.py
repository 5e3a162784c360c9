"""Home: every project with its environments side by side; and the first page of one project."""

from __future__ import annotations

from flask import Blueprint, render_template
from sqlalchemy import Connection

from keepflow.engine import people as rules
from keepflow.store import forge_hooks
from keepflow.store.projects import Project
from keepflow.web.access import needs
from keepflow.web.answers import deployments, hooks, runs, schedules
from keepflow.web.answers import server as answers
from keepflow.web.state import caller, current_project, reading, web
from keepflow.wire import api

blueprint = Blueprint("board", __name__)


@blueprint.get("/")
@needs("enter")
def home() -> str:
    """Show every project the caller may see: what serves where, and its last run."""
    conn, user = reading(), caller().user
    found = [(stored, _board(conn, stored), _last(conn, stored)) for stored in answers.visible_projects(conn, user)]
    return render_template("home.html", section="projects", projects=found)


@blueprint.get("/projects/<project>")
@needs("see")
def show_project(project: str) -> str:  # noqa: ARG001 - the guard reads it
    """Show one project: its environments in short, what the clock starts, and its newest runs."""
    return render_template("project.html", **project_facts())


@blueprint.get("/projects/<project>/now")
@needs("see")
def project_now(project: str) -> str:  # noqa: ARG001 - the guard reads it
    """Show the part of a project's page that changes."""
    return render_template("parts/project.html", **project_facts())


def project_facts() -> dict[str, object]:
    """Return what the page of one project shows."""
    conn, place = reading(), current_project()
    page = runs.page(conn, {place.id}, api.RunsQuery(limit=10))
    return {
        "section": "projects",
        "tab": "overview",
        "project": place,
        "environments": _board(conn, place),
        "page": page,
        "schedules": schedules.of_project(conn, place),
        "hooks": hooks.shown(web().master, forge_hooks.of_project(conn, place.id)),
        "single": True,
        "may_run": rules.may(conn, caller().user, place.id, "run"),
        "may_secrets": rules.may(conn, caller().user, place.id, "secrets"),
        "may": {verb: rules.may(conn, caller().user, place.id, verb) for verb in ("pause", "roles")},
    }


def _board(conn: Connection, stored: Project) -> list[api.Environment]:
    return deployments.board(conn, stored)


def _last(conn: Connection, stored: Project) -> api.Run | None:
    found = runs.page(conn, {stored.id}, api.RunsQuery(limit=1)).items
    return found[0] if found else None
