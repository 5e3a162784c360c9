"""What becomes of errors: problem+json (RFC 9457) for machines, a page for people, never what was sent in."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote, urlsplit

from flask import Flask, Response, jsonify, redirect, render_template, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from keepflow import errors

_log = logging.getLogger("keepflow.web")
_TITLES = {
    400: "That cannot be done",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Not that way",
    409: "A rule says no",
    413: "Too large",
    415: "Not that kind of content",
    422: "Something is wrong with what was sent",
    429: "Too many tries",
    500: "keepflow has a bug here",
    502: "Another machine answered wrongly",
    503: "Not now",
}


def install(app: Flask) -> None:
    """Answer every error of this app."""
    app.register_error_handler(errors.KeepflowError, _intentional)
    app.register_error_handler(ValidationError, _invalid)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _bug)


def _intentional(error: errors.KeepflowError) -> AnyResponse:
    if isinstance(error, errors.AuthError) and error.http_status == 401 and not for_machines():
        return _to_login()
    extra: dict[str, Any] = {}
    if isinstance(error, errors.ConfigError):
        extra["problems"] = [
            {"file": found.file, "line": found.line, "column": found.column, "code": found.code, "text": found.message}
            for found in error.problems
        ]
    answer = _answer(error.http_status, error.code, error.message, extra)
    if isinstance(error, errors.TooMany):
        answer.headers["Retry-After"] = str(error.wait)
    if error.http_status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def _to_login() -> AnyResponse:
    """Send a person to sign in and back here; a part of a page sends the whole page, not itself, there."""
    if "HX-Request" in request.headers:
        here = urlsplit(request.headers.get("HX-Current-URL", ""))
        back = f"{here.path}?{here.query}" if here.query else here.path
        return Response(status=401, headers={"HX-Redirect": f"/login?next={quote(back or '/', safe='/')}"})
    back = request.full_path.rstrip("?") if request.method == "GET" else "/"
    return redirect(f"/login?next={quote(back, safe='/')}", 303)


def _invalid(error: ValidationError) -> AnyResponse:
    # `input` and `ctx` may hold what was sent, secrets included: only the place and pydantic's own sentence go out.
    found = error.errors(include_url=False, include_context=False, include_input=False)
    problems = [{"where": ".".join(str(part) for part in item["loc"]), "text": item["msg"]} for item in found]
    sentence = "; ".join(f"{item['where']}: {item['text']}" if item["where"] else item["text"] for item in problems)
    return _answer(422, "invalid", sentence, {"problems": problems})


def _http(error: HTTPException) -> AnyResponse:
    status = error.code or 500
    if status < 400:
        return error.get_response()
    answer = _answer(status, error.name.lower().replace(" ", "-"), _said(status), {})
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After"):
            answer.headers[name] = value
    return answer


def _said(status: int) -> str:
    sentences = {
        404: "there is nothing at this address",
        405: "this address does not take that method",
        413: "that is more than this server takes in one request",
        415: "send JSON with `Content-Type: application/json`",
    }
    return sentences.get(status, "the request could not be understood" if status < 500 else "the server failed")


def _bug(error: Exception) -> AnyResponse:
    _log.error("unexpected error in %s", request.endpoint, exc_info=error)
    return _answer(500, "bug", "this is a bug in keepflow; the server's log has the details", {})


def for_machines() -> bool:
    """Say whether the answer is for a program: the API, or somebody who asked for JSON."""
    best = request.accept_mimetypes.best_match(("text/html", "application/problem+json", "application/json"))
    return request.path.startswith("/api/") or best not in (None, "text/html")


def _answer(status: int, code: str, detail: str, extra: dict[str, Any]) -> Response:
    title = _TITLES.get(status, "Error")
    if for_machines():
        body = {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail, **extra}
        answer = jsonify(body)
        answer.mimetype = "application/problem+json"
    else:
        answer = Response(render_template("error.html", status=status, title=title, code=code, detail=detail))
    answer.status_code = status
    return answer
