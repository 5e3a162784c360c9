"""The script jobs of this agent: taken from the master, run as many at once as the host allows, always ended."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from pydantic import ValidationError

from keepflow import errors
from keepflow.agent.attempts import Attempt, Attempts
from keepflow.agent.clock import Clock
from keepflow.agent.logs import Log
from keepflow.agent.progress import Ending, Stop
from keepflow.agent.reports import Reports
from keepflow.agent.worker import report_end
from keepflow.config.agent_file import AgentFile
from keepflow.config.where import BUILT_IMAGE, Where
from keepflow.core.names import is_name, is_sha
from keepflow.core.text import quoted
from keepflow.wire import messages
from keepflow.wire.messages import RunJob, StopJob

log = Log(__name__)

_GRACE = 1.0  #: seconds that jobs have when the agent itself stops


class Runs(Protocol):
    """A job that can be run and stopped."""

    def run(self) -> None:
        """Carry it out to its reported end."""

    def stop(self, stop: Stop) -> None:
        """End it soon."""


class Jobs:
    """Takes jobs and stops them. `make` builds what runs one attempt; `slots` says how many run at once now."""

    def __init__(
        self,
        attempts: Attempts,
        reports: Reports,
        clock: Clock,
        *,
        make: Callable[[Attempt], Runs],
        slots: Callable[[], int],
        refuses: Callable[[RunJob], errors.Refused | None],
    ) -> None:
        self._attempts, self._reports, self._clock = attempts, reports, clock
        self._make, self._slots, self._refuses = make, slots, refuses
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiting: deque[Attempt] = deque()
        self._running: dict[int, Runs] = {}
        self._closing: Stop | None = None

    def recover(self) -> None:
        """Take up every job that an earlier process did not end; call before anything is taken."""
        waiting = []
        for attempt in self._attempts:
            if attempt.ended is not None:
                continue
            if attempt.fence in self._reports.finished:
                attempt.end(self._reports.finished[attempt.fence])
                continue
            if attempt.progress.start is None:
                waiting.append(attempt)
                continue
            log.info("a job is taken up", fence=attempt.fence, project=attempt.order.project)
            with self._lock:
                self._begin(attempt)
        for attempt in waiting:
            self._queue(attempt)

    def take(self, orders: Sequence[RunJob]) -> None:
        """Put jobs on the disk for good and run them when slots are free; one that was seen before changes nothing.

        Raises OutOfSpace for those that found no room; the others are taken.
        """
        taken: list[Attempt] = []
        try:
            for order in orders:
                attempt = self._attempts.add(order)
                if attempt is not None:
                    taken.append(attempt)
        finally:
            self._attempts.sync()
            for attempt in taken:
                self._queue(attempt)

    def _queue(self, attempt: Attempt) -> None:
        order = attempt.order
        refusal = self._refuses(order)
        if refusal is not None:
            log.warning("a job was refused", fence=order.fence, code=refusal.code, reason=refusal.message)
            body = messages.JobRefused(
                fence=order.fence, at=self._clock.now(), code=refusal.code, sentence=refusal.message
            )
            attempt.end(self._reports.append(body))
            return
        with self._lock:
            self._waiting.append(attempt)
            self._start_waiting()

    def stop(self, order: StopJob) -> None:
        """End a job, running or not; one that has ended stays as it ended."""
        stop = Stop(order.code, order.sentence, order.grace)
        with self._lock:
            running = self._running.get(order.fence)
            waiting = next((attempt for attempt in self._waiting if attempt.fence == order.fence), None)
            if waiting is not None:
                self._waiting.remove(waiting)
        if waiting is not None:
            self._end_unstarted(waiting, stop)
        elif running is not None:
            running.stop(stop)

    def close(self, timeout: float) -> bool:
        """End all jobs because the agent stops; True when all of them have ended within `timeout` seconds."""
        stop = Stop(
            "agent-stopped", "the agent was stopped while this job ran; its processes were ended", _GRACE, "lost"
        )
        with self._lock:
            self._closing = stop
            waiting, running = list(self._waiting), list(self._running.values())
            self._waiting.clear()
        for attempt in waiting:
            self._end_unstarted(attempt, stop)
        for job in running:
            job.stop(stop)
        deadline = time.monotonic() + timeout
        with self._idle:
            return self._idle.wait_for(lambda: not self._running, max(0.0, deadline - time.monotonic()))

    def _start_waiting(self) -> None:
        """Start what fits; the lock is held."""
        while self._waiting and len(self._running) < self._slots() and self._closing is None:
            self._begin(self._waiting.popleft())

    def _begin(self, attempt: Attempt) -> None:
        """Start the thread of a job; the lock is held."""
        job = self._make(attempt)
        self._running[attempt.fence] = job
        threading.Thread(target=self._run, args=(attempt.fence, job), name=f"job-{attempt.fence}", daemon=True).start()

    def _run(self, fence: int, job: Runs) -> None:
        try:
            job.run()
        finally:
            with self._idle:
                del self._running[fence]
                self._start_waiting()
                self._idle.notify_all()

    def _end_unstarted(self, attempt: Attempt, stop: Stop) -> None:
        attempt.log.append(f"── {stop.state}: {stop.sentence}\n".encode())
        report_end(attempt, self._reports, self._clock, Ending(stop.state, stop.code, stop.sentence))


def where_refusal(order: RunJob, file: AgentFile) -> errors.Refused | None:
    """Return why this host will not run the steps of a job where the order says, or None."""
    try:
        places = [Where.model_validate(where) for where in (order.where, *(step.where for step in order.steps))]
    except ValidationError as error:
        return errors.Refused(f"the job says in a way that makes no sense here where it runs: {error}", code="bad-job")
    for name in sorted({place.ssh for place in places if place.ssh}):
        host = file.ssh.get(name)
        if host is None or order.trust == "fork" or not host.allow(order.project, order.flow):
            return errors.Refused(
                f"this host takes {order.project}/{order.flow} to no host {name!r}: "
                f"write it under ssh: into its agent.yml, with for: [{order.project}/{order.flow}]",
                code="no-ssh",
            )
    if any(place.image or place.services for place in places) and not file.containers.allow(order.project, order.flow):
        return errors.Refused(
            f"this host gives {order.project}/{order.flow} no containers: "
            f"write containers: {{for: [{order.project}/{order.flow}]}} into its agent.yml",
            code="no-containers",
        )
    return _image_refusal(places, file)


def _image_refusal(places: Sequence[Where], file: AgentFile) -> errors.Refused | None:
    """Return why this host will not make containers of images that are named in full; others are looked at when it is
    known which they are.
    """
    named = [place.image.name for place in places if place.image]
    named += [service.image for place in places for service in place.services.values()]
    try:
        for name in named:
            if name != BUILT_IMAGE and "${" not in name:
                file.containers.refuse(name)
    except errors.Refused as error:
        return error
    return None


def refusal_of(order: RunJob, capabilities: tuple[str, ...], kinds: frozenset[str]) -> errors.Refused | None:
    """Return why this host will not run a job at all, or None. Names become directories here, so they must be names."""
    if "run" not in capabilities:
        return errors.Refused("this host's agent.yml does not allow it to run script jobs", code="no-capability")
    if not is_name(order.project) or not is_sha(order.sha) or not order.code_path.startswith("/"):
        return errors.Refused(f"the job names no legal project and commit: {quoted(order.project)}", code="bad-job")
    unknown = sorted({step.kind for step in order.steps} - kinds)
    if unknown:
        return errors.Refused(
            f"this agent knows no step {', '.join(map(quoted, unknown))}; update it, or run the flow elsewhere",
            code="unknown-step",
        )
    return None
