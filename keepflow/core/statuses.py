"""What a forge is told about a commit: one state per context, with a sentence and a link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import quote, urlsplit

from keepflow.core.states import LIVE, Reason, State
from keepflow.core.text import one_line

#: Codes of failures that are nobody's code: keepflow or a machine, not the script.
_NOT_THE_CODE = frozenset({"system", "lost", "broken", "config", "no-flow-file", "merge-conflict"})
_SHOWN = 140  #: characters of a sentence that every forge shows


class Verdict(StrEnum):
    """The states that every forge has a word for."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"  #: the script said no
    ERROR = "error"  #: it came to no end of its own: cancelled, superseded, keepflow or a machine failed


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """One status; `context` tells the flows of a commit apart, `description` is one short line."""

    sha: str
    verdict: Verdict
    context: str
    description: str
    url: str


@dataclass(frozen=True, slots=True)
class Request:
    """One POST of JSON that tells it to a forge."""

    url: str
    body: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)


def status_of(sha: str, flow: str, state: State, reason: Reason, url: str) -> CommitStatus:
    """Return what is told of a run of a flow; `flow` is empty when a commit has none that could be read."""
    context = f"keepflow/{flow}" if flow else "keepflow"
    return CommitStatus(sha, verdict_of(state, reason.code), context, _described(state, reason), url)


def verdict_of(state: State, code: str) -> Verdict:
    """Return the word for a state; what was skipped on purpose is no failure, and nothing waits for it."""
    if state in LIVE:
        return Verdict.PENDING
    if state in (State.SUCCEEDED, State.SKIPPED):
        return Verdict.SUCCESS
    return Verdict.FAILURE if state is State.FAILED and code not in _NOT_THE_CODE else Verdict.ERROR


def place_of(repo: str, api: str, path: str, hosts: Mapping[str, str] | None = None) -> tuple[str, str] | None:
    """Return the address of a forge's API and the repository's name there (`owner/name`), by the repository's address.

    `api` is the address as it was set, "" for the usual one: `path` on the same host, but for the `hosts` that have it
    elsewhere. None for a repository that is on no forge.
    """
    host, name = _parts(repo)
    if not host or not name:
        return None
    return api or (hosts or {}).get(host, f"https://{host}{path}"), name


def quoted_path(text: str, safe: str = "") -> str:
    """Return a text as it may stand in the path of an address."""
    return quote(text, safe=safe)


def _parts(repo: str) -> tuple[str, str]:
    """Split `https://host/owner/name.git`, `ssh://git@host:22/owner/name` or `git@host:owner/name` in host and path."""
    if "://" in repo:
        address = urlsplit(repo)
        host, path = address.hostname or "", address.path
    else:
        before, _, path = repo.partition(":")
        host = before.rpartition("@")[2] if path and "/" not in before else ""
    return host, path.strip("/").removesuffix(".git")


def _described(state: State, reason: Reason) -> str:
    said = reason.sentence if state not in (State.SUCCEEDED, State.RUNNING) else ""
    return one_line(f"{state.value}: {said}" if said else state.value, _SHOWN)
