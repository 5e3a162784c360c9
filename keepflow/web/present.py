"""How things are shown: Jinja filters for states, times, commits, digests and links; what they return is safe."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from flask import Flask, url_for
from markupsafe import Markup, escape

from keepflow.core import exits
from keepflow.core.text import one_line

#: Where forges keep the head of a pull request.
_PULL_REQUEST = re.compile(r"refs/(?:pull|merge-requests)/(\d+)/head")


class Badge(NamedTuple):
    """How one state looks: a tone (CSS class), an icon of the sprite, and its word."""

    tone: str
    icon: str
    word: str


_BADGES = {
    "queued": Badge("wait", "clock", "queued"),
    "waiting": Badge("wait", "pause", "waiting"),
    "running": Badge("run", "play", "running"),
    "succeeded": Badge("good", "check", "succeeded"),
    "failed": Badge("bad", "cross", "failed"),
    "cancelled": Badge("mute", "stop", "cancelled"),
    "skipped": Badge("mute", "skip", "skipped"),
    "superseded": Badge("mute", "layers", "superseded"),
    "lost": Badge("bad", "question", "lost"),
    "done": Badge("good", "check", "done"),
    "reverted": Badge("bad", "undo", "reverted"),
    "unknown": Badge("bad", "question", "unknown"),
    "offered": Badge("wait", "clock", "offered"),
}


def badge(state: str) -> Badge:
    """Return how a state of a run or job, or a phase of a deployment, looks; a phase under way counts as running."""
    return _BADGES.get(str(state), Badge("run", "play", str(state)))


def icon(name: str) -> Markup:
    """Return one icon of the sprite; it repeats a word beside it, so it is hidden from screen readers."""
    address = url_for("static_file", name="icons.svg")
    return Markup('<svg class="icon" aria-hidden="true"><use href="{}#{}"></use></svg>').format(address, name)


def state_mark(state: str) -> Markup:
    """Return a state as icon and word."""
    look = badge(state)
    return Markup('<span class="state {}">{}{}</span>').format(look.tone, icon(look.icon), look.word)


def moment(micros: int | None) -> Markup:
    """Return a time; the browser shows it in the viewer's own zone, relative to now."""
    if micros is None:
        return Markup('<span class="faint">never</span>')
    at = datetime.fromtimestamp(micros / 1e6, UTC)
    form = Markup('<time datetime="{}" title="{}">{}</time>')
    utc = at.strftime("%Y-%m-%d %H:%M:%S UTC")
    return form.format(at.isoformat(timespec="milliseconds"), utc, at.strftime("%Y-%m-%d %H:%M UTC"))


def seconds(value: float | None) -> str:
    """Return a length of time in the two units that matter: `850 ms`, `4.2 s`, `3 m 20 s`, `2 h 5 m`, `3 d 4 h`."""
    if value is None:
        return ""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(int(value), 60)
    if minutes < 60:
        return f"{minutes} m {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} m" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def took(start: int | None, end: int | None) -> Markup:
    """Return how long something took, or a counter that runs in the browser while it has no end."""
    if start is None:
        return Markup("")
    if end is not None:
        return escape(seconds((end - start) / 1e6))
    return Markup('<span data-running-since="{}"></span>').format(start // 1000)


def commit_id(sha: str | None) -> str:
    """Return a commit id short enough to read aloud."""
    return (sha or "")[:7]


def digest_id(identity: str | None) -> str:
    """Return an image identity short enough to compare by eye."""
    return (identity or "").removeprefix("sha256:")[:12]


def subject(message: str | None) -> str:
    """Return the first line of a commit message, fit for one line of a page."""
    return one_line((message or "").strip().partition("\n")[0], 120) or "(no message)"


def ref_name(ref: str) -> str:
    """Return a branch or tag name without the ref's first parts, and a pull request by its number."""
    found = _PULL_REQUEST.fullmatch(ref)
    return f"#{found[1]}" if found else one_line(ref.removeprefix("refs/heads/").removeprefix("refs/tags/"), 80)


def sentence_case(text: str) -> str:
    """Return a sentence with its first letter large; names inside stay as they are."""
    return text[:1].upper() + text[1:]


def link(url: str | None) -> str | None:
    """Return an address from outside only when following it is safe: http or https with a host, else None."""
    try:
        parts = urlsplit(url or "")
    except ValueError:
        return None
    return url if parts.scheme in ("http", "https") and parts.hostname else None


def with_code(text: str) -> Markup:
    """Return a text whose words in backticks are shown as code; all of it is text, whoever wrote it."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        return escape(text)
    shown = (Markup("<code>{}</code>").format(piece) if at % 2 else escape(piece) for at, piece in enumerate(pieces))
    return Markup("").join(shown)


def install(app: Flask) -> None:
    """Give templates these filters."""
    filters: dict[str, Any] = {
        "badge": badge,
        "state": state_mark,
        "moment": moment,
        "seconds": seconds,
        "commit": commit_id,
        "digest": digest_id,
        "subject": subject,
        "ref": ref_name,
        "link": link,
        "line": one_line,
        "capitalize_first": sentence_case,
        "exit_meaning": exits.meaning,
        "with_code": with_code,
    }
    app.jinja_env.filters.update(filters)
    app.jinja_env.globals.update(icon=icon, took=took)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
