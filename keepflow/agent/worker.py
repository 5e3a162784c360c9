"""Runs one script job: lane → steps in order → images → its end. Everything people see of it goes into the log.

What an earlier process of the agent had begun is taken up: how far it came is known from the marks in its log (a step
is two, its beginning and its end) and from its notes, and a command that was begun is found again and waited for.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from keepflow import errors
from keepflow.agent import boxes as containers
from keepflow.agent import environment, job_secrets, outputs, services
from keepflow.agent.accounts import may_use_engine
from keepflow.agent.attempts import Attempt
from keepflow.agent.boxes import Boxes, Hands, Site
from keepflow.agent.clock import Clock
from keepflow.agent.environment import Places
from keepflow.agent.job_host import Host
from keepflow.agent.lanes import Source
from keepflow.agent.logs import Log
from keepflow.agent.masks import masked, needles_of
from keepflow.agent.progress import Ending, Start, StepEnd, Stop
from keepflow.agent.recording import Recording, forget
from keepflow.agent.reports import Reports
from keepflow.config.where import Where
from keepflow.core import exits
from keepflow.core.boxes import Owner
from keepflow.core.text import one_line, words
from keepflow.executors.shell import MARK, Shell, end_marked
from keepflow.ports import Command, Executor, RegistryLogin, Running, StepContext, contained
from keepflow.tools.brake import Brake
from keepflow.wire import messages
from keepflow.wire.messages import BuiltImage, Login, RunJob, StepOrder

log = Log(__name__)

TIMEOUT = "timeout"  #: reason code of what took too long
_TIMED_OUT = 124  #: exit code of what took too long, as timeout(1) has it
_KILL_GRACE = 10.0  #: seconds a step has after its time is up
_CLEANING = 60.0  #: seconds for a step to put away what it made
_LEFT_BEHIND_GRACE = 2.0  #: seconds that processes have which outlived their job


class _Ended(Exception):
    """Leaves the steps from anywhere, with the reason."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.sentence)
        self.ending = ending


