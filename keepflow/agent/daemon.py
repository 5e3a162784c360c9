"""The agent as a process: everything is built here, taken up where the last process left it, watched, and ended.

Whatever breaks that nobody foresaw ends the process (crash-only): the next one recovers from the disk.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType

from keepflow import errors
from keepflow.agent.accounts import jobs_account
from keepflow.agent.artifacts import Artifacts
from keepflow.agent.attempts import Attempt, Attempts
from keepflow.agent.channel import Wake
from keepflow.agent.clearing_up import clear_up
from keepflow.agent.clock import MOST_SKEW, Clock
from keepflow.agent.deploys import Deploys
from keepflow.agent.host_file import HostFile
from keepflow.agent.image_logins import save_logins
from keepflow.agent.images import Images, MadeHere, ask_registry
from keepflow.agent.job_host import Host
from keepflow.agent.job_secrets import opened
from keepflow.agent.jobs import Jobs, refusal_of, where_refusal
from keepflow.agent.lanes import Lanes
from keepflow.agent.link import Link
from keepflow.agent.logs import Log
from keepflow.agent.pins import Pins
from keepflow.agent.pulse import Pulse
from keepflow.agent.reports import Reports
from keepflow.agent.standing import Standing
from keepflow.agent.state import State
from keepflow.agent.storage import kept_images_of, storage_of
from keepflow.agent.supervision import Supervisor
from keepflow.agent.worker import Job
from keepflow.agent.workplace import Workplace
from keepflow.agent.workspaces import Workspaces
from keepflow.config.agent_file import AgentFile
from keepflow.core.loopback import in_the_clear
from keepflow.ports import discover
from keepflow.targets.docker import Docker
from keepflow.tools.engine import Engine
from keepflow.tools.machine import machine_id
from keepflow.wire import messages
from keepflow.wire.messages import Body, Heartbeat, Hello

log = Log(__name__)

_LOOK = 5.0  #: seconds between two looks at the host's file and at the threads
_PATIENT_TURNS = 4  #: signs of life that may be left out before a look at the services hangs
_JOBS_STOP = 2.0  #: seconds for all jobs to end when the agent is stopped
_LINK_STOP = 0.9  #: seconds for the last words to the master


class Daemon:
    """One agent. `run` returns the exit code when SIGTERM came or something broke."""

    def __init__(self, state: State, host_file: HostFile, supervisor: Supervisor | None = None) -> None:
        """Build everything; the state must be claimed. Raises UsageError for what this host must mend first."""
        os.umask(0o022)  # checkouts go into images: files that only one account may read would break them
        file = host_file.now()
        self._state, self._host_file = state, host_file
        self._supervisor = supervisor or Supervisor()
        self._stop = threading.Event()
        self._broken = False
        self._ends_jobs = False
        self._account = jobs_account(file)
        identity = replace(state.identity(), url=file.master)
        self._pins = Pins(identity, state.save_identity)
        key = state.key()
        wake = Wake()
        self._clock = Clock()
        self._pulse = Pulse()
        self._reports = Reports(state.root / "reports", wake)
        self._attempts = Attempts(state.directory("attempts"), wake, key.public.key_id)
        engine = Docker(file.docker.host)
        made = MadeHere(state.root / "made-here")
        self._kinds = discover("keepflow.steps")
        jobs_root = state.jobs_root(apart=self._account.account is not None)
        self._workplace = Workplace(jobs_root, self._account.account)
        self._workspaces = Workspaces(Lanes(jobs_root / "lanes", self._account.account), self._account.account)
        self._host = Host(
            agent=identity.agent,
            master=identity.url,
            ca_file=_ca_file(state, identity.ca_pem),
            file=file,
            account=self._account,
            workplace=self._workplace,
            code=self._workspaces,
            kinds=self._kinds,
            images=Images(engine, made, ask_registry),
            kept_images=kept_images_of(state),
            reports=self._reports,
            clock=self._clock,
            secrets=partial(opened, opening=key.opening),
            artifacts=Artifacts(identity.url, _ca_file(state, identity.ca_pem), self._account.account),
            engine=Engine(file.docker.host, state.directory("docker")),
            key_id=key.public.key_id,
        )
        self._jobs = Jobs(
            self._attempts,
            self._reports,
            self._clock,
            make=self._job,
            slots=lambda: host_file.now().jobs,
            refuses=self._refusal,
        )
        self._deploys = Deploys(
            state,
            self._pins,
            key.public.key_id,
            host_file,
            engine,
            made,
            self._reports,
            self._clock,
            self._pulse,
            _PATIENT_TURNS * self._supervisor.every,
        )
        self._link = Link(
            self._pins,
            key,
            reports=self._reports,
            attempts=self._attempts,
            clock=self._clock,
            wake=wake,
            hello=self._hello,
            beat=self._beat,
            take=self._take,
        )

    def run(self) -> int:
        """Recover, serve until told to stop, and leave; returns the exit code."""
        _stay_lean()
        signal.signal(signal.SIGTERM, self._asked_to_stop)
        signal.signal(signal.SIGINT, self._asked_to_stop)
        threading.excepthook = self._thread_broke
        clear_up(self._attempts, self._state.directory("attempts"), self._host)
        self._jobs.recover()
        self._deploys.recover()
        if "run" in self._host.file.capabilities:
            storage = storage_of(self._state, self._host_file.now)
            threading.Thread(target=storage.look_after, args=(self._stop,), name="storage", daemon=True).start()
        linked = threading.Thread(target=self._link.run, name="link", daemon=True)
        linked.start()
        log.info("the agent is ready", agent=self._host.agent, master=self._host.master, state=str(self._state.root))
        self._standing().write(self._state)
        self._supervisor.ready(f"agent {self._host.agent} of {self._host.master}")
        self._watch()
        return self._leave(linked)

    # --- while it runs ------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        turns, greeting, told = 0, self._greeting(), None
        hung: list[str] = []
        tick = min(_LOOK, self._supervisor.every / 4)
        while not self._stop.wait(tick):
            hung = self._hung(hung)
            if self._link.turns != turns and not hung:
                turns = self._link.turns
                self._supervisor.alive()
            if (standing := self._standing()) != told:
                told = standing
                standing.write(self._state)
                self._supervisor.status(standing.sentence)
            if not self._link.connected.is_set():
                self._reports.sync()
            if (fresh := self._greeting()) != greeting:
                greeting = fresh
                self._link.renew()

    def _hung(self, before: list[str]) -> list[str]:
        """Name the parts that hang, and say so once; systemd ends an agent that does not say that it is alive."""
        hung = self._pulse.hung()
        if hung and hung != before:
            log.error("a part of the agent hangs", parts=", ".join(hung))
            self._supervisor.status(f"{', '.join(hung)} hangs")
        return hung

    def _standing(self) -> Standing:
        master, agent = self._host.master, self._host.agent
        if self._link.connected.is_set():
            return Standing(True, f"agent {agent}, linked to {master}")
        return Standing(False, f"agent {agent}, no link to {master}: {self._link.trouble or 'it connects'}")

    def _take(self, bodies: Sequence[Body]) -> None:
        for are_jobs, some in itertools.groupby(bodies, key=lambda body: isinstance(body, messages.RunJob)):
            if are_jobs:
                self._jobs.take([body for body in some if isinstance(body, messages.RunJob)])
                continue
            for body in some:
                self._do(body)

    def _do(self, body: Body) -> None:
        match body:
            case messages.StopJob():
                self._jobs.stop(body)
            case messages.RunEnded():
                self._workspaces.release(body.project, body.run)
            case messages.Deploy():
                self._deploys.take(body)
            case messages.Steer():
                self._deploys.steer(body)

    def _job(self, attempt: Attempt) -> Job:
        file = self._host_file.now()
        try:
            save_logins(self._host.engine, file)
        except errors.KeepflowError as error:
            log.warning("the logins of agent.yml cannot be used to pull images of jobs", reason=error.message)
        return Job(attempt, replace(self._host, file=file))

    def _refusal(self, order: messages.RunJob) -> errors.Refused | None:
        file = self._host_file.now()
        refusal = refusal_of(order, file.capabilities, frozenset(self._kinds))
        return refusal or where_refusal(order, file)

    def _hello(self, hello: Hello) -> Hello:
        file = self._host_file.now()
        return hello.model_copy(
            update={
                "capabilities": file.capabilities,
                "labels": file.labels,
                "slots": file.jobs,
                "step_kinds": (*sorted(self._kinds), *_places(file)),
                "highest_fence": max(self._attempts.highest, self._deploys.highest_fence),
                "running": self._held(),
                "machine_id": machine_id(),
                "warnings": self._warnings(file),
            }
        )

    def _greeting(self) -> tuple[object, ...]:
        """Return what the master should know anew when it changes."""
        file = self._host_file.now()
        return file.capabilities, file.labels, file.jobs, _places(file), self._warnings(file)

    def _warnings(self, file: AgentFile) -> tuple[str, ...]:
        found = self._account.warnings(file.docker_for) if "run" in file.capabilities else []
        if in_the_clear(self._host.master):
            found.append("the link to the master is not encrypted; give the master a certificate and use https")
        if abs(self._clock.skew) > MOST_SKEW:
            found.append(
                "this host's clock differs from the master's by more than a minute; is its time kept by anything?"
            )
        if self._host_file.problem:
            found.append(self._host_file.problem)
        return tuple(found)

    def _beat(self) -> Heartbeat:
        return Heartbeat(
            at=self._clock.now(),
            running=self._held(),
            services=self._deploys.services(),
            free_bytes=shutil.disk_usage(self._state.root).free,
        )

    def _held(self) -> tuple[int, ...]:
        return tuple(sorted({*(attempt.fence for attempt in self._attempts), *self._deploys.open_fences()}))

    # --- how it ends --------------------------------------------------------------------------------------------------

    def _asked_to_stop(self, number: int, _frame: FrameType | None) -> None:
        log.info("the agent stops", signal=signal.Signals(number).name)
        self._ends_jobs = number == signal.SIGINT  # Ctrl-C: a person wants an end, and not a restart
        self._stop.set()

    def _thread_broke(self, arguments: threading.ExceptHookArgs) -> None:
        log.broke(
            "a part of the agent broke; it ends, and the next process recovers",
            arguments.exc_value,
            thread=arguments.thread.name if arguments.thread else "",
        )
        self._broken = True
        self._stop.set()

    def _leave(self, linked: threading.Thread) -> int:
        self._supervisor.stopping()
        deadline = time.monotonic() + _JOBS_STOP
        if self._ends_jobs:
            self._jobs.close(_JOBS_STOP)
        self._deploys.close(deadline - time.monotonic())
        self._link.leave("the agent was stopped")
        linked.join(_LINK_STOP)
        self._reports.sync()
        return 1 if self._broken else 0


def _places(file: AgentFile) -> tuple[str, ...]:
    """Return where steps may run beside this machine itself, as the master is told among the kinds of steps."""
    containers = (messages.CONTAINERS,) if file.containers.flows else ()
    return (*containers, *(f"{messages.SSH}{name}" for name in sorted(file.ssh)))


def _stay_lean() -> None:
    """Keep paramiko out: the engine's library loads it for ssh:// addresses, and it is a quarter of an idle agent."""
    sys.modules.setdefault("paramiko", None)  # type: ignore[arg-type]  # None is how an import is refused


def _ca_file(state: State, pem: str) -> Path | None:
    """Lay the master's authority down for git, which reads files only."""
    path = state.root / "ca.pem"
    if not pem:
        path.unlink(missing_ok=True)
        return None
    path.write_text(pem)
    return path
