"""Projects, agents, and applying the server file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from flask import Response
from werkzeug.wrappers import Response as AnyResponse

from keepflow.core.names import is_name
from keepflow.engine import apply as applying
from keepflow.engine import backing_up, enrol, reachable, retention
from keepflow.engine.context import Master
from keepflow.errors import NotFound, UsageError
from keepflow.store import agents, events
from keepflow.store.writer import Tx
from keepflow.web.answers import server as answers
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.state import caller, reading, web
from keepflow.wire import api

endpoints = Endpoints("Server")


@endpoints.add("GET", "/projects", "enter", api.Projects)
def projects() -> api.Projects:
    """List the projects the caller may see."""
    found = answers.visible_projects(reading(), caller().user)
    return api.Projects(items=[answers.project(reading(), stored) for stored in found])


@endpoints.add("GET", "/agents", "enter", api.Agents)
def list_agents() -> api.Agents:
    """List the agents the caller may see: admins all, others those that serve a project of theirs."""
    return api.Agents(items=answers.visible_agents(reading(), caller().user))


@endpoints.add("POST", "/agents", "administer", api.JoinToken, body=api.NewAgent, status=201)
def join_token(body: api.NewAgent) -> api.JoinToken:
    """Make the one-time token by which a machine joins under a name."""
    if not is_name(body.name):
        raise UsageError("an agent name has 1 to 40 of a-z 0-9 -", code="bad-name")
    master, now, by = web().master, web().now(), caller().user.name
    token = master.writer.call(lambda tx: enrol.make_join_token(tx, master, body.name, by, now))
    return api.JoinToken(agent=body.name, token=token, command=f"keepflow agent join {master.url()}")


@endpoints.add("POST", "/agents/<name>/revoke", "administer", api.Agent)
def revoke_agent(name: str) -> api.Agent:
    """Take an agent's identity away; it must join again."""
    return _changed(name, enrol.revoke)


@endpoints.add("POST", "/agents/<name>/drain", "administer", api.Agent)
def drain_agent(name: str) -> api.Agent:
    """Give an agent no new script jobs; what it holds it ends, and runs that began on it go on there."""
    return _changed(name, enrol.drain)


@endpoints.add("POST", "/agents/<name>/undrain", "administer", api.Agent)
def undrain_agent(name: str) -> api.Agent:
    """Give an agent script jobs again."""
    return _changed(name, enrol.undrain)


def _changed(name: str, change: Callable[[Tx, Master, int, str, int], None]) -> api.Agent:
    found = agents.by_name(reading(), name)
    if found is None:
        raise NotFound(f"there is no agent {name[:40]!r}", code="no-agent")
    master, now, by = web().master, web().now(), caller().user.name
    master.writer.call(lambda tx: change(tx, master, found.id, by, now))
    with master.database.read() as conn:
        return answers.agent(agents.by_id(conn, found.id))


@endpoints.add("POST", "/apply", "administer", api.Applied, body=api.Apply)
def apply(body: api.Apply) -> api.Applied:
    """Make the master equal to a server file, or with `dry_run` only say what that would change."""
    master, now, by = web().master, web().now(), caller().user.name
    if body.dry_run:
        return api.Applied(lines=applying.plan(reading(), master, body.desired), applied=False)
    lines = master.writer.call(lambda tx: applying.apply(tx, master, body.desired, by, now))
    return api.Applied(lines=lines, applied=True)


@endpoints.add("POST", "/apply/check", "administer", api.Checked, body=api.Apply)
def check(body: api.Apply) -> api.Checked:
    """Ask the repositories of a server file that are new or read otherwise than before, and apply nothing."""
    return api.Checked(problems=reachable.problems(reading(), web().master, body.desired))


@endpoints.add("GET", "/backup", "administer")
def backup() -> AnyResponse:
    """Read a whole backup as a tar file; its last entry lists all others, and the key of its secrets is not in it."""
    master, now, by = web().master, web().now(), caller().user.name
    pieces = backing_up.stream(master)
    master.writer.call(lambda tx: events.add(tx, now, "backup-read", actor=by))
    headers = {"Content-Disposition": "attachment; filename=keepflow.tar"}
    return Response(pieces, mimetype="application/x-tar", headers=headers)


@endpoints.add("GET", "/storage", "administer", api.Storage)
def show_storage() -> api.Storage:
    """Show what logs and artifacts take of the master's disk, and the rule by which they are let go of."""
    return api.Storage(**retention.storage(web().master), **asdict(retention.rule(reading())))


@endpoints.add("POST", "/storage/prune", "administer", api.Pruned, body=api.Prune)
def prune_storage(body: api.Prune) -> api.Pruned:
    """Let go now of what the rule gives up, as happens every hour, or with `dry_run` only say what that is."""
    master, now, by = web().master, web().now(), caller().user.name
    due = retention.due(master, now)
    old = sum(map(len, retention.forgettable(reading(), now).values()))
    if not body.dry_run:
        master.writer.call(lambda tx: events.add(tx, now, "pruned", actor=by, data={"runs": len(due)}))
        retention.sweep(master, now)
    items = [api.LetGo(run=f"{one.project}#{one.number}", bytes=one.bytes) for one in due]
    return api.Pruned(items=items, applied=not body.dry_run, forgotten=old)
