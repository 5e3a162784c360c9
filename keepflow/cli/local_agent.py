"""The agent beside the master: a process of its own, joined by itself, started again when it dies.

It speaks the protocol every agent speaks; that it runs on the same machine gives it no other right.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator

import structlog

from keepflow.agent.accounts import add_account
from keepflow.agent.state import State
from keepflow.cli.wiring import Built
from keepflow.config.home import Home
from keepflow.core.loopback import in_the_clear
from keepflow.engine import clock, enrol
from keepflow.errors import KeepflowError, Unavailable
from keepflow.store import agents
from keepflow.tools import processes
from keepflow.tools.files import write_atomic

log = structlog.get_logger(__name__)

NAME = "local"
JOBS_USER = "keepflow-jobs"
_PATIENCE = (0.2, 1.0, 5.0, 15.0, 30.0)  #: seconds before a dead agent is started again, try by try
_GOOD_LIFE = 60.0  #: seconds after which an agent's death is the first one again
_STOP_SECONDS = 2.0  #: an accepted deployment is in its journal; nothing is lost by not waiting longer
_FILE = """\
# What the agent beside the master may do on this machine. keepflow wrote this file once; it is yours now.
master: {url}
{insecure}capabilities: [run, deploy]
{jobs_user}
# Flows whose scripts may use the Docker engine. Whoever may use it is root on this machine.
docker_for: []        # for example [keepwork/dev, keepwork/test]
# Projects or flows whose steps may run in containers (image:); those get neither the engine nor this machine.
containers: {{for: []}}  # for example [keepwork], or "*"

nginx: {{mode: own}}

# Services the master may put on this machine, each bound to one environment. For example:
#   keepwork-dev:
#     environment: keepwork/dev
#     images: [keepwork/dev]                          # names of images that scripts here build
#     front: {{server_name: dev.keepwork.example.org, listen: 80}}
#     volumes: [log]
services: {{}}
"""
_INSECURE = "insecure_http: true       # this machine's own address: what goes there never leaves it\n"


def write_file(home: Home, url: str, account: str = JOBS_USER) -> None:
    """Write the local agent's file, unless there is one: then it belongs to the person.

    A master of root has `account` made, so that no script of a pushed branch is root beside the master's keys.
    """
    if home.local_agent_file.exists():
        return
    if _have_account(account):
        jobs_user = f"jobs_user: {account}   # scripts run as this account, not as the agent\n"
    else:
        jobs_user = f"# jobs_user: {account}   # the account scripts run as; only an agent of root can change to it\n"
    with contextlib.suppress(FileExistsError):
        text = _FILE.format(url=url, insecure=_INSECURE if in_the_clear(url) else "", jobs_user=jobs_user)
        write_atomic(home.local_agent_file, text.encode(), 0o600, replace=False)


def _have_account(name: str) -> bool:
    """Say whether scripts can run as this account; root makes it when it is not there."""
    if os.geteuid() != 0:
        return False
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(name).pw_uid != 0
    try:
        processes.run(add_account(name), timeout=30)
    except KeepflowError as error:
        log.warning("the account for script jobs could not be made", account=name, why=error.message)
        return False
    return True


@contextlib.asynccontextmanager
async def beside(built: Built, address: str, home: Home) -> AsyncIterator[None]:
    """Keep the local agent running from here to the end of the context."""
    await asyncio.to_thread(write_file, home, address)
    keeping = asyncio.create_task(_keep(built, address, home))
    try:
        yield
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping


async def _keep(built: Built, address: str, home: Home) -> None:
    """Start the agent again and again, the longer it fails the slower."""
    failures = 0
    while True:
        began = time.monotonic()
        try:
            await _join_if_needed(built, address, home)
            end = await _run(home)
        except Unavailable as error:
            log.warning("the local agent could not join", why=error.message)
        else:
            log.warning("the local agent ended", how=end)
        failures = 0 if time.monotonic() - began > _GOOD_LIFE else failures + 1
        await asyncio.sleep(_PATIENCE[min(failures, len(_PATIENCE) - 1)])


async def _join_if_needed(built: Built, address: str, home: Home) -> None:
    """Join with a one-time token, unless the agent has an identity that the master knows."""
    master, state = built.master, State(home.local_agent_state())

    def known() -> bool:
        with master.database.read() as conn:
            agent = agents.by_name(conn, NAME)
        if state.joined and agent is not None and agent.key_id == state.key().public.key_id:
            return True  # a revoked one stays out: that was a person's word
        state.forget_identity()
        return False

    if await asyncio.to_thread(known):
        return
    token = await asyncio.wrap_future(
        master.writer.submit(lambda tx: enrol.make_join_token(tx, master, NAME, "keepflow up", clock.now()))
    )
    argv = ("join", address, "--state", str(state.root), *(("--insecure-http",) if in_the_clear(address) else ()))
    process = await _start(home, *argv, stdin=PIPE, stderr=PIPE)
    _, said = await process.communicate(f"{token}\n".encode())
    if process.returncode:
        raise Unavailable(said.decode(errors="replace").strip()[-500:], code="local-agent")


async def _run(home: Home) -> str:
    """Run the agent until it ends and say how; one that outlived an earlier master is taken over instead."""
    state = State(home.local_agent_state())
    holder = await asyncio.to_thread(state.holder)
    if holder:
        return await _until_gone(holder)
    process = await _start(home, "run", "--config", str(home.local_agent_file), "--state", str(state.root))
    try:
        return f"exit code {await process.wait()}"
    except asyncio.CancelledError:
        await _end(process)
        raise


async def _until_gone(pid: int) -> str:
    """Watch a process that is not our child; when we are cancelled, it is asked to end."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return "gone"
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, gone.set)
    try:
        await gone.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(gone.wait(), _STOP_SECONDS)
        raise
    finally:
        loop.remove_reader(handle)
        os.close(handle)
    return "it was started by an earlier master"


async def _end(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _start(home: Home, *argv: str, stdin: int = DEVNULL, stderr: int | None = None) -> Process:
    """Start `keepflow agent ARGV…` in a session of its own: Ctrl-C at a terminal is ours to pass on."""
    command = (sys.executable, "-m", "keepflow.cli.main", "agent", *argv)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEEPFLOW_DATABASE")}
    environment = {**kept, "KEEPFLOW_FRONT": str(home.local_agent_front())}
    return await asyncio.create_subprocess_exec(
        *command, stdin=stdin, stderr=stderr, env=environment, start_new_session=True
    )
