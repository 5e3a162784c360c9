"""What a job is lent: registry logins, and the secrets its log must not show."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from keepflow.core.masking import Needle, Sought, needles_for
from keepflow.crypto.vault import Vault
from keepflow.engine import confiding, job_secrets
from keepflow.engine.apply import registries
from keepflow.errors import SecretTooShort
from keepflow.store.projects import Project, git_token_place
from keepflow.tools import needles
from keepflow.wire.messages import Login


@dataclass(frozen=True, slots=True)
class Lent:
    """What this master could lend a job of a project.

    `addresses` are its registries, the one scripts push to first; `logins` may push to the project's own repositories
    and nothing else; `secrets` is everything that a log of the project could show by mistake.
    """

    addresses: tuple[str, ...]
    logins: tuple[Login, ...] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


def of_job(conn: Connection, vault: Vault, project: Project) -> Lent:
    """Read and unseal what a job of a project could be lent, not what else must not be shown of the project."""
    known = registries(conn, vault).values()
    logins = tuple(
        Login(
            address=registry.address,
            username=registry.push.username,
            password=registry.push.password,
            ca_pem=registry.ca_pem,
            repositories=project.images,
        )
        for registry in known
        if registry.push is not None
    )
    return Lent(tuple(registry.address for registry in known), logins, ())


def of_project(conn: Connection, vault: Vault, project: Project) -> Lent:
    """Read and unseal what a job of a project could be lent; whether it is lent is for the caller to say."""
    lent = of_job(conn, vault, project)
    token = project.git_token
    git = (vault.unseal(token, git_token_place(project.name)).decode(),) if token else ()
    passwords = (login.password for login in lent.logins)
    confided = (*job_secrets.values(conn, vault, project), *confiding.values(conn, vault, project))
    return replace(lent, secrets=(*git, *passwords, *confided))


def sought(secrets: tuple[str, ...]) -> Sought:
    """Return what to look for in a log before it is written."""
    found: list[Needle] = []
    for secret in secrets:
        with contextlib.suppress(SecretTooShort):  # masking it would blot out the log; whoever set it was told
            found += needles_for(secret.encode())
    return needles.sought(found)
