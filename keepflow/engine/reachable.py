"""Whether the repositories of a server file can be read with what it says, asked before it is applied."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import Connection

from keepflow import errors
from keepflow.core.text import one_line
from keepflow.engine import apply as applying
from keepflow.engine.context import Master
from keepflow.tools.git import Remote, ls_remote
from keepflow.wire.desired import Desired, DesiredProject

_SECONDS = 15.0
_AT_ONCE = 8


def problems(conn: Connection, master: Master, desired: Desired) -> list[str]:
    """Ask the repository of every project that is new or read otherwise than before; return what is wrong with each.

    It waits for remotes, so it is not for the writer thread.
    """
    asked = list(_changed(applying.stored(conn, master).projects, desired.projects))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        told = pool.map(lambda found: _problem(*found), asked)
    return [sentence for sentence in told if sentence]


def _changed(
    before: dict[str, DesiredProject], wanted: dict[str, DesiredProject]
) -> Iterator[tuple[str, DesiredProject]]:
    for name, project in wanted.items():
        if name not in before or _access(before[name]) != _access(project):
            yield name, project


def _access(project: DesiredProject) -> tuple[str | None, ...]:
    return (project.repo, project.git_token, project.git_ssh_key_file, project.git_known_hosts_file)


def _problem(name: str, project: DesiredProject) -> str | None:
    remote = Remote(
        project.repo,
        token=project.git_token,
        ssh_key_file=Path(project.git_ssh_key_file) if project.git_ssh_key_file else None,
        known_hosts_file=Path(project.git_known_hosts_file) if project.git_known_hosts_file else None,
        allow_local=True,
    )
    try:
        ls_remote(remote, timeout=_SECONDS)
    except errors.KeepflowError as error:
        said = (error.tail if isinstance(error, errors.CommandFailed) else "") or error.message
        return f"the repository of {name} cannot be read: {one_line(said, 300)}"
    return None
