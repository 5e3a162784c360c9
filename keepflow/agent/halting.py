"""How a job is ended before its own end: by a person, by its time, by the agent that stops."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from keepflow.agent.progress import Ending, Progress, Stop
from keepflow.core.text import words
from keepflow.ports import Running
from keepflow.tools.brake import Brake

TIMEOUT = "timeout"  #: reason code of what took too long
TIMED_OUT = 124  #: exit code of what took too long, as timeout(1) has it
KILL_GRACE = 10.0  #: seconds a step has after its time is up


class Ended(Exception):
    """Leaves the steps of a job from anywhere, with the reason."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.sentence)
        self.ending = ending


class Halt:
    """Ends one attempt at the next place where it looks, and the command that it runs at once.

    `stop` may be called from any thread at any time; `brake` ends what the agent itself does for the job.
    """

    def __init__(self, progress: Progress, fence: int) -> None:
        self._progress, self._fence = progress, fence
        self._lock = threading.Lock()
        self._stop = progress.stop
        self._running: Running | None = None
        self.brake = Brake()

    @property
    def asked(self) -> Stop | None:
        """Who wants the end, or None."""
        return self._stop

    @property
    def ending(self) -> Ending | None:
        """How the job ends when somebody asked for its end; what fails meanwhile fails because of that."""
        stop = self._stop
        return Ending(stop.state, stop.code, stop.sentence, stop.exit_code) if stop else None

    def stop(self, stop: Stop) -> None:
        """End the job soon; the first reason given is the one that is told."""
        with self._lock:
            if self._stop is None:
                self._stop = stop
                self._progress.stop_for(stop)
            running = self._running
        if running is not None:
            threading.Thread(target=running.kill, args=(stop.grace,), name=f"stop-{self._fence}", daemon=True).start()
        threading.Thread(target=self.brake.pull, name=f"brake-{self._fence}", daemon=True).start()

    def check(self) -> None:
        """Raise Ended when somebody asked for the end."""
        if (ending := self.ending) is not None:
            raise Ended(ending)

    @contextlib.contextmanager
    def limit(self, seconds: float, what: str, since: float) -> Iterator[None]:
        """Stop the job when what is done inside takes longer, by a clock that nobody can turn; 0 is no limit."""
        sentence = f"{what} did not end within {words(seconds)}"
        left = max(0.0, since + seconds - time.monotonic())
        watch = threading.Timer(left, self.stop, [Stop(TIMEOUT, sentence, KILL_GRACE, "failed", TIMED_OUT)])
        watch.daemon = True
        if seconds:
            watch.start()
        try:
            yield
        finally:
            watch.cancel()

    @contextlib.contextmanager
    def ends(self, begin: Callable[[], Running]) -> Iterator[Running]:
        """Begin a command that `stop` ends for as long as the block takes. Raises Ended, and what `begin` raises."""
        self.check()
        with self._lock:
            running = self._running = begin()
        try:
            if self._stop is not None:  # it came while the command was being started
                running.kill(self._stop.grace)
            yield running
        finally:
            with self._lock:
                self._running = None
        self.check()
