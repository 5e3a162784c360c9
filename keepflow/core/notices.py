"""Notices: what somebody is told of, in words that no text from outside can turn into anything but words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from html import escape
from typing import Any

from keepflow.core.states import State
from keepflow.core.text import one_line

_SECOND = 1_000_000
_WAITS = (10, 30, 120, 600, 1800, 3600)  #: seconds until the next try; the last one repeats
GIVEN_UP_AFTER = 24 * 3600 * _SECOND  #: microseconds after which a notice that nobody takes is given up
_LINE = 600  #: characters of one line
_SUBJECT = 200
_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


class Word(StrEnum):
    """What a channel may be told of: the words under `on:` in the server file."""

    FAILED = "failed"  #: a run failed, each time
    FINISHED = "finished"  #: a run ended, however
    BROKEN = "broken"  #: a run failed, and the one before it on that branch did not
    RECOVERED = "recovered"  #: a run succeeded, and the one before it on that branch did not
    DEPLOYED = "deployed"  #: an environment that is promoted to serves something else
    REVERTED = "reverted"  #: a deployment was put back
    UNKNOWN = "unknown"  #: nobody knows how a deployment ended
    QUARANTINE = "quarantine"  #: a release did badly and does not go there again
    DRIFT = "drift"  #: something else serves than was deployed
    BREAK_GLASS = "break-glass"  #: somebody deployed outside the rules
    APPROVAL = "approval"  #: a release or a flow waits for a person
    FLOW = "flow"  #: a `notify:` job asked for it; needs no word under `on:`


#: What is told when a channel does not say: what changed, and what needs somebody; not every green run.
USUAL = frozenset(Word) - {Word.FAILED, Word.FINISHED, Word.FLOW}
CHOICES = frozenset(Word) - {Word.FLOW}


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell. `delivery` is the same on every try, `thread` on all that belongs together."""

    delivery: str
    word: str
    title: str
    lines: tuple[str, ...]
    url: str
    thread: str
    at: int
    facts: Mapping[str, Any] = field(default_factory=dict)  #: the same, for programs
    excerpt: str = ""  #: the end of a log

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "lines": list(self.lines),
            "facts": dict(self.facts),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Notice:
        """Read what `to_json` made."""
        return cls(**{**data, "lines": tuple(data["lines"])})


def is_address(text: str) -> bool:
    """Say whether a text is a mail address that can stand in a header and names one mailbox."""
    return _ADDRESS.fullmatch(text) is not None


def subject(notice: Notice) -> str:
    """Return the one line a notice is known by."""
    return one_line(f"[keepflow] {notice.title}", _SUBJECT)


def as_text(notice: Notice) -> str:
    """Return a notice as plain text."""
    parts = [one_line(notice.title, _SUBJECT), *(one_line(line, _LINE) for line in notice.lines), notice.url]
    return "\n".join([*parts, *(["", notice.excerpt.rstrip()] if notice.excerpt else [])]) + "\n"


def as_html(notice: Notice) -> str:
    """Return a notice as HTML in which only keepflow's own tags are tags."""
    lines = "".join(f"<p>{escape(one_line(line, _LINE))}</p>" for line in notice.lines)
    end = f"<pre>{escape(notice.excerpt.rstrip())}</pre>" if notice.excerpt else ""
    link = f'<p><a href="{escape(notice.url)}">{escape(notice.url)}</a></p>'
    title = escape(one_line(notice.title, _SUBJECT))
    return f"<!doctype html><html><body><h3>{title}</h3>{lines}{link}{end}</body></html>\n"


def words_of_run(state: State, before: State | None) -> frozenset[Word]:
    """Return what the end of a run is to those who listen; `before` is how the one before it on its branch ended."""
    bad, was_bad = _is_bad(state), before is not None and _is_bad(before)
    if bad:
        return frozenset({Word.FAILED, Word.FINISHED} | (set() if was_bad else {Word.BROKEN}))
    if state is State.SUCCEEDED:
        return frozenset({Word.FINISHED} | ({Word.RECOVERED} if was_bad else set()))
    return frozenset({Word.FINISHED}) if state is State.CANCELLED else frozenset()


def _is_bad(state: State) -> bool:
    return state in (State.FAILED, State.LOST)


def next_try(tries: int, made_at: int, now: int) -> int | None:
    """Return when to try again after so many tries that failed, None when it is given up."""
    wait = _WAITS[min(tries, len(_WAITS)) - 1] * _SECOND
    return now + wait if now + wait - made_at <= GIVEN_UP_AFTER else None
