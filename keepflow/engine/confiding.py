"""Secrets of environments: set and removed by people, sealed at rest, and sealed again to the agent that needs them.

A value is in the clear in this process only between two seals. It never enters an event, an answer or an error.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from keepflow import errors
from keepflow.core.flows import Container
from keepflow.core.text import quoted
from keepflow.crypto import sealing
from keepflow.engine.context import Master
from keepflow.store import events, projects, secrets
from keepflow.store.agents import Agent
from keepflow.store.environments import Environment
from keepflow.store.secrets import StoredSecret
from keepflow.store.writer import Tx
from keepflow.wire.orders import OrderSecret, secret_place

LARGEST = 64 * 1024  #: bytes of one value
MOST = 256 * 1024  #: bytes of all values of an environment together: they travel in one frame
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


@dataclass(frozen=True, slots=True)
class Travelling:
    """Secrets on their way to one agent: what the order says of them, and the sealed values beside it in base64."""

    named: tuple[OrderSecret, ...] = ()
    sealed: dict[str, str] = field(default_factory=dict, repr=False)


def put(tx: Tx, master: Master, environment: Environment, name: str, value: str, by: str, now: int) -> StoredSecret:
    """Give a secret of an environment a new value, which the next deploy takes to the hosts. Raises UsageError."""
    raw = _checked(name, value)
    known = {one.name: one for one in secrets.every(tx.conn, environment.id)}
    total = len(raw) + sum(one.size for one in known.values() if one.name != name)
    if total > MOST:
        sentence = f"all secrets of {environment.name} together would be {total} bytes; {MOST} is the most"
        raise errors.UsageError(sentence, code="secrets-too-large")
    version = known[name].version + 1 if name in known else 1
    place = _place(tx.conn, environment, name, version)
    stored = StoredSecret(environment.id, name, version, master.vault.seal(raw, place), len(raw), by, now, None)
    secrets.put(tx.conn, stored)
    events.add_about(tx, now, "secret-set", environment, actor=by, data={"name": name, "version": version})
    return stored


def remove(tx: Tx, environment: Environment, name: str, by: str, now: int) -> None:
    """Take a secret away from an environment; raises NotFound."""
    found = secrets.held(tx.conn, environment.id).get(name)
    if found is None:
        raise errors.NotFound(f"{environment.name} has no secret {quoted(name)}", code="no-secret")
    secrets.remove(tx.conn, environment.id, name, by, now)
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
    held = secrets.held(conn, environment.id)
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
    lacking = [name for name in container.secrets if name not in secrets.held(conn, environment.id)]
    told = [set((host.observed or {})["given"]) for host in environment.hosts if _tells(host.observed)]
    absent = [name for name in lacking if any(name not in given for given in told)]
    if not absent:
        return None
    project = projects.by_id(conn, environment.project_id).name
    cure = "; ".join(f"keepflow secret set {project}/{environment.name} {name}" for name in absent)
    return f"{environment.name} has no value for {', '.join(absent)}: {cure}"


def _tells(observed: dict[str, object] | None) -> bool:
    return observed is not None and observed.get("given") is not None


def _checked(name: str, value: str) -> bytes:
    if not _NAME.fullmatch(name):
        sentence = "not a name: letters, digits and _ (at most 100), no digit first, like DATABASE_URL"
        raise errors.UsageError(f"{quoted(name[:100])} is {sentence}", code="bad-name")
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        raise errors.UsageError(f"the value of {name} is not UTF-8 text; encode it first", code="bad-value") from None
    if not raw:
        raise errors.UsageError(f"the value of {name} is empty", code="bad-value")
    if b"\0" in raw:
        raise errors.UsageError(f"the value of {name} holds a NUL byte; encode it first", code="bad-value")
    if len(raw) > LARGEST:
        sentence = f"the value of {name} is {len(raw)} bytes; {LARGEST} is the most"
        raise errors.UsageError(sentence, code="secrets-too-large")
    return raw


def _place(conn: Connection, environment: Environment, name: str, version: int) -> str:
    project = projects.by_id(conn, environment.project_id)
    return f"{project.name}/{environment.name}/{name}/{version}"
