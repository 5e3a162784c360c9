"""Carries out the steps of one job, in order, in the places it was given, and says how that ended.

A step whose end is in the log is not begun again; a command that an earlier process of the agent had begun is found and
waited for.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from keepflow import errors
from keepflow.agent import boxes as containers
from keepflow.agent import environment, job_secrets, leftovers, outputs, services
from keepflow.agent.accounts import why_no_engine
from keepflow.agent.box_notes import Notes
from keepflow.agent.boxes import Boxes, Hands, Site
from keepflow.agent.environment import Places
from keepflow.agent.halting import KILL_GRACE, TIMED_OUT, TIMEOUT, Ended
from keepflow.agent.progress import Ending, StepEnd
from keepflow.agent.recording import Recording
from keepflow.agent.said import Said
from keepflow.agent.task import Task
from keepflow.config.where import Where
from keepflow.core import exits
from keepflow.core.boxes import Owner
from keepflow.core.reasons import MEANINGS
from keepflow.core.text import one_line, quoted, words
from keepflow.executors.shell import MARK, Shell
from keepflow.ports import Command, Executor, RegistryLogin, Running, StepContext, contained
from keepflow.wire.messages import Login, StepOrder

_CLEANING = 60.0  #: seconds for a step to put away what it made


@dataclass(frozen=True, slots=True)
class _Turn:
    """A step whose turn it is: the boxes its commands may run in, and the variables of the job as it comes to it."""

    index: int
    step: StepOrder
    count: str  #: `step 2/3`
    boxes: Boxes
    env: Mapping[str, str]

    @property
    def name(self) -> str:
        """What people see of it in one line."""
        return one_line(self.step.name)


class Steps:
    """The steps of one job; `carry_out` is called once."""

    def __init__(self, task: Task, recording: Recording, places: Places) -> None:
        self._task, self._recording, self._places = task, recording, places
        self._attempt, self._order, self._host, self._halt = task.attempt, task.order, task.host, task.halt
        self._progress = task.attempt.progress
        self._said = Said(task, recording)
        self._shell = Shell(self._host.account.for_job(with_engine=task.engine))

    def carry_out(self) -> Ending:
        """Carry out what is left of the steps and return how they ended; raises Ended and what goes wrong elsewhere."""
        host, order, places = self._host, self._order, self._places
        if not self._progress.same_boot:
            job_secrets.take_back(self._attempt.directory, host.account.account)
            if containers.wants(order) or self._task.engine:
                self._boxes({}).forsake()
            raise Ended(Ending("lost", "machine-restarted", "the machine was restarted while this job ran"))
        env = environment.of_job(order, host.agent, host.master, host.account.name, self._attempt.mark, places)
        env |= _added(order.given) | _added(dict(outputs.read(places.env)[0]))
        if not self._recording.marks:  # no step has begun, here or before a restart
            with self._halt.brake.applied():
                host.artifacts.fetch(order, places.workspace, self._recording)
        boxes = self._boxes(env)
        try:
            with services.beside(boxes, containers.OF_JOB, Where.model_validate(order.where), env) as addresses:
                env |= addresses
                for index, step in enumerate(order.steps):
                    if self._recording.marks < 2 * index + 2:
                        self._halt.check()
                        self._step(_Turn(index, step, f"step {index + 1}/{len(order.steps)}", boxes, env))
                        env |= _added(dict(self._said.read(places.env)))
                    elif (ending := self._progress.ended[index].ending) is not None:
                        raise Ended(ending)
        except Ended as ended:
            told = self._said.read(places.output)
            raise Ended(replace(ended.ending, outputs=self._said.outputs(told))) from None
        finally:
            boxes.close()
        told = self._said.read(places.output)
        images = self._said.images(told)
        return Ending("succeeded", exit_code=0, images=images, outputs=self._said.outputs(told))

    def _boxes(self, env: Mapping[str, str]) -> Boxes:
        host, order, attempt = self._host, self._order, self._attempt
        owner = Owner(host.key_id, attempt.mark, order.fence, f"{order.project}#{order.run}", order.job)
        site = Site(
            host.engine,
            host.kept_images,
            host.file.containers,
            host.account.account,
            owner,
            self._places,
            attempt.directory,
            dict(env),
            host.file.ssh,
        )

        def built() -> str | None:
            told = self._said.read(self._places.output)
            return next((text for key, text in reversed(told) if key == "image"), order.built or None)

        def run(name: str, command: Command) -> int:
            return self._run(command, Shell(), attempt.directory / f"box-{name}", again=True)

        recording, halt = self._recording, self._halt
        hands = Hands(run, recording.tell, lambda: recording.marks, built, halt.check, halt.brake.applied)
        return Boxes(site, hands, Notes(attempt.directory / "boxes"))

    # --- one step -----------------------------------------------------------------------------------------------------

    def _step(self, turn: _Turn) -> None:
        """Run one step; raises Ended when it was the last one to run."""
        index, recording = turn.index, self._recording
        if recording.marks < 2 * index + 1:
            self._progress.begin_step(index, time.monotonic())
            recording.begin_step(f"── {turn.count} {turn.name}", self._task.step_started(index))
        end = self._progress.ended.get(index)
        if end is None:
            end = self._carried_out(turn)
            self._progress.end_step(index, end)
        recording.end_step(end.line, self._task.step_finished(index, end.code))
        if end.ending is not None:
            raise Ended(end.ending)

    def _carried_out(self, turn: _Turn) -> StepEnd:
        step, since = turn.step, self._progress.began[turn.index]
        try:
            with (
                self._halt.limit(step.timeout, f"{turn.count} {turn.name}", since),
                self._given(turn) as variables,
            ):
                step_env = environment.of_step(turn.env, step.name) | environment.clean(variables)
                code = self._perform(turn, step_env)
            ending = None
        except Ended as ended:
            code, ending = ended.ending.exit_code or 1, ended.ending
        except errors.KeepflowError as error:
            code, ending = 1, self._halt.ending or Ending("failed", _fault(error), one_line(error.message, 400), 1)
            if self._halt.asked is None:
                self._recording.say_line(error.message)
        if code and ending is None:
            ending = _failed(turn.count, turn.name, code)
        seconds = time.monotonic() - since
        how = f"failed: exit {code}" if code else "done"
        return StepEnd(code, f"── {turn.count} {turn.name} {how} ({seconds:.1f} s)", ending)

    @contextlib.contextmanager
    def _given(self, turn: _Turn) -> Iterator[dict[str, str]]:
        """Give a step its secrets; what it had before a restart is known by names that no job can guess."""
        token = hashlib.sha256(f"{self._attempt.nonce} secrets {turn.index}".encode()).hexdigest()[:16]
        has_them = self._attempt.result(turn.index, 0).exists()
        account, uses, directory = self._host.account.account, turn.step.secrets, self._attempt.directory
        without = [use.name for use in uses if use.optional and use.name not in self._task.secrets]
        if without:
            self._recording.tell(f"this run does not get {', '.join(map(quoted, without))}; the step goes without")
        job_secrets.note(directory, self._places.workspace, uses)
        try:
            with job_secrets.given(
                uses, self._task.secrets, self._places, account, token=token, again=has_them
            ) as given:
                yield given
        finally:
            job_secrets.settle(directory)

    def _perform(self, turn: _Turn, env: dict[str, str]) -> int:
        step, boxes, workspace = turn.step, turn.boxes, self._places.workspace
        kind = self._host.kinds[step.kind]
        try:
            spec = kind.Spec.model_validate(step.spec)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3])
            raise errors.UsageError(
                f"step {step.name}: its settings do not fit this agent's version ({wrong}); update the agent"
            ) from None

        cleaning: list[Sequence[str]] = []
        said = (step.where, self._order.where)
        beside = Where(services=Where.model_validate(step.where).services)
        own, of_job = (Where.model_validate(where if contained(kind) else {}) for where in said)

        commands = itertools.count()

        def sh(argv: Sequence[str], more: Mapping[str, str]) -> int:
            full = environment.clean({**env, **more}) if more else env
            command = boxes.command(Command(tuple(argv), full, workspace), own, of_job)
            result = self._attempt.result(turn.index, next(commands))
            return self._run(command, box or self._shell, result)

        context = StepContext(
            workspace=workspace,
            env=env,
            output_file=self._places.output,
            say=self._recording.say,
            sh=sh,
            at_end=cleaning.append,
            registries={login.address: _lent(login) for login in self._order.logins},
            keep=self._keep,
            no_engine="" if self._task.engine else why_no_engine(self._order, self._host.file),
        )
        scope = f"step-{turn.index + 1}"
        with services.beside(boxes, scope, beside, env) as addresses:
            env |= addresses
            with boxes.executor(scope, own, of_job, env) as box:
                try:
                    return int(kind.perform(spec, context))
                finally:
                    if cleaning and self._halt.asked and self._task.engine:
                        leftovers.end_compose(self._host.engine, self._attempt.mark)
                    for argv in reversed(cleaning):
                        self._clean_up(Command(tuple(argv), _unmarked(env), workspace))

    # --- one command --------------------------------------------------------------------------------------------------

    def _run(self, command: Command, executor: Executor, result: Path, *, again: bool = False) -> int:
        """Run a command to its end; `again` is for one that does no harm when it is begun once more."""

        def begin() -> Running:
            found = self._found(executor, result, again=again)
            return found or executor.start(command, self._recording.output, result)

        with self._halt.ends(begin) as running:
            code = running.wait(command.timeout)
            if code is None:
                running.kill(KILL_GRACE)
                limit = words(command.timeout or 0.0)
                raise Ended(Ending("failed", TIMEOUT, f"{command.argv[0]} did not end within {limit}", TIMED_OUT))
        return code

    def _found(self, executor: Executor, result: Path, *, again: bool) -> Running | None:
        """Return a command that an earlier process of the agent had begun, running or ended."""
        try:
            return executor.find(self._attempt.mark, result) if self._task.taken_up else None
        except errors.Unavailable as error:
            if again:
                return None
            raise Ended(Ending("lost", "agent-restarted", f"the agent was restarted: {error.message}")) from None

    def _clean_up(self, command: Command) -> None:
        """Run a command that puts things away; whoever stopped the job has no power over it, only its own limit has."""
        running = self._shell.start(command, self._recording.output, self._attempt.directory / "cleaning-result")
        if running.wait(_CLEANING) is None:
            running.kill(KILL_GRACE)
            self._recording.say_line(f"── {command.argv[0]} did not put everything away within {words(_CLEANING)}")

    def _keep(self, patterns: Sequence[str], seconds: float) -> None:
        with self._halt.brake.applied():
            self._host.artifacts.keep(self._order, self._places.workspace, patterns, seconds, self._recording)


def _added(told: Mapping[str, str]) -> dict[str, str]:
    return environment.clean(environment.added(told))


def _failed(step: str, name: str, code: int) -> Ending:
    meaning = exits.meaning(code)
    sentence = f"{step} {name} failed with exit code {code}" + (f": {meaning}" if meaning else "")
    return Ending("failed", "exit", sentence, code)


def _unmarked(env: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that does not say whose a process is, so that it is not ended with the job."""
    return {name: value for name, value in env.items() if name != MARK}


def _fault(error: errors.KeepflowError) -> str:
    """Return the reason code of a step that could not be carried out; a refusal that has words of its own keeps it."""
    if isinstance(error, errors.Refused) and error.code in MEANINGS:
        return error.code
    return "config" if isinstance(error, errors.UsageError) else "system"


def _lent(login: Login) -> RegistryLogin:
    return RegistryLogin(login.address, login.username, login.password, login.ca_pem, login.repositories)
