"""The one door: every request passes here, and a view that did not declare what it needs is closed to everybody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flask import current_app, g, request

from keepflow import errors
from keepflow.core import hosts, roles
from keepflow.core.names import is_name
from keepflow.crypto import tokens
from keepflow.engine import people as rules
from keepflow.store import credentials, projects
from keepflow.web.state import Caller, reading, web

View = TypeVar("View", bound=Callable[..., Any])

ANYONE = "anyone"
VERBS = frozenset({ANYONE}) | roles.SERVER_VERBS | frozenset(roles.PROJECT_VERBS)
_NEEDS = "__keepflow_needs__"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_TOUCH_EVERY = 10 * 60 * 1_000_000


def needs(verb: str) -> Callable[[View], View]:
    """Declare the verb a view needs: `anyone`, a verb on the server, or a verb on the `<project>` of its address."""
    if verb not in VERBS:
        raise ValueError(f"no such verb: {verb}")

    def declare(view: View) -> View:
        setattr(view, _NEEDS, verb)
        return view

    return declare


def needed_by(view: Callable[..., Any]) -> str | None:
    """Return the verb a view declared, or None for one that is closed."""
    return getattr(view, _NEEDS, None)


def guard() -> None:
    """Let a request through or raise; registered as the first `before_request`."""
    _check_host()
    if request.endpoint is None:
        return  # no such address or method: Flask answers 404 or 405
    verb = needed_by(current_app.view_functions[request.endpoint])
    if verb is None:
        raise errors.NotFound("this address is closed: it declares nobody who may use it", code="undeclared")
    who = _identify()
    if request.method not in _SAFE_METHODS and (who is None or who.session is not None):
        _check_same_site()
        if who is not None and verb != ANYONE:
            _check_form_token(who)
    if verb == ANYONE:
        g.visitor = who
        return
    if who is None:
        raise errors.AuthError("sign in first")
    g.caller = _permitted(who, verb)


def visitor() -> Caller | None:
    """Return who is signed in on a page that is open to anyone."""
    found: Caller | None = g.get("visitor") or g.get("caller")
    return found


def _identify() -> Caller | None:
    header = request.headers.get("Authorization")
    if header is not None:
        scheme, _, value = header.partition(" ")
        found = rules.token_user(reading(), value.strip(), web().now()) if scheme.lower() == "bearer" else None
        if found is None:
            raise errors.AuthError("this token is unknown, expired or revoked", code="bad-token")
        _touch_token(value.strip())
        return Caller(found[0], None, found[1])
    cookie = rules.session_cookie(request.cookies, web().master.url())
    session = rules.live_session(reading(), cookie, web().now())
    if session is None:
        return None
    _touch_session(session[1])
    return Caller(session[0], session[1], ("admin",))


def _permitted(who: Caller, verb: str) -> Caller:
    """Return the caller with the project of the address; raises NotFound for what they may not even see."""
    name = (request.view_args or {}).get("project")
    conn = reading()
    if verb in roles.SERVER_VERBS:
        if not rules.may(conn, who.user, None, verb):
            raise errors.Denied("only an admin of this server may do this")
        found = None
    else:
        found = projects.by_name(conn, name) if isinstance(name, str) and is_name(name) else None
        if found is None or not rules.may(conn, who.user, found.id, "see"):
            raise errors.NotFound("there is no such project, or none you may see", code="no-project")
        if not rules.may(conn, who.user, found.id, verb):
            raise errors.Denied(f"this needs the role {roles.PROJECT_VERBS[verb]} on {found.name}")
    if not roles.scopes_allow(who.scopes, verb):
        raise errors.Denied(f"this token's scopes ({', '.join(who.scopes)}) do not cover it", code="scope")
    return Caller(who.user, who.session, who.scopes, found)


# --- cross-site requests ---------------------------------------------------------------------------------------------


def _check_host() -> None:
    if not hosts.is_ours(request.host, web().master.url()):
        raise errors.UsageError(
            "this server is not known by that name; set its public address with `url:` in keepflow.yml",
            code="unknown-host",
        )


def _check_same_site() -> None:
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        same = site in ("same-origin", "none")
    else:
        same = hosts.same_origin(request.headers.get("Origin", ""), request.host)
    if not same:
        raise errors.Denied("this request came from another site", code="cross-site")


def _check_form_token(who: Caller) -> None:
    sent = request.headers.get("X-CSRF-Token") or request.form.get("csrf_token", "")
    if who.session is None or not tokens.matches(sent, tokens.digest(who.session.csrf)):
        raise errors.Denied("this form is out of date; go back, reload the page and try again", code="csrf")


# --- last use --------------------------------------------------------------------------------------------------------


def _touch_session(session: credentials.Session) -> None:
    now = web().now()
    if now - session.used_at > _TOUCH_EVERY:
        web().master.writer.submit(lambda tx: credentials.touch_session(tx.conn, session.hash, now))


def _touch_token(bearer: str) -> None:
    now = web().now()
    found = credentials.token(reading(), tokens.digest(bearer))
    if found is not None and now - (found.used_at or 0) > _TOUCH_EVERY:
        web().master.writer.submit(lambda tx: credentials.touch_token(tx.conn, found.id, now))