class Job:
    """One attempt while it runs. `run` is called once, `stop` from any thread at any time.

    One that had begun holds its lane from here on, so that no other job gets it.
    """

    def __init__(self, attempt: Attempt, host: Host) -> None:
        self._attempt = attempt
        self._order: RunJob = attempt.order
        self._host = host
        self._lock = threading.Lock()
        self._progress = progress = attempt.progress
        self._stop = progress.stop
        self._running: Running | None = None
        self._brake = Brake()  #: for the fetch, which is done by the agent itself
        self._taken_up = progress.start is not None
        self._began = progress.start.at if progress.start else time.monotonic()
        self._files = contextlib.ExitStack()
        if progress.start and progress.ending is None:
            again = Path(progress.start.workspace)
            self._files.enter_context(host.code.of(self._order, self._source(), again))
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
            with self._limit(self._order.timeout, "the job", self._began):
                ending = self._recorded()
        except Exception as error:
            ending = self._broke(error)
        ending = replace(ending, sentence=masked(ending.sentence, self._needles))
        report_end(self._attempt, self._host.reports, self._host.clock, ending)

    def stop(self, stop: Stop) -> None:
        """End the job soon; the first reason given is the one that is told."""
        with self._lock:
            if self._stop is None:
                self._stop = stop
                self._progress.stop_for(stop)
            running = self._running
        if running is not None:
            threading.Thread(target=running.kill, args=(stop.grace,), name=f"stop-{self.fence}", daemon=True).start()
        threading.Thread(target=self._brake.pull, name=f"brake-{self.fence}", daemon=True).start()

    @contextlib.contextmanager
    def _limit(self, seconds: float, what: str, since: float) -> Iterator[None]:
        """Stop the job when what is done inside takes longer, by a clock that nobody can turn; 0 is no limit."""
        sentence = f"{what} did not end within {words(seconds)}"
        left = max(0.0, since + seconds - time.monotonic())
        watch = threading.Timer(left, self.stop, [Stop(TIMEOUT, sentence, _KILL_GRACE, "failed", _TIMED_OUT)])
        watch.daemon = True
        if seconds:
            watch.start()
        try:
            yield
        finally:
            watch.cancel()

    # --- from the outside in: recording, lane, steps ------------------------------------------------------------------

    def _recorded(self) -> Ending:
        progress = self._progress
        if progress.ending is not None and progress.complete:
            forget(self._attempt)
            return progress.ending
        account = self._host.account.account
        recording = Recording(self._attempt, self._needles, (account.uid, account.gid) if account else None)
        try:
            if not self._attempt.log.size:
                recording.say_line(self._title())
            self._tell_again(recording)
            ending = progress.ending or self._ending_of(recording, lambda: self._in_lane(recording))
            if progress.ending is None:
                progress.end(ending, recording.marks)
            if recording.marks == progress.marks:
                recording.end(_last_lines(ending))
        finally:
            recording.close()
        progress.complete_log()
        forget(self._attempt)
        return ending

    def _ending_of(self, recording: Recording, work: Callable[[], Ending]) -> Ending:
        """Do a part of the job; whatever goes wrong in it is how the job ended."""
        try:
            return work()
        except _Ended as ended:
            return ended.ending
        except errors.KeepflowError as error:
            if (stopped := self._stopped()) is not None:
                return stopped
            recording.say_line(error.message)
            code = error.code if isinstance(error, errors.Refused) else "system"
            return Ending("failed", code, one_line(error.message, 400))
        except Exception as error:
            return self._broke(error)

    def _tell_again(self, recording: Recording) -> None:
        """Report the beginnings and ends of steps that an earlier process may not have come to report."""
        for mark, offset in recording.passed.items():
            index, is_end = divmod(mark - 1, 2)
            if self._progress.ending is not None and mark > self._progress.marks:
                continue  # the last words of the job
            if is_end:
                self._step_finished(index, self._progress.ended[index].code)(offset)
            else:
                self._step_started(index, one_line(self._order.steps[index].name))(offset)

    def _in_lane(self, recording: Recording) -> Ending:
        order, host, start = self._order, self._host, self._progress.start
        with self._files:
            workspace = Path(start.workspace) if start else self._filled()
            engine = host.file.docker.host if self._engine else None
            with host.workplace.of(order, workspace, engine, as_they_are=start is not None) as places:
                try:
                    ending = self._ending_of(recording, lambda: self._steps(recording, places))
                finally:  # nothing of this job may be left when its lane and its places go to the next one
                    self._end_processes(recording)
                self._progress.end(ending, recording.marks)  # before what it rests on is taken away
                return ending

    def _filled(self) -> Path:
        host = self._host
        with self._brake.applied():
            workspace = self._files.enter_context(host.code.of(self._order, self._source()))
        self._check_stop()
        host.reports.append(messages.JobStarted(fence=self.fence, at=host.clock.now(), node=host.agent))
        self._progress.begin(Start(str(workspace), self._began))
        return workspace

    def _source(self) -> Source:
        order, host = self._order, self._host
        return Source(f"{host.master}{order.code_path}", order.sha, order.token, host.ca_file)

    def _steps(self, recording: Recording, places: Places) -> Ending:
        host, order = self._host, self._order
        if not self._progress.same_boot:
            raise _Ended(Ending("lost", "machine-restarted", "the machine was restarted while this job ran"))
        if self._taken_up and containers.wants(order):
            sentence = "the agent was restarted while this job ran; its containers were removed"
            raise _Ended(Ending("lost", "agent-restarted", sentence))
        env = environment.of_job(order, host.agent, host.master, host.account.name, self._attempt.mark, places)
        env |= _added(order.given) | _added(dict(outputs.read(places.env)[0]))
        if not recording.marks:  # no step has begun, here or before a restart
            host.artifacts.fetch(order, places.workspace, recording.say_line)
        boxes = self._boxes(recording, places, env)
        try:
            with services.beside(boxes, Where.model_validate(order.where), env) as addresses:
                env |= addresses
                for index, step in enumerate(order.steps):
                    if recording.marks < 2 * index + 2:
                        self._check_stop()
                        self._step(recording, places, boxes, env, index, step)
                        env |= _added(dict(self._told(recording, places.env)))
                    elif (ending := self._progress.ended[index].ending) is not None:
                        raise _Ended(ending)
        except _Ended as ended:
            told = self._told(recording, places.output)
            raise _Ended(replace(ended.ending, outputs=self._outputs(recording, told))) from None
        finally:
            boxes.close()
        told = self._told(recording, places.output)
        images = self._built(told)
        return Ending("succeeded", exit_code=0, images=images, outputs=self._outputs(recording, told))

    def _boxes(self, recording: Recording, places: Places, env: Mapping[str, str]) -> Boxes:
        host, order, attempt = self._host, self._order, self._attempt
        owner = Owner(host.key_id, attempt.mark, order.fence, f"{order.project}#{order.run}", order.job)
        site = Site(
            host.engine,
            host.file.containers,
            host.account.account,
            owner,
            places,
            attempt.directory,
            dict(env),
            host.file.ssh,
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
        name = one_line(step.name)
        if recording.marks < 2 * index + 1:
            self._progress.begin_step(index, time.monotonic())
            recording.begin_step(f"── {self._count(index)} {name}", self._step_started(index, name))
        end = self._progress.ended.get(index)
        if end is None:
            end = self._carried_out(recording, places, boxes, env, index, step)
            self._progress.end_step(index, end)
        recording.end_step(end.line, self._step_finished(index, end.code))
        if end.ending is not None:
            raise _Ended(end.ending)

    def _carried_out(
        self,
        recording: Recording,
        places: Places,
        boxes: Boxes,
        env: Mapping[str, str],
        index: int,
        step: StepOrder,
    ) -> StepEnd:
        name = one_line(step.name)
        since = self._progress.began[index]
        try:
            with (
                self._limit(step.timeout, f"{self._count(index)} {name}", since),
                self._given(index, step, places) as variables,
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
            ending = _failed(self._count(index), name, code)
        seconds = time.monotonic() - since
        how = f"failed: exit {code}" if code else "done"
        return StepEnd(code, f"── {self._count(index)} {name} {how} ({seconds:.1f} s)", ending)

    def _given(self, index: int, step: StepOrder, places: Places) -> contextlib.AbstractContextManager[dict[str, str]]:
        """Give a step its secrets; what it had before a restart is known by names that no job can guess."""
        token = hashlib.sha256(f"{self._attempt.nonce} secrets {index}".encode()).hexdigest()[:16]
        has_them = self._attempt.result(index, 0).exists()
        return job_secrets.given(
            step.secrets, self._secrets, places, self._host.account.account, token=token, again=has_them
        )

    def _count(self, index: int) -> str:
        return f"step {index + 1}/{len(self._order.steps)}"

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

        commands = itertools.count()

        def sh(argv: Sequence[str], more: Mapping[str, str]) -> int:
            full = environment.clean({**env, **more}) if more else env
            command = boxes.command(Command(tuple(argv), full, places.workspace), own, of_job)
            result = self._attempt.result(index, next(commands))
            return self._run(command, box or self._shell, recording, result)

        context = StepContext(
            workspace=places.workspace,
            env=env,
            output_file=places.output,
            say=recording.say,
            sh=sh,
            at_end=cleaning.append,
            registries={login.address: _lent(login) for login in self._order.logins},
            keep=lambda patterns, seconds: self._keep(recording, places, patterns, seconds),
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
            running = self._running = self._found(executor, result) or executor.start(command, recording.output, result)
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

    def _found(self, executor: Executor, result: Path) -> Running | None:
        """Return a command that an earlier process of the agent had begun, running or ended."""
        try:
            return executor.find(self._attempt.mark, result) if self._taken_up else None
        except errors.Unavailable as error:
            raise _Ended(Ending("lost", "agent-restarted", f"the agent was restarted: {error.message}")) from None

    def _keep(self, recording: Recording, places: Places, patterns: Sequence[str], seconds: float) -> None:
        self._host.artifacts.keep(self._order, places.workspace, patterns, seconds, recording.say_line)

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

    def _built(self, told: list[tuple[str, str]]) -> tuple[BuiltImage, ...]:
        return self._host.images.resolve(told, self._order, with_engine=self._engine)

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


def _added(told: Mapping[str, str]) -> dict[str, str]:
    return environment.clean(environment.added(told))


def _last_lines(ending: Ending) -> list[str]:
    built = (f"{image.origin} release {image.repository} {image.digest or image.image_id}" for image in ending.images)
    return [*(f"── {line}" for line in built), f"── {ending.state}{': ' if ending.sentence else ''}{ending.sentence}"]


def _failed(step: str, name: str, code: int) -> Ending:
    meaning = exits.meaning(code)
    sentence = f"{step} {name} failed with exit code {code}" + (f": {meaning}" if meaning else "")
    return Ending("failed", "exit", sentence, code)


def _unmarked(env: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that does not say whose a process is, so that it is not ended with the job."""
    return {name: value for name, value in env.items() if name != MARK}


def _fault(error: errors.KeepflowError) -> str:
    return "config" if isinstance(error, errors.UsageError) else "system"


def _lent(login: Login) -> RegistryLogin:
    return RegistryLogin(login.address, login.username, login.password, login.ca_pem, login.repositories)
