"""Runs one script job: lane → steps in order → images → its end. Everything people see of it goes into the log."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Literal, Protocol

from pydantic import ValidationError

from keepflow import errors
from keepflow.agent import environment, job_secrets, outputs, services
from keepflow.agent.accounts import JobsAccount, may_use_engine
from keepflow.agent.attempts import Attempt
from keepflow.agent.boxes import Boxes, Hands, Site
from keepflow.agent.clock import Clock
from keepflow.agent.environment import Places
from keepflow.agent.images import Images
from keepflow.agent.lanes import Source
from keepflow.agent.logs import Log
from keepflow.agent.masks import masked, needles_of
from keepflow.agent.recording import Recording
from keepflow.agent.reports import Reports
from keepflow.agent.workplace import Workplace
from keepflow.config.agent_file import AgentFile
from keepflow.config.where import Where
from keepflow.core import exits
from keepflow.core.boxes import Owner
from keepflow.core.text import one_line, words
from keepflow.executors.shell import MARK, Shell, end_marked
from keepflow.ports import Command, Executor, RegistryLogin, Running, StepContext, contained
from keepflow.tools.brake import Brake
from keepflow.tools.engine import Engine
from keepflow.wire import messages
from keepflow.wire.messages import BuiltImage, Login, RunJob, StepOrder

log = Log(__name__)

TIMEOUT = "timeout"  #: reason code of what took too long
_TIMED_OUT = 124  #: exit code of what took too long, as timeout(1) has it
_KILL_GRACE = 10.0  #: seconds a step has after its time is up
_CLEANING = 60.0  #: seconds for a step to put away what it made
_LEFT_BEHIND_GRACE = 2.0  #: seconds that processes have which outlived their job


class Code(Protocol):
    """Where jobs have their files: `agent.workspaces.Workspaces`, or a person's own working tree."""

    def of(self, order: RunJob, source: Source) -> contextlib.AbstractContextManager[Path]:
        """Hold the working tree of a job while it runs: its commit, with what the jobs before it left."""


@dataclass(frozen=True, slots=True)
class Host:
    """What every job on this host is given; made once, by the daemon."""

    agent: str
    master: str
    ca_file: Path | None
    file: AgentFile
    account: JobsAccount
    workplace: Workplace
    code: Code
    kinds: Mapping[str, ModuleType]
    images: Images
    reports: Reports
    clock: Clock
    secrets: Callable[[RunJob], dict[str, str]]  #: opens what came with an order, by name
    engine: Engine
    key_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Somebody wants the job to end now. `state` is what it will have been."""

    code: str
    sentence: str
    grace: float
    state: Literal["cancelled", "lost", "failed"] = "cancelled"
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended."""

    state: Literal["succeeded", "failed", "cancelled", "lost"]
    code: str = ""
    sentence: str = ""
    exit_code: int | None = None
    images: tuple[BuiltImage, ...] = ()
    outputs: Mapping[str, str] = field(default_factory=dict)


