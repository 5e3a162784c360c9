"""What an event says to people: its words, and the notice that is made of it; read from the database as it is now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from keepflow.core import ansi
from keepflow.core.notices import Notice, Word, words_of_run
from keepflow.core.states import FINAL, Phase, State
from keepflow.core.text import one_line
from keepflow.engine.context import Master
from keepflow.store import deployments, environments, jobs, projects, releases, runs
from keepflow.store.environments import Environment
from keepflow.store.events import StoredEvent
from keepflow.store.projects import Project
from keepflow.store.runs import Run

_EXCERPT_LINES, _EXCERPT_BYTES = 30, 16 * 1024


@dataclass(frozen=True, slots=True)
class Told:
    """An event in the words of people, and the words that channels choose by."""

    words: frozenset[Word]
    project: str
    notice: Notice


def told(conn: Connection, master: Master, event: StoredEvent) -> Told | None:
    """Say what an event means to people; None when it is nothing to be told of."""
    teller = _TELLERS.get(event.kind)
    if teller is None or event.project_id is None:
        return None
    return teller(conn, master, event, projects.by_id(conn, event.project_id))


def _run_ended(conn: Connection, master: Master, event: StoredEvent, project: Project) -> Told | None:
    state = State(event.data["state"])
    if state not in FINAL or event.run_id is None:
        return None
    run = runs.by_id(conn, event.run_id)
    before = runs.judged_before(conn, run)
    words = words_of_run(state, before.state if before else None)
    if any(found.phase == Phase.REVERTED for found in deployments.of_run(conn, run.id)):
        words -= {Word.BROKEN}  # that it was put back is told by itself
    word = next((word for word in (Word.BROKEN, Word.RECOVERED, Word.FAILED, Word.FINISHED) if word in words), None)
    if word is None:
        return None
    ended = {Word.BROKEN: "is broken", Word.RECOVERED: "is good again"}.get(word, state.value)
    title = f"{project.name} {run.flow} #{run.number} {ended} ({_commit(run)})"
    excerpt = _excerpt(conn, master, run) if state is State.FAILED else ""
    lines = (event.data["reason"], run.message.partition("\n")[0])
    facts = {"run": run.number, "flow": run.flow, "state": state.value, "ref": run.ref, "sha": run.sha}
    url = _run_url(master, project, run.number)
    thread = f"{project.name}/{run.flow}/{run.ref}"
    return _made(event, project, words, word, title, lines, url, thread, facts, excerpt)


def _flow_asked(conn: Connection, master: Master, event: StoredEvent, project: Project) -> Told | None:
    if event.run_id is None:
        return None
    run = runs.by_id(conn, event.run_id)
    states: Mapping[str, str] = event.data["jobs"]
    bad = [key for key, state in states.items() if state in (State.FAILED, State.LOST)]
    so_far = f"{', '.join(bad)} failed" if bad else "all well"
    title = f"{project.name} {run.flow} #{run.number}: {so_far} ({_commit(run)})"
    lines = (*(f"{key}: {state}" for key, state in states.items()), run.message.partition("\n")[0])
    facts = {"run": run.number, "flow": run.flow, "jobs": dict(states), "ref": run.ref, "sha": run.sha}
    excerpt = _excerpt(conn, master, run) if bad else ""
    url, thread = _run_url(master, project, run.number), f"{project.name}/{run.flow}/{run.ref}"
    return _made(event, project, frozenset({Word.FLOW}), Word.FLOW, title, lines, url, thread, facts, excerpt)


def _question_asked(conn: Connection, master: Master, event: StoredEvent, project: Project) -> Told | None:
    if event.run_id is None:
        return None
    run = runs.by_id(conn, event.run_id)
    key, question = event.data["job"], event.data["question"]
    title = f"{project.name} {run.flow} #{run.number} asks: {question} ({_commit(run)})"
    lines = (f"keepflow approve {project.name}#{run.number} {key}", run.message.partition("\n")[0])
    facts = {"run": run.number, "flow": run.flow, "job": key, "question": question, "ref": run.ref, "sha": run.sha}
    url, thread = _run_url(master, project, run.number), f"{project.name}/{run.flow}/{run.ref}"
    return _made(event, project, frozenset({Word.APPROVAL}), Word.APPROVAL, title, lines, url, thread, facts, "")


def _of_environment(
    word: Word, title: str, *names: str
) -> Callable[[Connection, Master, StoredEvent, Project], Told | None]:
    """Return the teller of an event about an environment; `names` are those of its data that are told as lines."""

    def teller(conn: Connection, master: Master, event: StoredEvent, project: Project) -> Told | None:
        if event.environment_id is None:
            return None
        environment = environments.by_id(conn, event.environment_id)
        if word is Word.DEPLOYED and environment.promote_from is None:
            return None
        return _about(conn, master, event, project, environment, word, title, names)

    return teller


def _about(
    conn: Connection,
    master: Master,
    event: StoredEvent,
    project: Project,
    environment: Environment,
    word: Word,
    title: str,
    names: tuple[str, ...],
) -> Told:
    facts: dict[str, Any] = {"environment": environment.name}
    where = f"{project.name} {environment.name}"
    deployment = deployments.by_id(conn, event.deployment_id) if event.deployment_id else None
    lines = [str(event.data[name]) for name in names if event.data.get(name)]
    if deployment is not None:
        run = runs.by_id(conn, releases.by_id(conn, deployment.release_id).run_id)
        facts |= {"deployment": deployment.id, "identity": deployment.identity, "host": deployment.host}
        facts |= {"release": run.number, "sha": run.sha}
        lines += [deployment.reason] if deployment.reason not in ("", *lines) else []
        lines += [f"#{run.number} {run.message.partition(chr(10))[0]} ({_commit(run)})"]
        lines += [f"asked for by {deployment.requested_by}"]
    if event.actor:
        facts["actor"] = event.actor
    said = title.format(who=event.actor or "keepflow", run=event.data.get("run", ""))
    url = f"{master.url()}/projects/{project.name}/environments"
    return _made(event, project, frozenset({word}), word, f"{where} {said}", tuple(lines), url, where, facts, "")


def _made(
    event: StoredEvent,
    project: Project,
    words: frozenset[Word],
    word: Word,
    title: str,
    lines: tuple[str, ...],
    url: str,
    thread: str,
    facts: Mapping[str, Any],
    excerpt: str,
) -> Told:
    shown = tuple(one_line(line, 600) for line in lines if line.strip())
    whole = {"project": project.name, "event": event.kind, **facts}
    made = Notice("", word, one_line(title, 200), shown, url, thread, event.at, whole, excerpt)
    return Told(words, project.name, made)


def _commit(run: Run) -> str:
    branch = run.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
    return f"{branch}@{run.sha[:7]}{f' by {run.actor}' if run.actor else ''}"


def _run_url(master: Master, project: Project, number: int) -> str:
    return f"{master.url()}/projects/{project.name}/runs/{number}"


def _excerpt(conn: Connection, master: Master, run: Run) -> str:
    """Return the end of the log of the first attempt that failed; it was masked before it came to the disk."""
    found = next((one for one in jobs.attempts_of_run(conn, run.id) if one.state == State.FAILED), None)
    if found is None:
        return ""
    size = master.logs.size(found.log_path)
    data = master.logs.read(found.log_path, max(0, size - _EXCERPT_BYTES), _EXCERPT_BYTES)
    rows = ansi.plain(data.decode(errors="replace")).rstrip().split("\n")
    return "\n".join(one_line(row, 300) for row in rows[-_EXCERPT_LINES:])


_TELLERS: Mapping[str, Callable[[Connection, Master, StoredEvent, Project], Told | None]] = {
    "run-state": _run_ended,
    "notify-asked": _flow_asked,
    "approval-asked": _question_asked,
    "deployment-done": _of_environment(Word.DEPLOYED, "serves a new release, asked for by {who}"),
    "deployment-reverted": _of_environment(Word.REVERTED, "was put back to what it served"),
    "deployment-unknown": _of_environment(Word.UNKNOWN, "has a deployment whose end nobody knows"),
    "deployment-settled": _of_environment(Word.UNKNOWN, "had its deployment settled by {who}"),
    "release-quarantined": _of_environment(Word.QUARANTINE, "has a release under quarantine", "sentence"),
    "drift-began": _of_environment(Word.DRIFT, "serves something else than was deployed", "host", "sentence"),
    "break-glass": _of_environment(Word.BREAK_GLASS, "is deployed to outside the rules by {who}", "reason"),
    "gate-opened": _of_environment(Word.APPROVAL, "has #{run} waiting for approval", "identity"),
}
KINDS = frozenset(_TELLERS)  #: kinds of events that may be told
