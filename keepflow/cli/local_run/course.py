"""The course of a local run: the rules that move a run on decide what comes next, the worker carries it out here."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from keepflow.agent.attempts import Attempt
from keepflow.agent.progress import Stop
from keepflow.agent.worker import Job
from keepflow.cli.local_run.desk import Desk
from keepflow.cli.local_run.own_secrets import missing
from keepflow.core.events import Event
from keepflow.core.flows import JOB_TIMEOUT, JobKind, Plan, PlannedJob
from keepflow.core.progress import NEEDS, JobView, Progress, progress
from keepflow.core.script_names import environment_after, failed_before, given_to, names_of_run
from keepflow.core.states import Reason, State
from keepflow.core.text import one_line
from keepflow.executors.shell import end_marked
from keepflow.wire import messages

_PIECE = 64 * 1024
_GRACE = 5.0  #: seconds that a step has to end when the person stops the run
#: Kinds of jobs that a local run leaves out, and why. What needed one of them is left out, too.
_LEFT_OUT = {
    JobKind.DEPLOY: "a local run deploys nothing",
    JobKind.APPROVE: "nobody is asked in a local run",
    JobKind.NOTIFY: "a local run tells nobody",
}
_PUSH = "push"  #: the kind of step that needs what only a master lends
_NO_PUSH = "a local run is lent no registry to push to"


@dataclass(slots=True)
class Course:
    """One local run while it goes on. `show` gets the log as it is written, `say` what is said about the run."""

    project: str
    plan: Plan
    event: Event
    desk: Desk
    woken: threading.Event
    show: Callable[[bytes], None]
    say: Callable[[str], None]
    _told: dict[str, dict[str, str]] = field(default_factory=dict)  #: what jobs told those behind them, by job
    _built: str = ""  #: the image that was built last

    def run(self) -> Progress:
        """Carry out what can be carried out here, in the order of the plan; return how the run ended.

        A KeyboardInterrupt ends the step with all it started, and is raised again when everything is gone.
        """
        views = {job.key: _first_view(job) for job in self.plan.jobs}
        planned = {job.key: job for job in self.plan.jobs}
        while True:
            now = progress(list(views.values()))
            for key, reason in now.skipped.items():
                views[key] = self._left_out(views[key], reason)
            if not now.ready:
                return now
            key = now.ready[0]  # one after the other, as on an agent with one slot
            if (why := _why_not(planned[key])) is not None:
                views[key] = self._left_out(views[key], Reason("local", why))
            else:
                states = {one: view.state for one, view in views.items()}
                end = self._tried(planned[key], failed_before(planned[key], self.plan.jobs, states))
                reason = Reason(end.code, end.sentence)
                views[key] = replace(views[key], state=State(end.state), reason=reason, pending=False)

    def _left_out(self, view: JobView, reason: Reason) -> JobView:
        self.say(f"── {view.key} is left out: {reason.sentence.removeprefix('skipped, ')}")
        return replace(view, state=State.SKIPPED, reason=reason, pending=False)

    def _tried(self, planned: PlannedJob, failed: str) -> messages.JobFinished:
        """Carry a job out as often as its flow says; a further try finds the checkout as the one before left it."""
        for tries in itertools.count(1):
            end, rule = self._carried_out(planned, failed, tries), planned.retry
            if rule is None or not rule.after(tries, State(end.state), end.code, end.exit_code):
                break
            self.say(f"── {planned.key}: {rule.reason(tries, end.sentence).sentence}")
            threading.Event().wait(rule.delay)
        return end

    def _carried_out(self, planned: PlannedJob, failed: str, tries: int) -> messages.JobFinished:
        attempt = self.desk.attempts.add(self._order(planned, failed, tries))
        if attempt is None:
            raise AssertionError("a number of an attempt came twice")
        job, done, shown = Job(attempt, self.desk.host), threading.Event(), _Shown(attempt, self.show)

        def work() -> None:
            try:
                job.run()
            finally:
                done.set()
                self.woken.set()

        threading.Thread(target=work, name=f"job-{planned.key}", daemon=True).start()
        try:
            self._watch(shown, done)
        except KeyboardInterrupt:
            job.stop(Stop("cancelled", "you stopped it", _GRACE))
            try:
                self._watch(shown, done)
            except KeyboardInterrupt:  # once more: at once
                end_marked(attempt.mark, 0)
                self._watch(shown, done)
            raise
        end = self._ending(attempt.fence)
        self._told[planned.key] = end.outputs
        for image in end.images:
            self._built = f"{image.repository}@{image.digest}" if image.digest else image.image_id
        return end

    def _watch(self, shown: _Shown, done: threading.Event) -> None:
        """Show the log until the job has ended."""
        while True:
            ended = done.is_set()
            shown.more()
            if ended:
                return
            self.woken.wait()
            self.woken.clear()

    def _ending(self, fence: int) -> messages.JobFinished:
        reports = self.desk.host.reports
        told = [messages.Report.model_validate_json(text) for _, text in reports.after(0, 1_000_000)]
        reports.confirm(told[-1].number)
        return next(one.body for one in told if isinstance(one.body, messages.JobFinished) and one.body.fence == fence)

    def _order(self, planned: PlannedJob, failed: str, tries: int) -> messages.RunJob:
        for step in planned.steps:
            if step.kind == _PUSH:
                self.say(f"── step {one_line(step.name)} is left out: {_NO_PUSH}")
        for sentence in missing(use for step in planned.steps for use in step.secrets):
            self.say(f"── {planned.key}: {sentence}")
        environment = environment_after(self.plan.jobs, planned.key)
        names = names_of_run(
            self.event,
            url="",
            registry="",
            image=self.plan.image or "",
            environment=environment,
            matrix=planned.matrix,
        )
        return messages.RunJob(
            fence=secrets.randbelow(2**53),  # the scratch directories of all local runs lie side by side
            project=self.project,
            run=0,
            flow=self.plan.flow,
            job=planned.key,
            attempt=tries,
            sha=self.event.sha,
            ref=self.event.ref,
            trust="other",
            code_path=f"/git/{self.project}",
            token="",
            env={**names, "KEEPFLOW_FAILED_JOBS": failed, "KEEPFLOW_LOCAL": "true"},
            steps=tuple(messages.StepOrder.of(step) for step in planned.steps if step.kind != _PUSH),
            images=(self.plan.image,) if self.plan.image else (),
            timeout=planned.timeout or self.plan.timeout or JOB_TIMEOUT,
            given=given_to(planned, self.plan.jobs, self._told),
            where=planned.where,
            built=self._built,
        )


class _Shown:
    """How much of an attempt's log the person has seen."""

    def __init__(self, attempt: Attempt, show: Callable[[bytes], None]) -> None:
        self._log, self._show, self._offset = attempt.log, show, 0

    def more(self) -> None:
        """Show what was written since the last time."""
        while piece := self._log.read(self._offset, _PIECE):
            self._offset += len(piece)
            self._show(piece)


def _why_not(job: PlannedJob) -> str | None:
    """Return why a local run leaves a job out, None when it does not."""
    if job.steps and all(step.kind == _PUSH for step in job.steps):
        return _NO_PUSH
    return _LEFT_OUT.get(job.kind)


def _first_view(job: PlannedJob) -> JobView:
    waits = Reason(NEEDS, "")
    return JobView(job.key, State.WAITING, waits, job.needs, job.when, job.allow_failure, pending=True)
