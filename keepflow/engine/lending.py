"""What a job is lent: registry logins, and the secrets its log must not show."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.core.masking import Needle, needles_for
from keepflow.crypto.vault import Vault
from keepflow.engine.apply import registries
from keepflow.errors import SecretTooShort
from keepflow.store.projects import Project, git_token_place
from keepflow.wire.messages import Login


def addresses(conn: Connection, vault: Vault) -> tuple[str, ...]:
    """Return the addresses of the registries this master knows; scripts push to the first one."""
    return tuple(registry.address for registry in registries(conn, vault).values())


def push_logins(conn: Connection, vault: Vault, project: Project) -> tuple[Login, ...]:
    """Return the push logins a trusted job of a project is lent, for the project's own repositories only."""
    return tuple(
        Login(
            address=registry.address,
            username=registry.push.username,
            password=registry.push.password,
            ca_pem=registry.ca_pem,
            repositories=project.images,
        )
        for registry in registries(conn, vault).values()
        if registry.push is not None
    )


def secrets(conn: Connection, vault: Vault, project: Project) -> tuple[str, ...]:
    """Return every secret that a log of this project could show by mistake."""
    token = project.git_token
    found = [vault.unseal(token, git_token_place(project.name)).decode()] if token else []
    return (*found, *(login.password for login in push_logins(conn, vault, project)))


def needles(conn: Connection, vault: Vault, project: Project) -> tuple[Needle, ...]:
    """Return what the master looks for in a log of this project before it is written."""
    found: list[Needle] = []
    for secret in secrets(conn, vault, project):
        try:
            found += needles_for(secret.encode())
        except SecretTooShort:
            continue  # masking it would blot out the log; whoever set it was told
    return tuple(found)
