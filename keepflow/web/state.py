"""What views find around them: the master, the caller, one read connection per request."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from flask import current_app, g
from sqlalchemy import Connection

from keepflow.engine.context import Master
from keepflow.engine.signin import SignIn
from keepflow.store.credentials import Session
from keepflow.store.people import User
from keepflow.store.projects import Project

EXTENSION = "keepflow"


@dataclass(frozen=True, slots=True)
class Web:
    """What one Flask app was built around. `now` gives UTC microseconds."""

    master: Master
    signin: SignIn
    now: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: by session (`session` set) or by bearer token (`scopes` narrow it)."""

    user: User
    session: Session | None
    scopes: tuple[str, ...]
    project: Project | None = None  #: the project of the address, when it has one and the caller may see it


def web() -> Web:
    """Return what this app was built around."""
    found: Web = current_app.extensions[EXTENSION]
    return found


def caller() -> Caller:
    """Return who asks; only views that need a verb may call this."""
    found: Caller = g.caller
    return found


def current_project() -> Project:
    """Return the project of the address; only views with `<project>` in their address may call this."""
    found = caller().project
    if found is None:
        raise LookupError("this view has no <project> in its address")
    return found


def reading() -> Connection:
    """Return this request's one read connection: everything a page shows is of the same moment."""
    if "reading" not in g:
        g.readings = ExitStack()
        g.reading = g.readings.enter_context(web().master.database.read())
    found: Connection = g.reading
    return found


def close_reading(_error: BaseException | None = None) -> None:
    """Give the read connection back; registered as a teardown."""
    stack: ExitStack | None = g.pop("readings", None)
    g.pop("reading", None)
    if stack is not None:
        stack.close()
