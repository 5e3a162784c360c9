"""The JSON schemas of keepflow's files, for editors: open to everybody, for they say nothing about this server."""

from __future__ import annotations

from functools import cache

from flask import Blueprint, Response, abort

from keepflow.config.schemas import FILES, schema_text
from keepflow.web.access import ANYONE, needs
from keepflow.web.state import web

blueprint = Blueprint("schemas", __name__)


@blueprint.get("/schema/<name>.json")
@needs(ANYONE)
def schema(name: str) -> Response:
    """Serve the schema of a file, as this version checks it; an editor in a browser may read it, too."""
    if name not in FILES:
        abort(404)
    answer = Response(_text(name), mimetype="application/schema+json")
    answer.headers["Cache-Control"] = "public, max-age=300"
    answer.headers["Access-Control-Allow-Origin"] = "*"
    return answer


@cache
def _text(name: str) -> str:
    return schema_text(name, web().master.kinds)
