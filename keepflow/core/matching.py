"""From an event to flows: which of them it starts and why, and why not the others."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from keepflow.core.events import Event, EventKind
from keepflow.core.flows import Flow, FlowFile, Trigger
from keepflow.core.patterns import Verdict, decide, decide_path
from keepflow.core.states import Reason
from keepflow.core.text import quoted

_SKIP = re.compile(r"\[(skip ci|ci skip|no ci|skip-ci|ci-skip)\]", re.IGNORECASE)
#: Committer of what keepflow itself commits, and of what scripts commit that set no identity of their own.
OWN_NAME, OWN_EMAIL = "keepflow", "keepflow@keepflow.invalid"
#: Tags below this are keepflow's own.
OWN_TAGS = "keepflow/"


@dataclass(frozen=True, slots=True)
class Changes:
    """The files that differ between a commit and what was taken before it; `unknown` says why nobody can tell."""

    files: tuple[str, ...] = ()
    unknown: str = ""


NOBODY_SAID = Changes(unknown="nobody said what changed")


@dataclass(frozen=True, slots=True)
class Match:
    """A flow that an event starts, and the sentence that says why."""

    flow: str
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What an event comes to: flows that start, and a sentence for every flow that does not.

    `reason` is set when nothing starts.
    """

    matches: tuple[Match, ...] = ()
    why_not: dict[str, str] = field(default_factory=dict)
    reason: Reason | None = None


def match(event: Event, flow_file: FlowFile, changes: Changes = NOBODY_SAID) -> Decision:
    """Send an event to the flows it matches; every flow gets its sentence."""
    matches: list[Match] = []
    why_not: dict[str, str] = {}
    for flow in flow_file.flows.values():
        starts, why = _answer(event, flow)
        if starts and _asks_paths(event, flow.on):
            starts, of_paths = _by_paths(flow.on, changes)
            why = f"{why}; {of_paths}" if starts else of_paths
        if starts:
            matches.append(Match(flow.name, why))
        else:
            why_not[flow.name] = why
    reason = None if matches else Reason("no-match", f"no flow starts for {_happening(event)}")
    return Decision(tuple(matches), why_not, reason)


def asks_what_changed(event: Event, flow_file: FlowFile) -> bool:
    """Say whether some flow could be decided by the files that changed."""
    return any(_asks_paths(event, flow.on) for flow in flow_file.flows.values())


def skip_word(message: str) -> str | None:
    """Return the word that asks to skip (`[skip ci]` and its kin, any case), or None."""
    found = _SKIP.search(message)
    return found[0].lower() if found else None


def own_work(event: Event, signed_by: str) -> str | None:
    """Return the sentence that says keepflow made this commit or tag itself, so that nothing starts; else None.

    `signed_by` is the e-mail of the commit's committer, or of the tagger of an annotated tag.
    """
    if event.kind == EventKind.TAG and event.tag and event.tag.startswith(OWN_TAGS):
        return f"keepflow made this tag itself (its name begins with {OWN_TAGS}), so nothing starts"
    if event.kind in (EventKind.PUSH, EventKind.TAG) and signed_by == OWN_EMAIL:
        noun = "tag" if event.kind == EventKind.TAG else "commit"
        return f"keepflow made this {noun} itself ({OWN_EMAIL}), so nothing starts"
    return None


def _answer(event: Event, flow: Flow) -> tuple[bool, str]:
    on = flow.on
    match event.kind:
        case EventKind.PUSH:
            return _by_name("branch", event.branch, "push", on.push)
        case EventKind.TAG:
            return _by_name("tag", event.tag, "tag", on.tag)
        case EventKind.PULL_REQUEST:
            return _by_switch("pull_request", on.pull_request)
        case EventKind.MANUAL:
            return _by_switch("manual", on.manual)
        case EventKind.SCHEDULE:
            return _by_clock(event, flow)


def _by_name(noun: str, name: str | None, key: str, patterns: tuple[str, ...]) -> tuple[bool, str]:
    if name is None:
        return False, f"the {key} names no {noun}"
    if not patterns:
        return False, f"its 'on' does not name {key}"
    verdict: Verdict = decide(patterns, name)
    if verdict.by is None:
        return False, f"{noun} {quoted(name)} fits none of {key}: {', '.join(patterns)}"
    if not verdict.selected:
        return False, f"{noun} {quoted(name)} is taken out by {key}: {verdict.by}"
    return True, f"{noun} {quoted(name)} fits {key}: {verdict.by}"


def _by_switch(key: str, on: bool) -> tuple[bool, str]:
    return (True, f"its 'on' names {key}") if on else (False, f"its 'on' does not name {key}")


def _by_clock(event: Event, flow: Flow) -> tuple[bool, str]:
    starts, why = _by_switch("schedule", bool(flow.on.cron))
    if starts and event.flow not in ("", flow.name):
        return False, "it was another flow's time"
    return starts, event.note if starts and event.note else why


def _asks_paths(event: Event, on: Trigger) -> bool:
    return event.kind in (EventKind.PUSH, EventKind.PULL_REQUEST) and bool(on.paths or on.paths_ignore)


def _by_paths(on: Trigger, changes: Changes) -> tuple[bool, str]:
    """Say whether one changed file counts: it fits `paths` (when given) and is not taken out by `paths_ignore`."""
    if changes.unknown:
        return True, f"its paths are not asked, for {changes.unknown}"
    ignored = 0
    for name in changes.files:
        wanted = decide_path(on.paths, name) if on.paths else Verdict(True)
        if not wanted.selected:
            continue
        if decide_path(on.paths_ignore, name).selected:
            ignored += 1
            continue
        return True, f"{quoted(name)} changed" + (f" and fits paths: {wanted.by}" if wanted.by else "")
    count = len(changes.files)
    if not count:
        return False, "no file changed"
    files = f"the only changed file, {quoted(changes.files[0])}," if count == 1 else f"each of {count} changed files"
    if ignored == count:
        return False, f"{files} is left out by paths_ignore: {', '.join(on.paths_ignore)}"
    files = files if count == 1 else f"none of {count} changed files"
    verb = "fits none of" if count == 1 else "fits"
    rest = " without being left out by paths_ignore" if ignored else ""
    return False, f"{files} {verb} paths: {', '.join(on.paths)}{rest}"


def _happening(event: Event) -> str:
    if event.branch is not None and event.kind == EventKind.PUSH:
        return f"a push to branch {quoted(event.branch)}"
    if event.tag is not None and event.kind == EventKind.TAG:
        return f"tag {quoted(event.tag)}"
    return f"{event.kind.value.replace('_', ' ')} at {quoted(event.ref)}"
