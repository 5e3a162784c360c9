"""Secrets of environments: set, named and removed; no answer ever holds a value."""

from __future__ import annotations

from keepflow.engine import confiding
from keepflow.store import secrets
from keepflow.store.secrets import StoredSecret
from keepflow.web.answers import deployments
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.state import caller, current_project, reading, web
from keepflow.wire import api

endpoints = Endpoints("Secrets")
_ALL = "/projects/<project>/environments/<environment>/secrets"


@endpoints.add("GET", _ALL, "secrets", api.Secrets)
def list_secrets(environment: str) -> api.Secrets:
    """List the names and versions of an environment's secrets."""
    place = deployments.by_name(reading(), current_project(), environment)
    return api.Secrets(items=[_named(one) for one in secrets.held(reading(), place.id).values()])


@endpoints.add("PUT", f"{_ALL}/<name>", "secrets", api.Secret, body=api.SecretValue)
def set_secret(environment: str, name: str, body: api.SecretValue) -> api.Secret:
    """Give a secret a value; the next deploy to the environment takes it to the hosts."""
    place = deployments.by_name(reading(), current_project(), environment)
    by, now, master = caller().user.name, web().now(), web().master
    return _named(master.writer.call(lambda tx: confiding.put(tx, master, place, name, body.value, by, now)))


@endpoints.add("DELETE", f"{_ALL}/<name>", "secrets", api.Secrets)
def remove_secret(environment: str, name: str) -> api.Secrets:
    """Remove a secret; the answer lists what is left."""
    place = deployments.by_name(reading(), current_project(), environment)
    by, now, master = caller().user.name, web().now(), web().master
    master.writer.call(lambda tx: confiding.remove(tx, place, name, by, now))
    with master.database.read() as conn:
        return api.Secrets(items=[_named(one) for one in secrets.held(conn, place.id).values()])


def _named(secret: StoredSecret) -> api.Secret:
    return api.Secret(name=secret.name, version=secret.version, set_by=secret.set_by, at=secret.at)
