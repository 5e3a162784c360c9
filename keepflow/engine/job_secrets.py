"""Secrets of projects for their jobs: set by people, sealed at rest, sealed again to the agent that runs the job.

A value is in the clear in this process only between two seals and while a log is masked. The binding that says which
runs may have it is sealed in: whoever can write to the database cannot widen it.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, fields

from sqlalchemy import Connection

from keepflow import errors
from keepflow.core import job_secrets as rules
from keepflow.core.events import EventKind
from keepflow.core.job_secrets import Binding, Receiver
from keepflow.core.masking import needles_for
from keepflow.core.patterns import branch_allowed, pattern_problem
from keepflow.core.text import did_you_mean, quoted
from keepflow.crypto import sealing
from keepflow.crypto.vault import Vault
from keepflow.engine import secret_values
from keepflow.engine.context import Master
from keepflow.store import agents, environments, events, projects, secrets
from keepflow.store.jobs import Attempt, Job
from keepflow.store.projects import Project
from keepflow.store.runs import Run
from keepflow.store.secrets import StoredSecret
from keepflow.store.writer import Tx
from keepflow.wire.messages import LentSecret, job_secret_place


def put(
    tx: Tx, master: Master, project: Project, name: str, value: str, binding: Binding | None, by: str, now: int
) -> StoredSecret:
    """Give a secret of a project a new value and, unless None, a new binding. Raises UsageError."""
    secret_values.check_name(name, rules.NAME, "letters, digits and . _ -")
    raw = secret_values.raw(name, value)
    needles_for(raw)  # a value too short to be masked is refused, never silently shown
    known = secrets.of_projects.every(tx.conn, project.id)
    secret_values.check_room(project.name, known, name, len(raw))
    if binding is None:
        held = next((one for one in known if one.name == name and one.sealed is not None), None)
        binding = binding_of(held) if held else Binding()
    _check_binding(tx.conn, project, binding)
    version, bound = secret_values.next_version(known, name), asdict(binding)
    sealed = master.vault.seal(raw, _place(project, name, version, binding))
    stored = StoredSecret(project.id, name, version, sealed, len(raw), by, now, None, bound)
    secrets.of_projects.put(tx.conn, stored)
    _event(tx, now, "secret-set", project, by, name, version)
    return stored


def remove(tx: Tx, project: Project, name: str, by: str, now: int) -> None:
    """Take a secret away from a project; raises NotFound."""
    found = secrets.of_projects.held(tx.conn, project.id).get(name)
    if found is None:
        raise errors.NotFound(f"{project.name} has no secret {quoted(name)}", code="no-secret")
    secrets.of_projects.remove(tx.conn, project.id, name, by, now)
    _event(tx, now, "secret-removed", project, by, name, found.version)


def binding_of(secret: StoredSecret) -> Binding:
    """Return which runs may have a secret."""
    given = secret.binding or {}
    return Binding(**{one.name: tuple(given.get(one.name, ())) for one in fields(Binding)})


def lacking(conn: Connection, run: Run, job: Job) -> str | None:
    """Say which secrets a job cannot do without and does not get, why, and how to mend it; None when it gets all."""
    wanted = _names(job, optional=False)
    if not wanted:
        return None
    project = projects.by_id(conn, run.project_id)
    held, receiver = secrets.of_projects.held(conn, project.id), _receiver(conn, project, run)
    complaints = []
    for name in wanted:
        if name not in held:
            complaints.append(f"{project.name} has no secret {name}: keepflow secret set {project.name} {name}")
        elif why := rules.withheld(binding_of(held[name]), receiver):
            complaints.append(f"this run does not get the secret {name}: {why}")
    return "; ".join(complaints) or None


def lent(
    conn: Connection, master: Master, project: Project, run: Run, job: Job, attempt: Attempt
) -> tuple[LentSecret, ...]:
    """Seal what a job asks for and may have to the agent that runs it; what is left out, the agent refuses to miss."""
    wanted = _names(job)
    agent = agents.by_id(conn, attempt.agent_id) if wanted and attempt.agent_id is not None else None
    if agent is None or not agent.sealing_key:
        return ()
    public, receiver, found = base64.b64decode(agent.sealing_key), _receiver(conn, project, run), []
    for name, secret in secrets.of_projects.held(conn, project.id).items():
        if name in wanted and rules.withheld(binding_of(secret), receiver) is None:
            place = job_secret_place(attempt.fence, project.name, name, secret.version)
            sealed = sealing.seal(_opened(master.vault, project, secret), public, place)
            found.append(LentSecret(name=name, version=secret.version, sealed=base64.b64encode(sealed).decode()))
    return tuple(found)


def values(conn: Connection, vault: Vault, project: Project) -> tuple[str, ...]:
    """Return every value of a project's secrets, to be masked."""
    return tuple(_opened(vault, project, one).decode() for one in secrets.of_projects.held(conn, project.id).values())


def _names(job: Job, *, optional: bool = True) -> list[str]:
    """List the secrets that a job names, each once; without those that all of its steps can do without, if asked."""
    uses = (use for step in job.spec["steps"] for use in step["secrets"])
    return list(dict.fromkeys(use["name"] for use in uses if optional or not use.get("optional")))


def _receiver(conn: Connection, project: Project, run: Run) -> Receiver:
    branch = run.event.branch or ""
    places = environments.of_project(conn, project.id) if branch else []
    return Receiver(
        flow=run.flow,
        ref=run.ref,
        reaches=frozenset(place.name for place in places if branch_allowed(place.branches, branch)),
        foreign=run.event.kind == EventKind.PULL_REQUEST or run.event.fork or run.trust == "fork",
    )


def _check_binding(conn: Connection, project: Project, binding: Binding) -> None:
    for pattern in (*binding.branches, *binding.tags):
        if problem := pattern_problem(pattern):
            raise errors.UsageError(problem, code="bad-pattern")
    known = [place.name for place in environments.of_project(conn, project.id)]
    for name in binding.environments:
        if name not in known:
            sentence = f"{project.name} has no environment {quoted(name)}{did_you_mean(name, known)}"
            raise errors.UsageError(sentence, code="no-environment")


def _opened(vault: Vault, project: Project, secret: StoredSecret) -> bytes:
    place = _place(project, secret.name, secret.version, binding_of(secret))
    return vault.unseal(secret.sealed or b"", place)


def _place(project: Project, name: str, version: int, binding: Binding) -> str:
    return json.dumps(["keepflow-job-secret-v1", project.name, name, version, asdict(binding)])


def _event(tx: Tx, now: int, kind: str, project: Project, by: str, name: str, version: int) -> None:
    data = {"name": name, "version": version}
    events.add(tx, now, kind, actor=by, project_id=project.id, data=data)
