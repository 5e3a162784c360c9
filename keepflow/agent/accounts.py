"""The account script jobs run as, and whether this host can really keep the engine from them."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
from dataclasses import dataclass
from pathlib import Path

from keepflow import errors
from keepflow.config.agent_file import AgentFile
from keepflow.executors.shell import Account
from keepflow.wire.messages import RunJob


@dataclass(frozen=True, slots=True)
class JobsAccount:
    """Who script jobs are. `account` is None when they are the agent itself."""

    name: str
    account: Account | None
    engine_socket: Path
    engine_group: int | None  #: the group that may use the engine's socket

    def for_job(self, with_engine: bool) -> Account | None:
        """Return the account of one job, in the engine's group or not."""
        if self.account is None:
            return None
        groups = tuple(group for group in self.account.groups if group != self.engine_group)
        if with_engine and self.engine_group is not None:
            groups = (*groups, self.engine_group)
        return Account(self.account.uid, self.account.gid, groups)

    def warnings(self, docker_for: tuple[str, ...]) -> list[str]:
        """Return what is weak about this host's jobs, in sentences for people."""
        if self.account is not None:
            return []
        found = []
        if os.geteuid() == 0:
            found.append("script jobs run as root on this host; name another account with jobs_user in agent.yml")
        if os.access(self.engine_socket, os.W_OK):
            found.append(
                f"every script job on this host can reach the engine at {self.engine_socket}: docker_for "
                f"({', '.join(docker_for) or 'empty'}) cannot be enforced without jobs_user in agent.yml"
            )
        return found


def add_account(name: str) -> tuple[str, ...]:
    """Return the command that makes an account for script jobs: one that nobody signs in to."""
    return ("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", name)


def jobs_account(file: AgentFile) -> JobsAccount:
    """Look up who runs script jobs; raises UsageError when `jobs_user` does not exist or this agent is not root."""
    socket = Path(file.docker.host.removeprefix("unix://"))
    group = socket.stat().st_gid if socket.exists() else None
    own = pwd.getpwuid(os.geteuid()).pw_name
    if file.jobs_user is None or file.jobs_user == own:
        return JobsAccount(own, None, socket, group)
    try:
        entry = pwd.getpwnam(file.jobs_user)
    except KeyError:
        raise errors.UsageError(
            f"jobs_user: there is no account {file.jobs_user!r} here; run: {shlex.join(add_account(file.jobs_user))}",
            code="no-jobs-user",
        ) from None
    if os.geteuid() != 0:
        raise errors.UsageError(
            f"jobs_user: only an agent that runs as root can run jobs as {file.jobs_user!r}; this one is {own!r}",
            code="jobs-user-needs-root",
        )
    others = tuple(each.gr_gid for each in grp.getgrall() if entry.pw_name in each.gr_mem)
    return JobsAccount(entry.pw_name, Account(entry.pw_uid, entry.pw_gid, others), socket, group)


def may_use_engine(order: RunJob, file: AgentFile) -> bool:
    """Say whether a job gets the engine: its flow is listed on this host, and its code is nobody else's."""
    return not why_no_engine(order, file)


def why_no_engine(order: RunJob, file: AgentFile) -> str:
    """Return why a job does not get the engine, and what to do; "" when it does."""
    flow = f"{order.project}/{order.flow}"
    if order.trust == "fork":
        return "code from a fork never gets the engine of a host"
    if flow not in file.docker_for:
        return f"{flow} may not use the engine of this host: add it to docker_for in its agent.yml, and run this again"
    return ""