class _Ended(Exception):
    """Leaves the steps from anywhere, with the reason."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.sentence)
        self.ending = ending


class Job:
    """One attempt while it runs. `run` is called once, `stop` from any thread at any time."""

    def __init__(self, attempt: Attempt, host: Host) -> None:
        self._attempt = attempt
        self._order: RunJob = attempt.order
        self._host = host
        self._lock = threading.Lock()
        self._stop: Stop | None = None
        self._running: Running | None = None
        self._brake = Brake()  #: for the fetch, which is done by the agent itself
        self._secrets = host.secrets(self._order)
        self._needles = needles_of(self._order, self._secrets.values())
        self._engine = may_use_engine(self._order, host.file)
        self._shell = Shell(host.account.for_job(with_engine=self._engine))

    @property
    def fence(self) -> int:
        """The number that names this attempt."""
        return self._order.fence

    def run(self) -> None:
        """Carry the job out and report its end; never raises."""
        try:
            with self._limit(self._order.timeout, "the job"):
                ending = self._recorded()
        except Exception as error:
            ending = self._broke(error)
        ending = replace(ending, sentence=masked(ending.sentence, self._needles))
        report_end(self._attempt, self._host.reports, self._host.clock, ending)

    def stop(self, stop: Stop) -> None:
        """End the job soon; the first reason given is the one that is told."""
        with self._lock:
            self._stop = self._stop or stop
            running = self._running
        if running is not None:
            threading.Thread(target=running.kill, args=(stop.grace,), name=f"stop-{self.fence}", daemon=True).start()
        threading.Thread(target=self._brake.pull, name=f"brake-{self.fence}", daemon=True).start()

    @contextlib.contextmanager
    def _limit(self, seconds: float, what: str) -> Iterator[None]:
        """Stop the job when what is done inside takes longer, by a clock that nobody can turn; 0 is no limit."""
        sentence = f"{what} did not end within {words(seconds)}"
        watch = threading.Timer(seconds, self.stop, [Stop(TIMEOUT, sentence, _KILL_GRACE, "failed", _TIMED_OUT)])
        watch.daemon = True
        if seconds:
            watch.start()
        try:
            yield
        finally:
            watch.cancel()

    # --- from the outside in: recording, lane, steps ------------------------------------------------------------------

    def _recorded(self) -> Ending:
        account = self._host.account.account
        recording = Recording(self._attempt, self._needles, (account.uid, account.gid) if account else None)
        try:
            recording.say_line(self._title())
            try:
                ending = self._in_lane(recording)
            except _Ended as ended:
                ending = ended.ending
            except errors.KeepflowError as error:
                code = error.code if isinstance(error, errors.Refused) else "system"
                ending = self._stopped() or Ending("failed", code, one_line(error.message, 400))
                if self._stop is None:
                    recording.say_line(error.message)
            except Exception as error:
                ending = self._broke(error)
            recording.say_line(f"── {ending.state}{': ' if ending.sentence else ''}{ending.sentence}")
        finally:
            recording.close()
        return ending

    def _in_lane(self, recording: Recording) -> Ending:
        order, host = self._order, self._host
        source = Source(f"{host.master}{order.code_path}", order.sha, order.token, host.ca_file)
        with contextlib.ExitStack() as held:
            with self._brake.applied():
                workspace = held.enter_context(host.code.of(order, source))
            self._check_stop()
            engine = host.file.docker.host if self._engine else None
            with host.workplace.of(order, workspace, engine) as places:
                try:
                    return self._steps(recording, places)
                finally:  # nothing of this job may be left when its lane and its places go to the next one
                    self._end_processes(recording)

    def _steps(self, recording: Recording, places: Places) -> Ending:
        host, order = self._host, self._order
        env = environment.of_job(order, host.agent, host.master, host.account.name, self._attempt.mark, places)
        env |= environment.clean(environment.added(order.given))
        host.reports.append(messages.JobStarted(fence=self.fence, at=host.clock.now(), node=host.agent))
        boxes = self._boxes(recording, places, env)
        try:
            with services.beside(boxes, Where.model_validate(order.where), env) as addresses:
                env |= addresses
                for index, step in enumerate(order.steps):
                    self._check_stop()
                    self._step(recording, places, boxes, env, index, step)
                    env |= environment.clean(environment.added(dict(self._told(recording, places.env))))
        except _Ended as ended:
            told = self._told(recording, places.output)
            raise _Ended(replace(ended.ending, outputs=self._outputs(recording, told))) from None
        finally:
            boxes.close()
        told = self._told(recording, places.output)
        images = self._built(recording, told)
        return Ending("succeeded", exit_code=0, images=images, outputs=self._outputs(recording, told))

    def _boxes(self, recording: Recording, places: Places, env: Mapping[str, str]) -> Boxes:
        host, order, attempt = self._host, self._order, self._attempt
        owner = Owner(host.key_id, attempt.mark, order.fence, f"{order.project}#{order.run}", order.job)
        site = Site(
            host.engine, host.file.containers, host.account.account, owner, places, attempt.directory, dict(env)
        )

        def built() -> str | None:
            told = self._told(recording, places.output)
            return next((text for key, text in reversed(told) if key == "image"), order.built or None)

        def run(command: Command) -> int:
            return self._run(command, Shell(), recording, attempt.directory / "box-result")

        return Boxes(site, Hands(run, recording.say_line, built, self._check_stop))

    def _step(
        self,
        recording: Recording,
        places: Places,
        boxes: Boxes,
        env: Mapping[str, str],
        index: int,
        step: StepOrder,
    ) -> None:
        """Run one step; raises _Ended when it was the last one to run."""
        count, name = len(self._order.steps), one_line(step.name)
        recording.begin_step(f"── step {index + 1}/{count} {name}", self._step_started(index, name))
        started = time.monotonic()
        try:
            with (
                self._limit(step.timeout, f"step {index + 1}/{count} {name}"),
                job_secrets.given(step.secrets, self._secrets, places, self._host.account.account) as variables,
            ):
                step_env = environment.of_step(env, step.name) | environment.clean(variables)
                code = self._perform(recording, places, boxes, step_env, index, step)
            ending = None
        except _Ended as ended:
            code, ending = ended.ending.exit_code or 1, ended.ending
        except errors.KeepflowError as error:
            code, ending = 1, self._stopped() or Ending("failed", _fault(error), one_line(error.message, 400), 1)
            if self._stop is None:
                recording.say_line(error.message)
        if code and ending is None:
            ending = _failed(index, count, name, code)
        seconds = time.monotonic() - started
        how = f"failed: exit {code}" if code else "done"
        last_line = f"── step {index + 1}/{count} {name} {how} ({seconds:.1f} s)"
        recording.end_step(last_line, self._step_finished(index, code))
        if ending is not None:
            raise _Ended(ending)

    def _step_started(self, index: int, name: str) -> Callable[[int], None]:
        """Return what reports the start of a step, as of now, once its place in the log is known."""
        shown, at = masked(name, self._needles), self._host.clock.now()

        def report(offset: int) -> None:
            body = messages.StepStarted(fence=self.fence, index=index, name=shown, at=at, offset=offset)
            self._host.reports.append(body)

        return report

    def _step_finished(self, index: int, code: int) -> Callable[[int], None]:
        """Return what reports the end of a step, as of now, once its place in the log is known."""
        at = self._host.clock.now()

        def report(offset: int) -> None:
            body = messages.StepFinished(fence=self.fence, index=index, at=at, exit_code=code, offset=offset)
            self._host.reports.append(body)

        return report

    def _perform(
        self,
        recording: Recording,
        places: Places,
        boxes: Boxes,
        env: dict[str, str],
        index: int,
        step: StepOrder,
    ) -> int:
        kind = self._host.kinds[step.kind]
        try:
            spec = kind.Spec.model_validate(step.spec)
        except ValidationError as error:
            raise errors.UsageError(
                f"step {step.name}: its settings do not fit this agent's version: {error}"
            ) from None

        cleaning: list[Sequence[str]] = []
        said = (step.where, self._order.where)
        beside = Where(services=Where.model_validate(step.where).services)
        own, of_job = (Where.model_validate(where if contained(kind) else {}) for where in said)

        def sh(argv: Sequence[str], more: Mapping[str, str]) -> int:
            full = environment.clean({**env, **more}) if more else env
            command = boxes.command(Command(tuple(argv), full, places.workspace), own, of_job)
            return self._run(command, box or self._shell, recording, self._attempt.result(index))

        context = StepContext(
            workspace=places.workspace,
            env=env,
            output_file=places.output,
            say=recording.say,
            sh=sh,
            at_end=cleaning.append,
            registries={login.address: _lent(login) for login in self._order.logins},
        )
        with services.beside(boxes, beside, env) as addresses:
            env |= addresses
            with boxes.executor(own, of_job, env) as box:
                try:
                    return int(kind.perform(spec, context))
                finally:
                    for argv in reversed(cleaning):
                        self._clean_up(Command(tuple(argv), _unmarked(env), places.workspace), recording)

    def _run(self, command: Command, executor: Executor, recording: Recording, result: Path) -> int:
        self._check_stop()
        with self._lock:
            running = self._running = executor.start(command, recording.output, result)
        try:
            if self._stop is not None:  # it came while the command was being started
                running.kill(self._stop.grace)
            code = running.wait(command.timeout)
            if code is None:
                running.kill(_KILL_GRACE)
                limit = words(command.timeout or 0.0)
                raise _Ended(Ending("failed", TIMEOUT, f"{command.argv[0]} did not end within {limit}", _TIMED_OUT))
        finally:
            with self._lock:
                self._running = None
        self._check_stop()
        return code

    def _clean_up(self, command: Command, recording: Recording) -> None:
        """Run a command that puts things away; whoever stopped the job has no power over it, only its own limit has."""
        running = self._shell.start(command, recording.output, self._attempt.directory / "cleaning-result")
        if running.wait(_CLEANING) is None:
            running.kill(_KILL_GRACE)
            recording.say_line(f"── {command.argv[0]} did not put everything away within {words(_CLEANING)}")

    def _check_stop(self) -> None:
        ending = self._stopped()
        if ending is not None:
            raise _Ended(ending)

    def _stopped(self) -> Ending | None:
        """Return how the job ends when somebody asked for its end; what fails meanwhile fails because of that."""
        stop = self._stop
        return Ending(stop.state, stop.code, stop.sentence, stop.exit_code) if stop else None

    # --- the end ------------------------------------------------------------------------------------------------------

    def _told(self, recording: Recording, path: Path) -> list[tuple[str, str]]:
        pairs, complaints = outputs.read(path)
        for complaint in complaints:
            recording.say_line(complaint)
        return pairs

    def _outputs(self, recording: Recording, told: list[tuple[str, str]]) -> dict[str, str]:
        """Return what the job tells the jobs behind it; a value that holds a lent secret stays here."""
        found = environment.added({key: value for key, value in told if key not in outputs.WORDS})
        for key in [key for key, value in found.items() if masked(value, self._needles) != value]:
            recording.say_line(f"{key} holds a secret and is not given to other jobs")
            del found[key]
        return found

    def _built(self, recording: Recording, told: list[tuple[str, str]]) -> tuple[BuiltImage, ...]:
        built = self._host.images.resolve(told, self._order, with_engine=self._engine)
        for image in built:
            recording.say_line(f"── {image.origin} release {image.repository} {image.digest or image.image_id}")
        return built

    def _end_processes(self, recording: Recording) -> None:
        grace = self._stop.grace if self._stop else _LEFT_BEHIND_GRACE
        if not end_marked(self._attempt.mark, grace):
            recording.say_line("── some processes of this job hang in the kernel and could not be ended")

    def _title(self) -> str:
        order = self._order
        short = order.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
        where = f"{order.sha[:10]} ({one_line(short, 60)}) on {self._host.agent}"
        return f"── {order.project}#{order.run} {order.flow}/{order.job}, attempt {order.attempt}: {where}"

    def _broke(self, error: Exception) -> Ending:
        log.broke("a job broke", error, fence=self.fence)
        sentence = f"the agent could not carry the job out: {one_line(str(error))}"
        return Ending("failed", "system", sentence)


def report_end(attempt: Attempt, reports: Reports, clock: Clock, ending: Ending) -> None:
    """Put a job's end on the list of reports; its log must be complete."""
    body = messages.JobFinished(
        fence=attempt.fence,
        at=clock.now(),
        state=ending.state,
        code=ending.code,
        sentence=ending.sentence,
        exit_code=ending.exit_code,
        images=ending.images,
        outputs=dict(ending.outputs),
        log_bytes=attempt.log.size,
    )
    attempt.end(reports.append(body))


def _failed(index: int, count: int, name: str, code: int) -> Ending:
    meaning = exits.meaning(code)
    sentence = f"step {index + 1}/{count} {name} failed with exit code {code}" + (f": {meaning}" if meaning else "")
    return Ending("failed", "exit", sentence, code)


def _unmarked(env: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that does not say whose a process is, so that it is not ended with the job."""
    return {name: value for name, value in env.items() if name != MARK}


def _fault(error: errors.KeepflowError) -> str:
    return "config" if isinstance(error, errors.UsageError) else "system"


def _lent(login: Login) -> RegistryLogin:
    return RegistryLogin(login.address, login.username, login.password, login.ca_pem, login.repositories)
