"""One attempt at a script job while this process carries it out: what is asked, and what it may use of this host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from keepflow.agent.accounts import may_use_engine
from keepflow.agent.attempts import Attempt
from keepflow.agent.halting import Halt
from keepflow.agent.job_host import Host
from keepflow.agent.masks import masked, needles_of
from keepflow.agent.recording import Recording
from keepflow.core.masking import Sought
from keepflow.core.text import one_line
from keepflow.wire import messages
from keepflow.wire.messages import RunJob


@dataclass(frozen=True)
class Task:
    """An attempt, the host it runs on, and what ends it early."""

    attempt: Attempt
    host: Host
    halt: Halt
    secrets: Mapping[str, str]  #: the opened secrets of its steps, by name
    engine: bool  #: whether its commands may use the host's engine
    taken_up: bool  #: whether an earlier process had begun its steps

    @classmethod
    def of(cls, attempt: Attempt, host: Host, halt: Halt) -> Task:
        """Open what came with an attempt's order."""
        return cls(
            attempt,
            host,
            halt,
            host.secrets(attempt.order),
            engine=may_use_engine(attempt.order, host.file),
            taken_up=attempt.progress.start is not None,
        )

    @property
    def order(self) -> RunJob:
        """What the master asked for."""
        return self.attempt.order

    @cached_property
    def needles(self) -> Sought:
        """What must not be seen of it outside this host; made ready by the job's own thread, for it takes a while."""
        return needles_of(self.order, self.secrets.values())

    def step_started(self, index: int) -> Callable[[int], None]:
        """Return what reports the start of a step, as of now, once its place in the log is known."""
        shown, at = masked(one_line(self.order.steps[index].name), self.needles), self.host.clock.now()

        def report(offset: int) -> None:
            body = messages.StepStarted(fence=self.order.fence, index=index, name=shown, at=at, offset=offset)
            self.host.reports.append(body)

        return report

    def step_finished(self, index: int, code: int) -> Callable[[int], None]:
        """Return what reports the end of a step, as of now, once its place in the log is known."""
        at = self.host.clock.now()

        def report(offset: int) -> None:
            body = messages.StepFinished(fence=self.order.fence, index=index, at=at, exit_code=code, offset=offset)
            self.host.reports.append(body)

        return report

    def tell_again(self, recording: Recording) -> None:
        """Report the beginnings and ends of steps that an earlier process may not have come to report."""
        progress = self.attempt.progress
        for mark, offset in recording.passed.items():
            index, is_end = divmod(mark - 1, 2)
            if progress.ending is not None and mark > progress.marks:
                continue  # the last words of the job
            if is_end:
                self.step_finished(index, progress.ended[index].code)(offset)
            else:
                self.step_started(index)(offset)
