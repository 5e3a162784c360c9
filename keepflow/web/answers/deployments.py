"""Deployments and environments as people and programs see them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from keepflow.core.names import is_name
from keepflow.core.promoting import Guard
from keepflow.core.text import one_line
from keepflow.engine import board as boards
from keepflow.engine import canaries, deploying, promoting, rolling_back
from keepflow.engine import people as rules
from keepflow.engine.board import Candidate, Card, Standing
from keepflow.engine.guarding import Presser
from keepflow.errors import NotFound
from keepflow.store import agents, deployments, environments, jobs, people, projects, releases, runs
from keepflow.store.people import User
from keepflow.store.projects import Project
from keepflow.tools.git import Commit
from keepflow.web.answers import quarantines
from keepflow.web.answers import rules as kept
from keepflow.web.state import web
from keepflow.wire import api


def deployment(conn: Connection, project: Project, stored: deployments.Deployment) -> api.Deployment:
    """Return one deployment with its phases and its receipt."""
    release = releases.by_id(conn, stored.release_id)
    carrier = runs.by_id(conn, jobs.by_id(conn, stored.job_id).run_id)
    return api.Deployment(
        id=stored.id,
        project=project.name,
        host=stored.host,
        environment=environments.by_id(conn, stored.environment_id).name,
        kind=stored.kind,
        phase=stored.phase,
        reason_code=stored.reason_code,
        reason=stored.reason,
        silence=deploying.silence(conn, stored, web().now()),
        requested_by=stored.requested_by,
        note=stored.note,
        run=carrier.number,
        built_by=runs.by_id(conn, release.run_id).number,
        sha=release.sha,
        identity=stored.identity,
        identity_before=stored.identity_before,
        changes=[api.Change(**change) for change in stored.changes],
        phases=[api.Phase(**phase) for phase in stored.phases],
        canary=(stored.canary or {}).get("steps", []),
        canary_step=canaries.step(stored),
        receipt=stored.receipt,
        receipt_verdict=stored.receipt_verdict,
        log_tail=stored.log_tail,
        requested_at=stored.requested_at,
        accepted_at=stored.accepted_at,
        finished_at=stored.finished_at,
    )


def deployment_of_job(conn: Connection, project: Project, job_id: int) -> api.Deployment | None:
    """Return the deployment a job carries out, or None."""
    stored = deployments.of_job(conn, job_id)
    return deployment(conn, project, stored) if stored else None


def receipt(conn: Connection, user: User, deployment_id: str) -> api.DeploymentReceipt:
    """Return the signed receipt of a deployment of a project this person may see; raises NotFound."""
    stored, _ = _seen(conn, user, deployment_id)
    if stored.finished_at is None or stored.agent_id is None:
        raise NotFound("this deployment has not ended, so there is no receipt yet", code="no-receipt")
    agent = agents.by_id(conn, stored.agent_id)
    return api.DeploymentReceipt(
        deployment=stored.id,
        verdict=stored.receipt_verdict,
        envelope=stored.receipt_envelope,
        agent=agent.name,
        public_key=agent.public_key,
    )


def deployment_by_id(conn: Connection, user: User, deployment_id: str) -> api.Deployment:
    """Return a deployment of a project this person may see; raises NotFound."""
    stored, environment = _seen(conn, user, deployment_id)
    return deployment(conn, projects.by_id(conn, environment.project_id), stored)


def _seen(conn: Connection, user: User, deployment_id: str) -> tuple[deployments.Deployment, environments.Environment]:
    stored = deployments.by_id(conn, deployment_id)
    environment = environments.by_id(conn, stored.environment_id) if stored else None
    if stored is None or environment is None or not rules.may(conn, user, environment.project_id, "see"):
        raise NotFound("there is no such deployment, or none you may see", code="no-deployment")
    return stored, environment


def page(conn: Connection, project: Project, environment: str, query: api.PageQuery) -> api.DeploymentPage:
    """List the deployments of an environment, newest first."""
    place = by_name(conn, project, environment)
    found = deployments.of_environment(conn, place.id, query.limit + 1, query.before)
    shown = found[: query.limit]
    more = len(found) > query.limit
    return api.DeploymentPage(
        items=[deployment(conn, project, stored) for stored in shown], next=shown[-1].requested_at if more else None
    )


def by_name(conn: Connection, project: Project, name: str) -> environments.Environment:
    """Return an environment of a project; raises NotFound."""
    found = environments.by_name(conn, project.id, name) if is_name(name) else None
    if found is None:
        raise NotFound(f"{project.name} has no environment {one_line(name, 40)!r}", code="no-environment")
    return found


def board(conn: Connection, project: Project) -> list[api.Environment]:
    """Return every environment of a project, in the order of the board; those that never served anything too."""
    found = boards.board(conn, project)
    return [_environment(conn, project, card, found.candidates.get(card.environment.name, [])) for card in found.cards]


def _address(observed: dict[str, Any] | None) -> str:
    """Return where visitors find what a host serves, as its agent says."""
    return str((observed or {}).get("address") or "")


def _environment(conn: Connection, project: Project, card: Card, candidates: list[Candidate]) -> api.Environment:
    place = card.environment
    return api.Environment(
        project=project.name,
        name=place.name,
        hosts=[_host(conn, project, host) for host in card.hosts],
        mixed=card.mixed,
        max_unavailable=place.max_unavailable,
        on_failure=place.on_failure,
        service=place.service,
        branches=list(place.branches),
        promote_from=place.promote_from,
        promotes_to=[target.name for target in environments.promoted_from(conn, place)],
        verified_by=list(place.verified_by),
        approved_by=list(place.approved_by),
        url=place.url or next((seen for host in place.hosts if (seen := _address(host.observed))), ""),
        serving=_serving(card.newest) if card.newest else None,
        drift=card.drift,
        underway=deployment(conn, project, card.underway) if card.underway else None,
        failed=deployment(conn, project, card.failed) if card.failed else None,
        locked_by=place.locked_by,
        locked_why=place.locked_why,
        quarantined=quarantines.listed(conn, place, lifted=False),
        locked_at=place.locked_at,
        marks=kept.marks(conn, place),
        gate=kept.gate(conn, project, place),
        candidates=[_candidate(found) for found in candidates],
        rollback=_way_back(conn, place),
        sentence=_sentence(conn, project, card),
    )


def _host(conn: Connection, project: Project, host: Standing) -> api.Host:
    return api.Host(
        agent=host.placement.host,
        online=host.online,
        serving=_serving(host),
        observed=host.placement.identity,
        drift=host.drift,
        underway=deployment(conn, project, host.underway) if host.underway else None,
        failed=deployment(conn, project, host.failed) if host.failed else None,
    )


def _way_back(conn: Connection, place: environments.Environment) -> api.Readiness:
    target = rolling_back.before(conn, place)
    ready = rolling_back.readiness(conn, place, target)
    run = runs.by_id(conn, releases.by_id(conn, target.release_id).run_id).number if target else None
    return api.Readiness(how=ready.how, sentence=ready.sentence, run=run, identity=target.identity if target else None)


def _serving(host: Standing) -> api.Serving | None:
    if host.current is None or host.release is None or host.run is None:
        return None
    return api.Serving(
        deployment=host.current.id,
        identity=host.current.identity,
        sha=host.release.sha,
        message=host.run.message,
        ref=host.run.ref,
        run=host.run.number,
        by=host.current.requested_by,
        since=host.current.finished_at or host.current.requested_at,
    )


def _candidate(found: Candidate) -> api.Candidate:
    return api.Candidate(
        run=found.run.number,
        identity=found.stored.release.identity,
        sha=found.stored.sha,
        message=found.run.message,
        since=found.since,
        serves=found.serves,
    )


def _sentence(conn: Connection, project: Project, card: Card) -> str:
    """Say in one sentence why the environment is as it is."""
    name = card.environment.name
    if card.underway is not None:
        doing = card.underway
        told = deploying.silence(conn, doing, web().now()) or doing.reason
        why = f": {told}" if told else ""
        return f"{doing.requested_by}'s deployment to {name} is in phase {doing.phase}{why}"
    if card.drift is not None:
        return card.drift
    tail = f"; the last try failed: {card.failed.reason}" if card.failed else ""
    newest = card.newest
    if newest is None:
        return f"nothing was ever deployed to {name}{tail}"
    if card.mixed:
        return f"the hosts of {name} serve different versions: {_each(project, card)}{tail}"
    return f"{name} serves {_version(project, newest)}{tail}"


def _each(project: Project, card: Card) -> str:
    return "; ".join(f"{host.placement.host} serves {_version(project, host)}" for host in card.hosts)


def _version(project: Project, host: Standing) -> str:
    if host.current is None or host.run is None:
        return "nothing that was deployed"
    return f"{project.name}#{host.run.number}, deployed by {host.current.requested_by}"


def presser(conn: Connection, user: User, project: Project) -> Presser:
    """Return what the promote rules must know about a person."""
    groups = frozenset(group.name for group in people.all_groups(conn) if user.name in group.members)
    return Presser(user.name, rules.may(conn, user, project.id, "promote"), groups)


def rollback_preview(found: rolling_back.Preview) -> api.RollbackPreview:
    """Return what a rollback would do."""
    run = found.run.number if found.run else None
    identity = found.target.identity if found.target else None
    return api.RollbackPreview(
        project=found.project.name,
        environment=found.environment.name,
        run=run,
        identity=identity,
        sha=found.stored.sha if found.stored else None,
        serving=found.current.identity if found.current else None,
        allowed=found.allowed,
        guards=guards(found.guards),
        ready=api.Readiness(how=found.ready.how, sentence=found.ready.sentence, run=run, identity=identity),
        leaving=[_commit(commit) for commit in found.leaving],
        coming=[_commit(commit) for commit in found.coming],
        changes=[api.Change(setting=c.setting, before=c.before, after=c.after) for c in found.changes],
    )


def guards(found: tuple[Guard, ...]) -> list[api.Guard]:
    """Return rules as people see them."""
    return [api.Guard(code=g.code, met=g.met, sentence=g.sentence, overridable=g.overridable) for g in found]


def _commit(commit: Commit) -> api.Commit:
    return api.Commit(sha=commit.sha, subject=commit.subject, author=commit.author, at=commit.at)


def _order(environment: environments.Environment) -> str:
    """Say how the hosts of an environment are switched; "" when there is one."""
    agents, at_once = environment.agents, environment.max_unavailable
    if len(agents) < 2:
        return ""
    how = "one after the other" if at_once == 1 else f"{min(at_once, len(agents))} at a time"
    then = "those switched before go back" if environment.on_failure == "revert" else "those switched before stay"
    return f"goes to {', '.join(agents)}, {how}; when one fails, the others are not begun and {then}"


def preview(found: promoting.Preview) -> api.Preview:
    """Return what a promote would do."""
    return api.Preview(
        project=found.project.name,
        environment=found.environment.name,
        run=found.run.number,
        identity=found.stored.release.identity,
        sha=found.stored.sha,
        serving=found.current.identity if found.current else None,
        allowed=found.allowed,
        breakable=found.breakable,
        direction=found.direction.value,
        guards=guards(found.guards),
        commits=[_commit(commit) for commit in found.commits],
        leaving=[_commit(commit) for commit in found.leaving],
        changes=[api.Change(setting=c.setting, before=c.before, after=c.after) for c in found.changes],
        stop_first=found.stop_first,
        hosts=list(found.environment.agents),
        order=_order(found.environment),
    )
