"""Signing in and out, and one-time links."""

from __future__ import annotations

from flask import Blueprint, Response, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from keepflow import errors
from keepflow.engine import people as rules
from keepflow.engine import signin
from keepflow.web.access import ANYONE, needs, visitor
from keepflow.web.headers import drop_session, set_session
from keepflow.web.state import reading, web

blueprint = Blueprint("account", __name__)


@blueprint.get("/login")
@needs(ANYONE)
def login_page() -> AnyResponse:
    """Ask for name and password."""
    if visitor() is not None:
        return redirect(_local(request.args.get("next", "/")), 303)
    return _login_form("", "", 200)


@blueprint.post("/login")
@needs(ANYONE)
def login() -> AnyResponse:
    """Open a session and go where the visitor was going."""
    name = request.form.get("name", "").strip()
    try:
        cookie = web().signin.login(name, request.form.get("password", ""), _address(), web().now())
    except (errors.AuthError, errors.TooMany) as error:
        return _login_form(error.message, name, error.http_status)
    answer = redirect(_local(request.form.get("next", "/")), 303)
    set_session(answer, cookie)  # type: ignore[arg-type]  # flask's redirect is typed as werkzeug's response
    return answer


@blueprint.post("/logout")
@needs("enter")
def logout() -> AnyResponse:
    """End this session."""
    web().signin.logout(rules.session_cookie(request.cookies, web().master.url()), web().now())
    answer = redirect("/login", 303)
    drop_session(answer)  # type: ignore[arg-type]  # flask's redirect is typed as werkzeug's response
    return answer


@blueprint.get("/setup/<token>")
@needs(ANYONE)
def setup_page(token: str) -> Response:
    """Ask for the first admin's name and password, or for a new password."""
    return _setup_form(token, "", "", 200)


@blueprint.post("/setup/<token>")
@needs(ANYONE)
def setup(token: str) -> AnyResponse:
    """Use a one-time link and go to the board, signed in."""
    name = request.form.get("name", "").strip()
    password = request.form.get("password", "")
    if password != request.form.get("again", ""):
        return _setup_form(token, "the two passwords differ", name, 400)
    try:
        cookie = web().signin.use_setup_link(token, name, password, _address(), web().now())
    except (errors.UsageError, errors.TooMany) as error:
        return _setup_form(token, error.message, name, error.http_status)
    answer = redirect("/", 303)
    set_session(answer, cookie)  # type: ignore[arg-type]  # flask's redirect is typed as werkzeug's response
    return answer


def _login_form(wrong: str, name: str, status: int) -> Response:
    target = _local(request.values.get("next", "/"))
    page = render_template("login.html", wrong=wrong, name=name[:60], next=target)
    return make_response(page, status)


def _setup_form(token: str, wrong: str, name: str, status: int) -> Response:
    _, user = signin.read_link(reading(), token, web().now())
    return make_response(render_template("setup.html", user=user, wrong=wrong, name=name[:60]), status)


def _address() -> str:
    return request.remote_addr or "unknown"


def _local(target: str) -> str:
    """Return a path of this server, or "/": a sign-in page must not send people elsewhere."""
    plain = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if plain and "\\" not in target else "/"
