"""How the command line writes: data to stdout, everything else to stderr, nothing that could fool a terminal."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from keepflow.cli.places import terminal
from keepflow.core.text import one_line
from keepflow.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])
_COLOURS = {
    "succeeded": "green",
    "done": "green",
    "online": "green",
    "failed": "red",
    "reverted": "red",
    "lost": "red",
    "unknown": "red",
    "offline": "red",
    "running": "blue",
    "queued": "yellow",
    "waiting": "yellow",
}

as_json = click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json"]), default="table", help="What to print."
)


def print_json(data: Any) -> None:
    """Print data as the API gave it."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a header, columns aligned; the last column takes what it needs."""
    cells = [[one_line(cell, 200) for cell in row] for row in rows]
    widths = [max((_width(row[column]) for row in [header, *cells]), default=0) for column in range(len(header))]
    click.secho(_line(header, widths, list(header)), bold=True)
    for row in cells:
        click.echo(_line(row, widths, [painted(cell) for cell in row]))


def _line(plain: Sequence[str], widths: Sequence[int], shown: Sequence[str]) -> str:
    padded = [text + " " * (width - _width(raw)) for raw, width, text in zip(plain, widths, shown, strict=True)]
    return "  ".join(padded).rstrip()


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def painted(word: str) -> str:
    """Return a state in its colour; click drops the colour when stdout is no terminal."""
    return click.style(word, fg=_COLOURS[word]) if word in _COLOURS else word


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and values in two columns; empty values are left out."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{click.style(name.ljust(width), dim=True)}  {painted(one_line(value, 400))}")


def say(text: str) -> None:
    """Tell a person something on stderr."""
    click.echo(text, err=True)


def when(text: str | None) -> str:
    """Return an API time as a person reads it, in this machine's zone."""
    if not text:
        return ""
    return _time(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def took(start: str | None, end: str | None) -> str:
    """Return the seconds between two API times; until now when there is no end yet."""
    if not start:
        return ""
    seconds = ((_time(end) if end else datetime.now(UTC)) - _time(start)).total_seconds()
    return f"{seconds:.1f}s" if seconds < 60 else f"{int(seconds) // 60}m{int(seconds) % 60:02}s"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def subject(message: str) -> str:
    """Return the first line of a commit message."""
    return one_line(message.strip().partition("\n")[0], 60)


def short(identity: str | None) -> str:
    """Return an image identity short enough to compare by eye."""
    return (identity or "").removeprefix("sha256:")[:12]


def ask_typed(question: str, expected: str, flag: str) -> None:
    """Ask a person to type a word; raises UsageError naming the flag when nobody can answer, or the word is another."""
    if not terminal(sys.stdin) or not terminal(sys.stderr):
        raise UsageError(f"nobody can answer here; give {flag} to do it without asking", code="no-terminal")
    if click.prompt(question, err=True, default="", show_default=False).strip() != expected:
        raise UsageError(f"not confirmed: that was not {expected!r}; nothing was done", code="not-confirmed")
