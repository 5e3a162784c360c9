"""Forges are told how runs stand: from the outbox of events, until they have taken it, and no run ever changes by it.

Which runs changed is read from the events that were committed, so a restart goes on where the last process stopped;
what is told is how the run stands when it is told, so a forge that was away hears the newest word only.
"""

from __future__ import annotations

import json
from typing import Any

import structlog
from sqlalchemy import Connection

from keepflow import errors
from keepflow.core import statuses as words
from keepflow.core.flows import NO_FLOW
from keepflow.core.states import Reason
from keepflow.core.statuses import CommitStatus, Request
from keepflow.core.text import one_line
from keepflow.crypto.vault import Vault
from keepflow.engine import clock
from keepflow.engine.context import Master
from keepflow.engine.woken import LONGEST_WAIT, Woken
from keepflow.store import events, projects, runs, settings, statuses
from keepflow.store.projects import Project, status_token_place
from keepflow.store.runs import Run
from keepflow.store.statuses import Wanted
from keepflow.store.writer import Tx
from keepflow.tools.http_post import Place, post
from keepflow.wire.desired import DesiredApi

log = structlog.get_logger(__name__)

_SEEN = "statuses-seen"  #: settings key; the last event that was looked at
_KINDS = ("run-created", "run-state")
_EVENTS_AT_ONCE, _ROWS_AT_ONCE = 200, 50
_TIMEOUT = 15  #: seconds
_WAITS = (5, 15, 60, 300, 900, 1800, 3600, 3600)  #: seconds before each further try; then it is given up


def sealed(conn: Connection, vault: Vault, name: str, status: DesiredApi | None) -> dict[str, Any] | None:
    """Return what the row of a project keeps: the token sealed, and the last event before it was set up."""
    if status is None:
        return None
    before = projects.by_name(conn, name)
    since = before.status["since"] if before and before.status else events.last_id(conn)
    token = vault.seal(status.token.encode(), status_token_place(name)).hex()
    return {**status.model_dump(mode="json"), "token": token, "since": since}


def opened(vault: Vault, project: Project) -> DesiredApi | None:
    """Return how a project's forge is told, None when it is not."""
    if project.status is None:
        return None
    token = vault.unseal(bytes.fromhex(project.status["token"]), status_token_place(project.name)).decode()
    return DesiredApi(**{name: project.status[name] for name in ("api", "ca_pem", "private")}, token=token)


def collect(master: Master, now: int) -> bool:
    """Note which runs are to be told of, from the events since the last time; say whether there may be more."""
    with master.database.read() as conn:
        seen: int | None = settings.get(conn, _SEEN)
        last = events.last_id(conn)
        since = {project.id: project.status["since"] for project in projects.every(conn) if project.status}
        found = events.of_kinds(conn, _KINDS, seen, _EVENTS_AT_ONCE) if seen is not None and since else []
        news = {one.run_id for one in found if one.run_id and one.id > since.get(one.project_id or 0, one.id)}
        standing = [runs.by_id(conn, run_id) for run_id in sorted(news)]
    more = len(found) == _EVENTS_AT_ONCE
    upto = found[-1].id if more else last

    def write(tx: Tx) -> None:
        for run in standing:
            statuses.want(tx.conn, run.id, run.project_id, words.verdict_of(run.state, run.reason_code), now)
        settings.put(tx.conn, _SEEN, upto)

    if standing or seen is None or more:
        master.writer.call(write)
    return more


def tell_due(master: Master, now: int) -> None:
    """Tell forges what is due; one that does not answer is asked again later, and keeps no other one waiting."""
    with master.database.read() as conn:
        waiting = statuses.due(conn, now, _ROWS_AT_ONCE)
    away = set[int]()
    for one in waiting:
        if one.project_id in away:
            continue
        with master.database.read() as conn:
            project, run = projects.by_id(conn, one.project_id), runs.by_id(conn, one.run_id)
            newest = runs.newest_of_flow(conn, run)
        if project.status is None or project.removed_at is not None or newest != run.id:
            _ended(master, one, one.told, "a newer run says more")
        elif not _tell(master, project, run, one):
            away.add(project.id)


def _tell(master: Master, project: Project, run: Run, one: Wanted) -> bool:
    """Tell one status and write down what became of it; False when its forge could not be told."""
    status, how = _status(master, project, run), opened(master.vault, project)
    try:
        if how is not None:
            request = master.forges[project.forge].set_status(project.repo, how.api, how.token, status)
            if request is not None:
                _send(request, how)
    except errors.KeepflowError as error:
        said, tries = one_line(error.message, 400), one.tries + 1
        log.warning("a forge was not told", project=project.name, run=run.number, reason=said, tries=tries)
        _failed(master, one, said, tries)
        return False
    _ended(master, one, status.verdict.value, "")
    return True


def _ended(master: Master, one: Wanted, told: str, said: str) -> None:
    master.writer.call(lambda tx: statuses.ended(tx.conn, one, told, said))


def _failed(master: Master, one: Wanted, said: str, tries: int) -> None:
    if tries > len(_WAITS):
        _ended(master, one, one.told, f"given up: {said}")
        return
    again = clock.now() + _WAITS[tries - 1] * 1_000_000
    master.writer.call(lambda tx: statuses.failed(tx.conn, one, said, again))


def _status(master: Master, project: Project, run: Run) -> CommitStatus:
    url = f"{master.url()}/projects/{project.name}/runs/{run.number}"
    flow = "" if run.flow == NO_FLOW else run.flow
    return words.status_of(run.event.tip, flow, run.state, Reason(run.reason_code, run.reason), url)


def _send(request: Request, how: DesiredApi) -> None:
    """POST it; raises RemoteError for anything but a 2xx, in words that hold neither token nor address."""
    try:
        place = Place.parse(request.url)
    except ValueError as error:
        raise errors.RemoteError(f"the address of the forge's API {error}") from None
    if not place.tls and not how.private:
        raise errors.RemoteError("the forge's API is asked over https only; `private: true` allows http")
    body = json.dumps(dict(request.body)).encode()
    answer = post(place, body, request.headers, timeout=_TIMEOUT, private=how.private, ca_pem=how.ca_pem)
    if not 200 <= answer.status < 300:
        raise errors.RemoteError(f"{place.host} answered {answer.status}")


class StatusSender:
    """Tells forges in a thread of its own."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._woken = Woken("statuses", master.wakes, self._turn, dict.fromkeys(("events", "projects")))

    def start(self) -> None:
        """Begin where the last process stopped."""
        self._woken.start()

    def stop(self, timeout: float) -> None:
        """Begin nothing more; what is being told ends with the process, and is told again by the next one."""
        self._woken.stop(timeout)

    def _turn(self) -> float:
        while collect(self._master, clock.now()):
            pass
        tell_due(self._master, clock.now())
        with self._master.database.read() as conn:
            following = statuses.next_due(conn)
        return LONGEST_WAIT if following is None else (following - clock.now()) / 1e6
