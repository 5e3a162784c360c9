"""The headers every answer carries, and the session cookie."""

from __future__ import annotations

from flask import Response, request

from keepflow.engine import people as rules
from keepflow.web.state import web

CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    )
)
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: browsers then send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def secure(response: Response) -> Response:
    """Put the security headers on an answer; registered as an `after_request`."""
    for name, value in _ALWAYS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Content-Security-Policy", CSP)
    if web().master.url().startswith("https:"):
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    if request.endpoint != "static_file":
        response.headers.setdefault("Cache-Control", "no-store")
        response.vary.update(("Cookie", "Authorization"))
    return response


def set_session(response: Response, cookie: str) -> None:
    """Give a browser its session."""
    url = web().master.url()
    https = url.startswith("https:")
    response.set_cookie(rules.cookie_name(url), cookie, path="/", secure=https, httponly=True, samesite="Lax")


def drop_session(response: Response) -> None:
    """Take a browser's session away."""
    url = web().master.url()
    https = url.startswith("https:")
    response.delete_cookie(rules.cookie_name(url), path="/", secure=https, httponly=True, samesite="Lax")
