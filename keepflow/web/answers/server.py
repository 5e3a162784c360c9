"""Deliveries, agents, projects and people as people and programs see them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from keepflow.core.flows import JobKind
from keepflow.engine import people as rules
from keepflow.store import agents, credentials, deliveries, environments, jobs, people, projects
from keepflow.store.people import User
from keepflow.store.projects import Project
from keepflow.wire import api


def delivery(stored: deliveries.Delivery) -> api.Delivery:
    """Return one webhook call, without its body and headers."""
    return api.Delivery(
        id=stored.id,
        delivery=stored.delivery,
        forge=stored.forge,
        event_name=stored.event_name,
        word=stored.word,
        handled=stored.handled,
        event=stored.event.to_json() if stored.event else None,
        decision=stored.decision,
        received_at=stored.received_at,
        handled_at=stored.handled_at,
    )


def delivery_page(conn: Connection, project: Project, query: api.PageQuery) -> api.DeliveryPage:
    """List a project's webhook calls, newest first."""
    found = deliveries.page(conn, project.id, query.before, query.limit + 1)
    shown = found[: query.limit]
    more = len(found) > query.limit
    return api.DeliveryPage(items=[delivery(stored) for stored in shown], next=shown[-1].id if more else None)


def visible_projects(conn: Connection, user: User) -> list[Project]:
    """Return the projects this person may see, by name."""
    seen = rules.visible_projects(conn, user)
    return [found for found in projects.every(conn) if seen is None or found.id in seen]


def project(conn: Connection, stored: Project) -> api.Project:
    """Return one project."""
    return api.Project(
        name=stored.name,
        repo=stored.repo,
        forge=stored.forge,
        flow_file=stored.flow_file,
        images=list(stored.images),
        managed=stored.managed,
        environments=[place.name for place in environments.of_project(conn, stored.id)],
    )


def visible_agents(conn: Connection, user: User) -> list[api.Agent]:
    """Return the agents this person may see: admins all, others those that serve a project of theirs."""
    serves: dict[str, list[str]] = {}
    visible = visible_projects(conn, user)
    for found in visible:
        for place in environments.of_project(conn, found.id):
            for host in place.agents:
                serves.setdefault(host, []).append(f"{found.name}/{place.name}")
    names = {found.id for found in visible}
    running: dict[int, list[str]] = {}
    for held in jobs.holdings(conn):
        if held.kind == JobKind.SCRIPT:
            shown = f"{held.project}#{held.number}" if held.project_id in names else "a job of another project"
            running.setdefault(held.agent_id, []).append(shown)
    return [
        agent(stored, serves.get(stored.name, []), running.get(stored.id, []))
        for stored in agents.every(conn)
        if user.admin or stored.name in serves
    ]


def agent(stored: agents.Agent, serves: Sequence[str] = (), running: Sequence[str] = ()) -> api.Agent:
    """Return one agent, the environments it serves and the runs whose script jobs it holds."""
    hello = stored.hello or {}
    return api.Agent(
        name=stored.name,
        capabilities=list(stored.capabilities),
        labels=list(stored.labels),
        slots=stored.slots,
        connected=stored.connected,
        offline_why=stored.offline_why,
        version=str(hello.get("version", "")),
        warnings=[str(text) for text in hello.get("warnings", ())],
        environments=list(serves),
        running=list(running),
        drained_by=stored.drained_by,
        key_id=stored.key_id,
        revoked=stored.revoked_at is not None,
        last_seen_at=stored.last_seen_at,
        created_at=stored.created_at,
    )


def user(stored: User) -> api.User:
    """Return one person."""
    return api.User(
        name=stored.name,
        email=stored.email,
        admin=stored.admin,
        disabled=stored.disabled_at is not None,
        has_password=stored.has_password,
        created_at=stored.created_at,
    )


def groups(conn: Connection) -> list[api.Group]:
    """Return every group."""
    found = people.all_groups(conn)
    return [api.Group(name=group.name, managed=group.managed, members=list(group.members)) for group in found]


def roles(conn: Connection, stored: Project) -> list[api.Role]:
    """Return the roles of one project."""
    found = people.all_roles(conn, stored.id)
    return [api.Role(project=role.project, role=role.role, user=role.user, group=role.group) for role in found]


def token(stored: credentials.ApiToken) -> api.Token:
    """Return one API token, without the token."""
    return api.Token(
        id=stored.id,
        user=stored.user,
        name=stored.name,
        scopes=list(stored.scopes),
        created_at=stored.created_at,
        expires_at=stored.expires_at,
        used_at=stored.used_at,
        revoked=stored.revoked_at is not None,
    )
