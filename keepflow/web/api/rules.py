"""What people say beside the promote itself: marks, locks, gates opened anew, broken glass followed up."""

from __future__ import annotations

from keepflow.core.marks import Verdict
from keepflow.engine import breakglass, gates, locking, marks, promoting
from keepflow.engine import people as rights
from keepflow.errors import UsageError
from keepflow.store import breakglass as stored
from keepflow.store import environments
from keepflow.store.environments import Environment
from keepflow.store.writer import Tx
from keepflow.web.answers import deployments as answers
from keepflow.web.answers import rules
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.state import caller, current_project, reading, web
from keepflow.wire import api

endpoints = Endpoints("Rules")


@endpoints.add("GET", "/projects/<project>/environments/<environment>/marks", "see", api.Marks)
def list_marks(environment: str) -> api.Marks:
    """List what testers said of what an environment serves."""
    return api.Marks(items=rules.marks(reading(), _place(environment)))


@endpoints.add(
    "POST",
    "/projects/<project>/environments/<environment>/marks",
    "tested",
    api.Mark,
    body=api.MarkRequest,
    status=201,
)
def add_mark(environment: str, body: api.MarkRequest) -> api.Mark:
    """Mark a deployment tested, or reject it."""
    if body.run is not None and body.deployment is not None:
        raise UsageError("name a run or a deployment, not both", code="one-source")
    return say(environment, body)


def say(environment: str, body: api.MarkRequest) -> api.Mark:
    """Mark as the caller; page and API do the same here."""
    place, now, master = _place(environment), web().now(), web().master
    project, who = current_project(), answers.presser(reading(), caller().user, current_project())
    release = promoting.find_release(reading(), project, str(body.run)).id if body.run is not None else None
    made = master.writer.call(
        lambda tx: marks.mark(
            tx,
            master,
            place,
            verdict=Verdict(body.verdict),
            person=who.name,
            groups=who.groups,
            note=body.note,
            deployment=body.deployment,
            release_id=release,
            now=now,
        )
    )
    return rules.mark(made)


@endpoints.add("PUT", "/projects/<project>/environments/<environment>/lock", "lock", api.Lock, body=api.LockRequest)
def lock(environment: str, body: api.LockRequest) -> api.Lock:
    """Lock an environment: nothing new is deployed to it until it is unlocked."""
    return hold(environment, body.why)


def hold(environment: str, why: str) -> api.Lock:
    """Lock as the caller; page and API do the same here."""
    place, by, now, master = _place(environment), caller().user.name, web().now(), web().master

    def work(tx: Tx) -> Environment:
        locking.lock(tx, master, environments.by_id(tx.conn, place.id), why, by, now)
        return environments.by_id(tx.conn, place.id)

    return rules.lock(master.writer.call(work))


@endpoints.add("DELETE", "/projects/<project>/environments/<environment>/lock", "lock", api.Lock)
def unlock(environment: str) -> api.Lock:
    """Unlock an environment: whoever holds it, or an admin."""
    place, user, now, master = _place(environment), caller().user, web().now(), web().master
    admin = rights.may(reading(), user, current_project().id, "roles")

    def work(tx: Tx) -> Environment:
        locking.unlock(tx, master, environments.by_id(tx.conn, place.id), user.name, admin, now)
        return environments.by_id(tx.conn, place.id)

    return rules.lock(master.writer.call(work))


@endpoints.add(
    "POST", "/projects/<project>/environments/<environment>/gate", "promote", api.Gate, body=api.GateRequest, status=201
)
def open_gate(environment: str, body: api.GateRequest) -> api.Gate:
    """Open the gate anew for a release whose gate lapsed or was superseded; the promote checks every rule again."""
    place, project, by, now = _place(environment), current_project(), caller().user.name, web().now()
    release = promoting.find_release(reading(), project, body.source)

    def work(tx: Tx) -> api.Gate | None:
        gates.open_anew(tx, place, release, by, now)
        return rules.gate(tx.conn, project, place)

    opened = web().master.writer.call(work)
    if opened is None:
        raise LookupError("a gate that was just opened is not there")
    return opened


@endpoints.add("GET", "/projects/<project>/break-glass", "see", api.BrokenGlasses)
def list_break_glass() -> api.BrokenGlasses:
    """List the deployments outside the rules that nobody has acknowledged yet."""
    return api.BrokenGlasses(items=rules.unacknowledged(reading(), current_project()))


@endpoints.add("POST", "/projects/<project>/break-glass/<int:number>/acknowledge", "acknowledge", api.BrokenGlass)
def acknowledge(number: int) -> api.BrokenGlass:
    """Say that a deployment outside the rules was followed up; whoever made it cannot."""
    project, by, now, master = current_project(), caller().user.name, web().now(), web().master

    def work(tx: Tx) -> api.BrokenGlass:
        breakglass.acknowledge(tx, master, project, number, by, now)
        found = stored.by_id(tx.conn, project.id, number)
        if found is None:
            raise LookupError(f"broken glass {number} vanished within one transaction")
        return rules.broken(tx.conn, found)

    return master.writer.call(work)


def _place(environment: str) -> Environment:
    return answers.by_name(reading(), current_project(), environment)
