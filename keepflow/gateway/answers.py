"""What the gateway answers: short JSON, and problems (RFC 9457) that never repeat what was sent in."""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keepflow import errors

log = structlog.get_logger(__name__)
Headers = Iterable[tuple[bytes, bytes]]

_JSON = (b"content-type", b"application/json")
_PROBLEM = (b"content-type", b"application/problem+json")
#: On every answer of the server that does not bring its own word for it.
_SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_SECURITY_NAMES = frozenset(name for name, _ in _SECURITY)


async def send_bytes(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Send a whole answer; its length is added."""
    lines = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, status: int, data: Any) -> None:
    """Send plain data as JSON."""
    await send_bytes(send, status, json.dumps(data).encode(), (_JSON,))


async def send_problem(send: Send, error: errors.KeepflowError, headers: Headers = ()) -> None:
    """Send an intentional error as problem+json."""
    body = problem(error.http_status, error.code, error.message)
    await send_bytes(send, error.http_status, body, (_PROBLEM, *_told(error), *headers))


def problem(status: int, code: str, detail: str) -> bytes:
    """Return the body of a problem."""
    data = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "code": code, "detail": detail}
    return json.dumps(data).encode()


def _told(error: errors.KeepflowError) -> list[tuple[bytes, bytes]]:
    if isinstance(error, errors.TooMany):
        return [(b"retry-after", b"%d" % error.wait)]
    if error.http_status == HTTPStatus.SERVICE_UNAVAILABLE:
        return [(b"retry-after", b"10")]
    return []


class MethodRefused(errors.UsageError):
    """The address is right and the method is not."""

    http_status = HTTPStatus.METHOD_NOT_ALLOWED
    default_code = "method"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"this address takes {allowed} only")
        self.headers = ((b"allow", allowed.encode()),)


def allow(scope: Scope, *methods: str) -> None:
    """Return when the request has one of these methods; raises MethodRefused."""
    if scope["method"] not in methods:
        raise MethodRefused(", ".join(methods))


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the first header of a (lower-case) name."""
    return next((value for key, value in scope["headers"] if key == name), None)


class Answers:
    """Middleware: errors become answers, as long as nothing was sent yet, and a bug says nothing about itself; every
    answer carries the security headers, unless it has its own value for one.

    One layer for both, because every webhook passes through it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = False

        async def secured(message: Message) -> None:
            nonlocal began
            if not began:
                began = True
                message["headers"] = _secured(message["headers"])
            await send(message)

        try:
            await self._app(scope, receive, secured)
        except errors.KeepflowError as error:
            if began:
                raise
            await send_problem(secured, error, getattr(error, "headers", ()))
        except Exception:
            if began:
                raise
            log.exception("unexpected error", path=scope["path"])
            bug = errors.KeepflowError("this is a bug in keepflow; the server's log has the details", code="bug")
            await send_problem(secured, bug)


def _secured(headers: Headers) -> list[tuple[bytes, bytes]]:
    lines = list(headers)
    own = {name.lower() for name, _ in lines} & _SECURITY_NAMES
    lines += _SECURITY if not own else [pair for pair in _SECURITY if pair[0] not in own]
    return lines
