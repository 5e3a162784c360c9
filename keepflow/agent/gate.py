"""The gate: nobody is sent to a new container before it has proven, over HTTP, that it serves."""

from __future__ import annotations

import time
from dataclasses import dataclass

from keepflow.core.flows import Health
from keepflow.errors import DeployFailed
from keepflow.ports import ContainerFacts, Target
from keepflow.tools.http_get import NoAnswer, get

TAIL_LINES = 60
_FIRST_PAUSE = 0.01  #: seconds after the first try that did not pass; grows up to the interval
_BETWEEN_PASSES = 0.01
_CONNECT = 0.25  #: seconds: a lost first packet to a bridge is soon sent again by the next try
_LOOK_EVERY = 0.1  #: seconds between two looks at the container while it does not answer


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the gate saw."""

    tries: int
    seconds: float
    last: str  #: the last answer, in words


class Gate:
    """Asks one container until it has passed; a container that dies or restarts ends it at once."""

    def __init__(
        self, target: Target, container_id: str, address: str, host: str, health: Health, *, fresh: bool = True
    ) -> None:
        """`address` is "10.213.0.2:8080", `host` the public name; a container that is not `fresh` may have a past."""
        self._target = target
        self._id = container_id
        self._host_header = host
        self._health = health
        self._ip, _, port = address.rpartition(":")
        self._port = int(port)
        self._last = "no answer yet"
        self._looked = 0.0
        self._restarts: int | None = 0 if fresh else None

    def wait(self) -> Evidence:
        """Return after `successes` passes in a row.

        Raises DeployFailed `exited`, `stopped-outside`, `restarting`, `out-of-memory`, `gone` or `unhealthy`, with the
        last log lines.
        """
        began = time.monotonic()
        deadline = began + self._health.within
        before = self._alive()
        tries = passes = 0
        pause = _FIRST_PAUSE
        while passes < self._health.successes:
            if time.monotonic() >= deadline:
                raise self._failed(
                    "unhealthy", f"it was not healthy within {self._health.within:g} s; last answer: {self._last}"
                )
            tries += 1
            if self._passes(deadline):
                passes += 1
                time.sleep(min(_BETWEEN_PASSES, self._health.interval) if passes < self._health.successes else 0)
            else:
                passes = 0
                self._look()
                time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
                pause = min(pause * 1.3, self._health.interval)
        after = self._alive()
        if after.started_at != before.started_at:
            raise self._failed("restarting", "it was started again while it was asked")
        return Evidence(tries, time.monotonic() - began, self._last)

    def _passes(self, deadline: float) -> bool:
        timeout = max(0.01, min(self._health.timeout, deadline - time.monotonic()))
        headers = {"Host": self._host_header, "User-Agent": "keepflow-gate"}
        try:
            answer = get(self._ip, self._port, self._health.path, headers, timeout=timeout, connect=_CONNECT)
        except NoAnswer as error:
            self._last = str(error)
            return False
        self._last = f"status {answer.status} on {self._health.path}"
        return 200 <= answer.status < 400

    def _look(self) -> None:
        if time.monotonic() - self._looked >= _LOOK_EVERY:
            self._alive()

    def _alive(self) -> ContainerFacts:
        facts = self._target.inspect(self._id)
        self._looked = time.monotonic()
        if facts is None:
            raise self._failed("gone", "somebody removed it")
        if facts.oom_killed:
            raise self._failed("out-of-memory", "it was killed for want of memory")
        if self._restarts is None:
            self._restarts = facts.restarts
        if facts.restarts > self._restarts:
            raise self._failed("restarting", "it ended and was started again")
        if facts.asked_to_end:
            raise self._failed("stopped-outside", "it was stopped by a person, or by a restart of the engine")
        if not facts.running:
            raise self._failed("exited", f"it ended with exit code {facts.exit_code}")
        return facts

    def _failed(self, code: str, sentence: str) -> DeployFailed:
        tail = self._target.tail(self._id, TAIL_LINES)
        return DeployFailed(f"the new container does not serve: {sentence}", code=code, log_tail=tail)
