"""Secrets of environments: set and removed by people, sealed at rest, and sealed again to the agent that needs them.

A value is in the clear in this process only between two seals. It never enters an event, an answer or an error.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from keepflow import errors
from keepflow.core.flows import Container
from keepflow.core.text import quoted
from keepflow.crypto import sealing
from keepflow.crypto.vault import Vault
from keepflow.engine import secret_values
from keepflow.engine.context import Master
from keepflow.store import environments, events, projects, secrets
from keepflow.store.agents import Agent
from keepflow.store.environments import Environment
from keepflow.store.projects import Project
from keepflow.store.secrets import StoredSecret
from keepflow.store.writer import Tx
from keepflow.wire.orders import OrderSecret, secret_place


@dataclass(frozen=True, slots=True)
class Travelling:
    """Secrets on their way to one agent: what the order says of them, and the sealed values beside it in base64."""

    named: tuple[OrderSecret, ...] = ()
    sealed: dict[str, str] = field(default_factory=dict, repr=False)


def put(tx: Tx, master: Master, environment: Environment, name: str, value: str, by: str, now: int) -> StoredSecret:
    """Give a secret of an environment a new value, which the next deploy takes to the hosts. Raises UsageError."""
    secret_values.check_name(name, secret_values.VARIABLE, "letters, digits and _")
    raw = secret_values.raw(name, value)
    known = secrets.of_environments.every(tx.conn, environment.id)
    secret_values.check_room(environment.name, known, name, len(raw))
    version = secret_values.next_version(known, name)
    place = _place(tx.conn, environment, name, version)
    stored = StoredSecret(environment.id, name, version, master.vault.seal(raw, place), len(raw), by, now)
    secrets.of_environments.put(tx.conn, stored)
    events.add_about(tx, now, "secret-set", environment, actor=by, data={"name": name, "version": version})
    return stored


def remove(tx: Tx, environment: Environment, name: str, by: str, now: int) -> None:
    """Take a secret away from an environment; raises NotFound."""
    found = secrets.of_environments.held(tx.conn, environment.id).get(name)
    if found is None:
        raise errors.NotFound(f"{environment.name} has no secret {quoted(name)}", code="no-secret")
    secrets.of_environments.remove(tx.conn, environment.id, name, by, now)
    data = {"name": name, "version": found.version}
    events.add_about(tx, now, "secret-removed", environment, actor=by, data=data)


def travelling(
    conn: Connection,
    master: Master,
    environment: Environment,
    agent: Agent,
    order: str,
    fence: int,
    wanted: Iterable[str],
) -> Travelling:
    """Seal what the environment holds of the wanted names to an agent; one that named no key gets none."""
    held = secrets.of_environments.held(conn, environment.id)
    found = [held[name] for name in wanted if name in held] if agent.sealing_key else []
    if not found:
        return Travelling()
    public = base64.b64decode(agent.sealing_key)
    full_name = f"{projects.by_id(conn, environment.project_id).name}/{environment.name}"
    named, sealed = [], {}
    for one in found:
        value = master.vault.unseal(one.sealed or b"", _place(conn, environment, one.name, one.version))
        blob = sealing.seal(value, public, secret_place(order, fence, full_name, one.name, one.version))
        named.append(OrderSecret(name=one.name, version=one.version, sha256=hashlib.sha256(blob).hexdigest()))
        sealed[one.name] = base64.b64encode(blob).decode()
    return Travelling(tuple(named), sealed)


def missing(conn: Connection, environment: Environment, container: Container) -> str | None:
    """Say which secrets of a container neither the environment nor its hosts have, and how to mend it.

    What a host's env_file holds counts; of a host that does not tell, the host itself decides.
    """
    base = environments.base_of(conn, environment)
    lacking = [name for name in container.secrets if name not in secrets.of_environments.held(conn, base.id)]
    told = [set((host.observed or {})["given"]) for host in environment.hosts if _tells(host.observed)]
    absent = [name for name in lacking if any(name not in given for given in told)]
    if not absent:
        return None
    project = projects.by_id(conn, environment.project_id).name
    cure = "; ".join(f"keepflow secret set {project}/{base.name} {name}" for name in absent)
    return f"{environment.name} has no value for {', '.join(absent)}: {cure}"


def _tells(observed: dict[str, object] | None) -> bool:
    return observed is not None and observed.get("given") is not None


def _place(conn: Connection, environment: Environment, name: str, version: int) -> str:
    project = projects.by_id(conn, environment.project_id)
    return f"{project.name}/{environment.name}/{name}/{version}"


def values(conn: Connection, vault: Vault, project: Project) -> tuple[str, ...]:
    """Return every value of the secrets of a project's environments, to be masked."""
    return tuple(
        vault.unseal(one.sealed or b"", _place(conn, place, one.name, one.version)).decode()
        for place in environments.of_project(conn, project.id)
        for one in secrets.of_environments.held(conn, place.id).values()
    )
