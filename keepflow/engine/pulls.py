"""Pull requests whose hooks were lost, found by the sweep; and those that are closed, for which nothing waits any more.

A remote shows the heads of all pull requests that ever were. Which of them are open, where they go and whose they are
is asked of the forge's API where the project has a token for it. Else what was told before still holds, and of one that
nobody told of the least is believed: it is a fork's, and goes into the main branch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import structlog

from keepflow import errors
from keepflow.core.events import Event, EventKind, Parsed
from keepflow.core.names import pull_request_number
from keepflow.core.states import Reason, State
from keepflow.engine import dispatch, hooking, runs, statuses
from keepflow.engine.context import Master
from keepflow.engine.forge_api import Caller, HookRefused
from keepflow.engine.mirrors import MAIN_BRANCHES
from keepflow.store import deliveries, heads
from keepflow.store import runs as stored_runs
from keepflow.store.projects import Project
from keepflow.store.writer import Tx
from keepflow.wire.desired import DesiredApi

log = structlog.get_logger(__name__)

_AT_ONCE = 20  #: pull requests that one sweep asks about


@dataclass(slots=True)
class Missed:
    """What a sweep found of pull requests: the events that were missed, heads that only have to be noted.

    `newest` is the highest number, when every one was looked at; None leaves the one before as it was.
    """

    events: list[Event] = field(default_factory=list)
    noted: dict[str, str] = field(default_factory=dict)
    newest: int | None = None


def missed(master: Master, project: Project, there: Mapping[str, str]) -> Missed:
    """Look which pull requests moved or came without their hook being heard; `there` is what the remote has.

    It waits for the forge, so it is not for the writer thread. The first time nothing is news but what was told before.
    """
    numbers = {ref: number for ref in there if (number := pull_request_number(ref)) is not None}
    with master.database.read() as conn:
        known, newest = heads.of_project(conn, project.id), heads.newest_pull(conn, project.id)
        api = hooking.wanted(conn, master.vault, project) or statuses.opened(master.vault, project)
    news = sorted(
        (number, ref)
        for ref, number in numbers.items()
        if known.get(ref) != there[ref] and (ref in known or (newest is not None and number > newest))
    )
    found = Missed(newest=max([newest or 0, *numbers.values()]) if len(news) <= _AT_ONCE else None)
    for number, ref in news[:_AT_ONCE]:
        try:
            event = _event(master, project, _Moved(ref, number, there[ref], known.get(ref)), there, api)
        except errors.KeepflowError as error:
            log.warning("a pull request is looked at later", project=project.name, ref=ref, reason=error.message)
            found.newest = None
            break
        if event is None:
            found.noted[ref] = there[ref]
        else:
            found.events.append(event)
    return found


@dataclass(frozen=True, slots=True)
class _Moved:
    """The head of a pull request that is at another commit than the one taken last."""

    ref: str
    number: int
    sha: str
    before: str | None


def _event(
    master: Master, project: Project, moved: _Moved, there: Mapping[str, str], api: DesiredApi | None
) -> Event | None:
    """Return what happened to a pull request, None when nothing that could be built: closed, or nowhere to go.

    Raises RemoteError when the forge is to be asked again.
    """
    place = master.forges[project.forge].pull_place(project.repo, api.api, api.token) if api else None
    if api and place:
        caller = Caller(place.headers, place.rights, (api.token,), private=api.private, ca_pem=api.ca_pem)
        try:
            answer = caller.call("GET", f"{place.url}/{moved.number}")
            event: Event | None = place.read(answer if isinstance(answer, Mapping) else {"state": "unknown"})
        except (HookRefused, errors.UsageError) as error:
            log.warning("a forge does not tell of a pull request", project=project.name, reason=error.message)
        else:
            return replace(event, before=moved.before) if event and event.ref == moved.ref else None
    with master.database.read() as conn:
        told = deliveries.last_event(conn, project.id, moved.ref)
    if told is not None:
        return replace(told, sha=moved.sha, before=moved.before, head="")
    target = next((main for main in MAIN_BRANCHES if main in there), None)
    if target is None:
        return None
    kind = EventKind.PULL_REQUEST
    return Event(kind, moved.ref, moved.sha, target=target, number=moved.number, fork=True, before=moved.before)


def closed(tx: Tx, master: Master, project: Project, delivery: int, parsed: Parsed, now: int) -> None:
    """End what waits for a pull request of which a delivery says that it is closed; what is at work goes on.

    What was told of it before and was not looked at yet starts nothing, and the sweep does not find it anew.
    """
    event, sentence = parsed.closed, parsed.sentence
    if event is None:
        return
    decision = {"sentence": sentence, "runs": [], "not": {}}
    deliveries.decide_before(tx.conn, project.id, event.ref, delivery, decision, now)
    heads.put(tx.conn, project.id, event.ref, event.sha, now)
    for run in stored_runs.waiting_of_ref(tx.conn, project.id, event.ref):
        runs.stop(tx, master, run, State.CANCELLED, Reason("pull-request-closed", sentence), now)
        dispatch.ended(tx, master, run, now)
