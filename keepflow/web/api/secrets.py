"""Secrets of environments and of projects: set, named and removed; no answer ever holds a value."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection

from keepflow.core.job_secrets import Binding
from keepflow.engine import confiding, job_secrets
from keepflow.store import secrets
from keepflow.store.secrets import StoredSecret
from keepflow.web.answers import deployments
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.state import caller, current_project, reading, web
from keepflow.wire import api

endpoints = Endpoints("Secrets")
_ALL = "/projects/<project>/environments/<environment>/secrets"
_JOBS = "/projects/<project>/secrets"


@endpoints.add("GET", _ALL, "secrets", api.Secrets)
def list_secrets(environment: str) -> api.Secrets:
    """List the names and versions of an environment's secrets."""
    place = deployments.by_name(reading(), current_project(), environment)
    return api.Secrets(items=[_named(one) for one in secrets.of_environments.held(reading(), place.id).values()])


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
        return api.Secrets(items=[_named(one) for one in secrets.of_environments.held(conn, place.id).values()])


@endpoints.add("GET", _JOBS, "secrets", api.JobSecrets)
def list_job_secrets() -> api.JobSecrets:
    """List the names, versions and bindings of a project's secrets for its jobs."""
    return _of_jobs(reading())


@endpoints.add("PUT", f"{_JOBS}/<name>", "secrets", api.JobSecret, body=api.JobSecretValue)
def set_job_secret(name: str, body: api.JobSecretValue) -> api.JobSecret:
    """Give a project's secret a value, and say which runs get it; jobs that start from now on get this value."""
    project, master, by, now = current_project(), web().master, caller().user.name, web().now()
    binding = Binding(**{key: tuple(given) for key, given in body.bound.model_dump().items()}) if body.bound else None
    return _bound(
        master.writer.call(lambda tx: job_secrets.put(tx, master, project, name, body.value, binding, by, now))
    )


@endpoints.add("DELETE", f"{_JOBS}/<name>", "secrets", api.JobSecrets)
def remove_job_secret(name: str) -> api.JobSecrets:
    """Remove a project's secret; the answer lists what is left."""
    project, master, by, now = current_project(), web().master, caller().user.name, web().now()
    master.writer.call(lambda tx: job_secrets.remove(tx, project, name, by, now))
    with master.database.read() as conn:
        return _of_jobs(conn)


def _of_jobs(conn: Connection) -> api.JobSecrets:
    held = secrets.of_projects.held(conn, current_project().id).values()
    return api.JobSecrets(items=[_bound(one) for one in held])


def _bound(secret: StoredSecret) -> api.JobSecret:
    bound = api.Bound(**{key: list(value) for key, value in asdict(job_secrets.binding_of(secret)).items()})
    return api.JobSecret(**dict(_named(secret)), bound=bound)


def _named(secret: StoredSecret) -> api.Secret:
    return api.Secret(name=secret.name, version=secret.version, set_by=secret.set_by, at=secret.at)
