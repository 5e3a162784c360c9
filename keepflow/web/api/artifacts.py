"""Files that jobs kept: listed, and downloaded as files, never shown as documents of this origin."""

from __future__ import annotations

from pathlib import PurePosixPath

from flask import send_file
from sqlalchemy import Connection
from werkzeug.wrappers import Response as AnyResponse

from keepflow.engine.artifacts import place_of
from keepflow.errors import NotFound
from keepflow.store import artifacts, runs
from keepflow.store.projects import Project
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.api.runs import no_run
from keepflow.web.state import current_project, reading, web
from keepflow.wire import api

endpoints = Endpoints("Artifacts")


@endpoints.add("GET", "/projects/<project>/runs/<int:number>/artifacts", "see", api.Artifacts)
def list_artifacts(number: int) -> api.Artifacts:
    """List the files that the jobs of a run kept, those whose time is over too."""
    return api.Artifacts(items=listed(reading(), current_project(), number))


@endpoints.add("GET", "/projects/<project>/runs/<int:number>/artifacts/<int:artifact>", "see")
def get_artifact(number: int, artifact: int) -> AnyResponse:
    """Download one file; a `Range` header asks for a part."""
    one = next((found for found in listed(reading(), current_project(), number) if found.id == artifact), None)
    place = place_of(web().master.home, one.sha256) if one else None
    if one is None or place is None or one.removed_at is not None or not place.exists():
        raise NotFound("there is no such artifact, or its time is over", code="no-artifact")
    name = PurePosixPath(one.path).name
    answer = send_file(
        place, "application/octet-stream", as_attachment=True, download_name=name, etag=one.sha256, conditional=True
    )
    answer.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    answer.headers["Cache-Control"] = "private, no-store"
    return answer


def listed(conn: Connection, project: Project, number: int) -> list[api.Artifact]:
    """Return what the jobs of a run kept; raises NotFound."""
    stored = runs.by_number(conn, project.id, number)
    if stored is None:
        raise no_run(number)
    address = f"/api/v1/projects/{project.name}/runs/{number}/artifacts"
    return [
        api.Artifact(
            id=one.id,
            job=key,
            attempt=n,
            path=one.path,
            size=one.size,
            sha256=one.sha256,
            created_at=one.created_at,
            expires_at=one.expires_at,
            removed_at=one.removed_at,
            url=f"{address}/{one.id}",
        )
        for key, n, one in artifacts.of_run(conn, stored.id)
    ]
