"""Services of a step or a job: containers beside its commands, waited for until they are ready, always removed."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from keepflow import errors
from keepflow.agent.boxes import Boxes
from keepflow.config.where import Ready, Service, Where
from keepflow.core import boxes
from keepflow.core.text import quoted
from keepflow.tools import http_get
from keepflow.tools.engine import Engine
from keepflow.tools.files import write_atomic

_TAIL_LINES = "60"
_PAUSE = 0.05  #: seconds between two looks at a service
_CONNECT = 1.0  #: seconds for one try of a port
_TRY = 2.0  #: seconds for one try of a page
_COMMAND_TRY = 10.0  #: seconds for one try of a command
_ADDRESS = "{{.State.Status}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}} {{.State.ExitCode}}"


@dataclass(frozen=True, slots=True)
class _State:
    """What the engine says of a service."""

    status: str
    address: str
    exit_code: int

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self.status == "running"


@dataclass(frozen=True, slots=True)
class _Started:
    """A service whose container was started, in this life of the agent or an earlier one."""

    use: str  #: its name in the job
    alias: str
    name: str
    service: Service
    made: Boxes

    @property
    def _engine(self) -> Engine:
        return self.made.site.engine

    def state(self) -> _State:
        """Ask the engine; raises Unavailable when it has no such container any more."""
        done = self._engine.docker("inspect", "--type", "container", "--format", _ADDRESS, self.name, check=False)
        words = done.text.split(" ")
        if done.exit_code or len(words) != 3:
            raise errors.Unavailable(f"service {self.alias}: its container is gone", code="service")
        return _State(words[0], words[1], int(words[2]))

    def tell(self, sentence: str) -> None:
        """Say a sentence and the last lines of the service."""
        tail = self._engine.docker("logs", "--tail", _TAIL_LINES, self.name, check=False)
        self.made.tell(f"{self.use} ended", f"── service {self.alias} {sentence}; its last lines:")
        for number, line in enumerate((tail.stdout + tail.stderr).decode(errors="replace").splitlines()):
            self.made.tell(f"{self.use} line {number}", f"{self.alias} | {line}")

    def await_ready(self, check_stop: Callable[[], None]) -> str:
        """Wait until it is ready and return its address; raises Unavailable, with its last lines in the log."""
        ready, began = self.service.ready, time.monotonic()
        while True:
            check_stop()
            state = self.state()
            if not state.running:
                self.tell(f"ended with exit code {state.exit_code}")
                raise errors.Unavailable(
                    f"service {self.alias} ended with exit code {state.exit_code} before it was ready", code="service"
                )
            if ready is None or self._is_ready(ready, state.address):
                took = time.monotonic() - began
                how = f"is ready ({took:.1f} s)" if ready else "is started"
                self.made.tell(f"{self.use} ready", f"── service {self.alias} {how}")
                return state.address
            if time.monotonic() - began > ready.within:
                self.tell(f"was not ready within {ready.within:g} s")
                raise errors.Unavailable(
                    f"service {self.alias} was not ready within {ready.within:g} s ({_how(ready)})", code="service"
                )
            time.sleep(_PAUSE)

    def _is_ready(self, ready: Ready, address: str) -> bool:
        if ready.command:
            try:
                done = self._engine.docker("exec", self.name, *ready.command, timeout=_COMMAND_TRY, check=False)
            except errors.CommandTimeout:
                return False
            return done.exit_code == 0
        if ready.port is None:
            return True
        if ready.http:
            try:
                answer = http_get.get(address, ready.port, ready.http, {"Host": self.alias}, timeout=_TRY)
            except http_get.NoAnswer:
                return False
            return answer.status < 400
        with contextlib.suppress(OSError), socket.create_connection((address, ready.port), timeout=_CONNECT):
            return True
        return False


@contextlib.contextmanager
def beside(made: Boxes, scope: str, where: Where, env: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Run services for as long as the block takes, and yield the variables that say where they are.

    Those that were ready before the agent was restarted are where they were: they have gone on, or have ended by
    themselves. Raises Unavailable for one that does not get ready, Refused and UsageError for one that may not be.
    """
    started: list[_Started] = []
    addresses: dict[str, str] | None = made.notes.get(f"{scope} addresses")
    try:
        for alias, service in where.services.items():
            made.hands.check_stop()
            one = _Started(
                f"{scope}-service-{alias}", alias, made.site.owner.named(f"{scope}-service-{alias}"), service, made
            )
            started.append(one)
            if addresses is None:
                _start(one, env)
            else:
                made.image(one.use, service.image, env)  # is known, and what was told of it is not told again
                _tell_started(one)
                made.tell(f"{one.use} ready", f"── service {alias} is ready")
        if addresses is None:
            with made.hands.brake():
                addresses = {_variable(one.alias): one.await_ready(made.hands.check_stop) for one in started}
            made.notes.put(f"{scope} addresses", addresses)
        yield addresses
    finally:
        if addresses is not None:
            _tell_ended(started)
        _remove(made, started)


def _start(one: _Started, env: Mapping[str, str]) -> None:
    """Have a service run; one that an earlier process of the agent made and started stays as it is, running or not."""
    made, site, alias, service = one.made, one.made.site, one.alias, one.service
    variables = site.directory / f"service-{alias}.env"
    write_atomic(variables, "".join(f"{key}={value}\n" for key, value in service.env.items()).encode(), 0o600)
    settings = boxes.Service(
        name=one.name,
        alias=alias,
        image=made.image(one.use, service.image, env),
        network=made.network(),
        labels=site.owner.labels,
        env_file=str(variables),
        command=service.command,
        limits=made.limits(service),
    )
    try:
        if site.engine.make_once(*boxes.service_argv(settings)) or one.state().status == "created":
            site.engine.docker("start", one.name)
    except errors.CommandFailed as error:
        raise errors.Unavailable(f"service {alias} could not be started: {error.tail}", code="service") from error
    finally:
        variables.unlink()
    _tell_started(one)


def _tell_started(one: _Started) -> None:
    one.made.tell(f"{one.use} started", f"── service {one.alias}: {one.service.image}")


def _tell_ended(started: list[_Started]) -> None:
    """Say of services that have ended by themselves, while they were needed, how."""
    for one in started:
        with contextlib.suppress(errors.KeepflowError):
            state = one.state()
            if not state.running and state.exit_code:
                one.tell(f"had ended with exit code {state.exit_code}")


def _remove(made: Boxes, started: list[_Started]) -> None:
    """Remove services; what cannot be removed now is, with the job."""
    if started:
        with contextlib.suppress(errors.KeepflowError):
            made.site.engine.docker("rm", "--force", "--volumes", *(one.name for one in started), check=False)


def _variable(alias: str) -> str:
    return f"KEEPFLOW_SERVICE_{alias.upper().replace('-', '_')}"


def _how(ready: Ready) -> str:
    if ready.command:
        return f"command {quoted(' '.join(ready.command), 80)}"
    return f"port {ready.port}{f', page {ready.http}' if ready.http else ''}"
