"""The Flask application for people: pages and REST API around one master."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flask import Flask, Response, request, send_from_directory
from werkzeug.routing import IntegerConverter, Map

from keepflow import __version__
from keepflow.engine import clock
from keepflow.engine.context import Master
from keepflow.engine.signin import SignIn
from keepflow.store import events
from keepflow.web import access, api, headers, present, problems
from keepflow.web.answers import rules
from keepflow.web.pages import BLUEPRINTS
from keepflow.web.state import EXTENSION, Web, close_reading, reading
from keepflow.wire.api import BrokenGlass

_STATIC = Path(__file__).parent / "static"


class RowNumber(IntegerConverter):
    """A number in an address that a database column can hold; larger ones are nothing's number."""

    def __init__(self, url_map: Map) -> None:
        super().__init__(url_map, max=2**31 - 1)


def create_app(master: Master, now: Callable[[], int] = clock.now) -> Flask:
    """Build the application; `now` gives UTC microseconds. No state but the login limiter lives in it."""
    app = Flask("keepflow.web", static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=1024 * 1024,
        MAX_FORM_MEMORY_SIZE=64 * 1024,
        MAX_FORM_PARTS=100,
    )
    app.extensions[EXTENSION] = Web(master, SignIn(master), now)
    app.url_map.converters["int"] = RowNumber
    app.before_request(access.guard)
    app.after_request(headers.secure)
    app.teardown_request(close_reading)
    present.install(app)
    problems.install(app)
    app.add_url_rule("/static/<path:name>", "static_file", static_file)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    app.register_blueprint(api.blueprint())
    app.context_processor(
        lambda: {
            "visitor": access.visitor(),
            "broken_glass": _broken_glass,
            "last_event": lambda: events.last_id(reading()),  # of the moment in which the page is true
            "version": __version__,
        }
    )
    return app


def _broken_glass() -> list[BrokenGlass]:
    """Return what was deployed outside the rules in the project a page is about, and nobody has followed up yet."""
    who = access.visitor()
    return rules.unacknowledged(reading(), who.project) if who and who.project else []


@access.needs(access.ANYONE)
def static_file(name: str) -> Response:
    """Serve a file of our own; those asked for by version never change."""
    answer = send_from_directory(_STATIC, name, max_age=None)
    forever = "v" in request.args or name.startswith("vendor/")
    answer.headers["Cache-Control"] = "public, max-age=31536000, immutable" if forever else "no-cache"
    return answer
