"""The logins that this host pulls images of jobs with."""

from __future__ import annotations

from keepflow.agent.workplace import docker_config
from keepflow.config.agent_file import AgentFile
from keepflow.tools.engine import Engine
from keepflow.tools.files import read_private, write_atomic
from keepflow.wire.messages import Login


def save_logins(engine: Engine, file: AgentFile) -> None:
    """Lay down the logins this host pulls images with, for the `docker` command of the agent alone.

    Raises Unavailable and UsageError for a password file that cannot be used.
    """
    if engine.config is None or not file.containers.flows:
        return
    logins = tuple(
        Login(address=address, username=login.username, password=read_private(login.password_file).decode().strip())
        for address, login in file.registries.items()
        if login.password_file
    )
    write_atomic(engine.config / "config.json", docker_config(logins), 0o600)
