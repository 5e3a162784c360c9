"""Runs one script job: lane → steps in order → images → its end. Everything people see of it goes into the log.

What an earlier process of the agent had begun is taken up: how far it came is known from the marks in its log (a step
is two, its beginning and its end) and from its notes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from keepflow import errors
from keepflow.agent.attempts import Attempt
from keepflow.agent.clock import Clock
from keepflow.agent.halting import Ended, Halt
from keepflow.agent.handing_on import NOT_HANDED_ON
from keepflow.agent.job_host import Host
from keepflow.agent.lanes import Source
from keepflow.agent.logs import Log
from keepflow.agent.masks import masked
from keepflow.agent.patience import Patience
from keepflow.agent.progress import Ending, Start, Stop
from keepflow.agent.recording import Recording, forget
from keepflow.agent.reports import Reports
from keepflow.agent.stepping import Steps
from keepflow.agent.task import Task
from keepflow.core.text import one_line
from keepflow.executors.shell import end_marked
from keepflow.tools.brake import Brake
from keepflow.wire import messages

log = Log(__name__)

_LEFT_BEHIND_GRACE = 2.0  #: seconds that processes have which outlived their job


class Job:
    """One attempt while it runs. `run` is called once, `stop` from any thread at any time.

    One that had begun holds its lane from here on, so that no other job gets it.
    """

    def __init__(self, attempt: Attempt, host: Host) -> None:
        self._attempt, self._order, self._host = attempt, attempt.order, host
        self._progress = progress = attempt.progress
        self._halt = Halt(progress, attempt.fence)
        self._began = progress.start.at if progress.start else time.monotonic()
        self._files = contextlib.ExitStack()
        if progress.start and progress.ending is None:
            again = Path(progress.start.workspace)
            self._files.enter_context(host.code.of(self._order, self._source(), again))
        self._task = Task.of(attempt, host, self._halt)

    @property
    def fence(self) -> int:
        """The number that names this attempt."""
        return self._order.fence

    def run(self) -> None:
        """Carry the job out and report its end; never raises."""
        try:
            with self._halt.limit(self._order.timeout, "the job", self._began):
                ending = self._recorded()
        except Exception as error:
            ending = self._broke(error)
        ending = replace(ending, sentence=masked(ending.sentence, self._task.needles))
        report_end(self._attempt, self._host.reports, self._host.clock, ending)

    def stop(self, stop: Stop) -> None:
        """End the job soon; the first reason given is the one that is told."""
        self._halt.stop(stop)

    # --- from the outside in: recording, lane, steps ------------------------------------------------------------------

    def _recorded(self) -> Ending:
        progress = self._progress
        if progress.ending is not None and progress.complete:
            forget(self._attempt)
            return progress.ending
        account = self._host.account.account
        recording = Recording(self._attempt, self._task.needles, (account.uid, account.gid) if account else None)
        try:
            if not self._attempt.log.size:
                recording.say_line(self._title())
            self._task.tell_again(recording)
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
        except Ended as ended:
            return ended.ending
        except errors.KeepflowError as error:
            if (stopped := self._halt.ending) is not None:
                return stopped
            recording.say_line(error.message)
            code = error.code if isinstance(error, errors.Refused) else "system"
            return Ending("failed", code, one_line(error.message, 400))
        except Exception as error:
            return self._broke(error)

    def _in_lane(self, recording: Recording) -> Ending:
        order, host, start = self._order, self._host, self._progress.start
        with self._files:
            workspace = Path(start.workspace) if start else self._filled(recording)
            engine = host.file.docker.host if self._task.engine else None
            with host.workplace.of(order, workspace, engine, as_they_are=start is not None) as places:
                try:
                    ending = self._ending_of(recording, Steps(self._task, recording, places).carry_out)
                finally:  # nothing of this job may be left when its lane and its places go to the next one
                    self._end_processes(recording)
                ending = self._handed_on(recording, ending)
                self._progress.end(ending, recording.marks)  # before what it rests on is taken away
                return ending

    def _handed_on(self, recording: Recording, ending: Ending) -> Ending:
        """Hand the files of a job on, when it ended by itself and jobs on other machines go on with them."""
        shared = self._order.shared
        if shared is None or not shared.hands_on or ending.state not in ("succeeded", "failed"):
            return ending
        if self._halt.asked is not None:
            self._halt.brake = Brake()  # it took too long, which its handlers are to look into; this may be stopped too

        def hand_on() -> Ending:
            source = replace(self._source(), patience=Patience(self._host.master, recording.say_line))
            with self._halt.brake.applied():
                self._host.code.hand_on(self._order, source, recording)
            return ending

        handed = self._ending_of(recording, hand_on)
        if handed.code == "system":
            handed = replace(handed, code=NOT_HANDED_ON)
        return ending if ending.state == "failed" else replace(handed, images=ending.images, outputs=ending.outputs)

    def _filled(self, recording: Recording) -> Path:
        host, source = self._host, self._source()
        source = replace(source, patience=Patience(host.master, recording.say_line))
        with self._halt.brake.applied():
            workspace = self._files.enter_context(host.code.of(self._order, source))
        self._halt.check()
        host.reports.append(messages.JobStarted(fence=self.fence, at=host.clock.now(), node=host.agent))
        self._progress.begin(Start(str(workspace), self._began))
        return workspace

    def _source(self) -> Source:
        order, host = self._order, self._host
        return Source(f"{host.master}{order.code_path}", order.sha, order.token, host.ca_file)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _end_processes(self, recording: Recording) -> None:
        stop = self._halt.asked
        if not end_marked(self._attempt.mark, stop.grace if stop else _LEFT_BEHIND_GRACE):
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


def _last_lines(ending: Ending) -> list[str]:
    built = (f"{image.origin} release {image.repository} {image.digest or image.image_id}" for image in ending.images)
    return [*(f"── {line}" for line in built), f"── {ending.state}{': ' if ending.sentence else ''}{ending.sentence}"]
