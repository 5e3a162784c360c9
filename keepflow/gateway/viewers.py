"""Who may watch a stream: the people, cookies and tokens of the pages, and the same guard against other sites."""

from __future__ import annotations

from sqlalchemy import Connection
from starlette.requests import cookie_parser
from starlette.types import Scope

from keepflow import errors
from keepflow.core import hosts, roles
from keepflow.core.names import is_name
from keepflow.engine import people
from keepflow.engine.context import Master
from keepflow.gateway.answers import header
from keepflow.store import projects
from keepflow.store.people import User
from keepflow.store.projects import Project


def viewer(conn: Connection, master: Master, scope: Scope, now: int) -> User:
    """Return who asks for a stream; raises UsageError `unknown-host`, Denied `cross-site` and AuthError."""
    url = master.url()
    if not hosts.is_ours(_text(scope, b"host"), url):
        raise errors.UsageError("this server is not known by that name", code="unknown-host")
    if header(scope, b"authorization") is not None:
        return _by_token(conn, _text(scope, b"authorization"), now)
    _check_same_site(scope)
    cookies = cookie_parser(_text(scope, b"cookie"))
    user = people.session_user(conn, people.session_cookie(cookies, url), now)
    if user is None:
        raise errors.AuthError("sign in first")
    return user


def visible_project(conn: Connection, user: User, name: str) -> Project:
    """Return a project this person may see; raises NotFound for every other."""
    found = projects.by_name(conn, name) if is_name(name) else None
    if found is None or not people.may(conn, user, found.id, "see"):
        raise errors.NotFound("there is no such project, or none you may see", code="no-project")
    return found


def _by_token(conn: Connection, value: str, now: int) -> User:
    scheme, _, token = value.partition(" ")
    found = people.token_user(conn, token.strip(), now) if scheme.lower() == "bearer" else None
    if found is None or not roles.scopes_allow(found[1], "see"):
        raise errors.AuthError("this token is unknown, expired or revoked", code="bad-token")
    return found[0]


def _check_same_site(scope: Scope) -> None:
    # A browser adds the cookie by itself, so a page of another site must not be able to read along.
    origin, site = header(scope, b"origin"), header(scope, b"sec-fetch-site")
    if origin is not None and not hosts.same_origin(_text(scope, b"origin"), _text(scope, b"host")):
        raise errors.Denied("this request came from another site", code="cross-site")
    if site not in (None, b"same-origin", b"none"):
        raise errors.Denied("this request came from another site", code="cross-site")


def _text(scope: Scope, name: bytes) -> str:
    return (header(scope, name) or b"").decode("latin-1")
