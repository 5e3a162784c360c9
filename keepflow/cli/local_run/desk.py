"""Where local runs lie on this machine: a directory for each, gone when it has ended, and homes that are kept.

It is the worker's own world, made for one run: attempts, reports and places are those of an agent.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from keepflow.agent import boxes, leftovers
from keepflow.agent.accounts import jobs_account
from keepflow.agent.attempts import Attempts
from keepflow.agent.clock import Clock
from keepflow.agent.images import Images, MadeHere, ask_registry
from keepflow.agent.job_host import Host, Saying
from keepflow.agent.kept_images import KeptImages
from keepflow.agent.lanes import remove
from keepflow.agent.reports import Reports
from keepflow.agent.workplace import Workplace
from keepflow.cli.local_run.checkout import OneTree
from keepflow.cli.local_run.own_secrets import held
from keepflow.config.agent_file import AgentFile
from keepflow.errors import UsageError
from keepflow.executors.shell import end_marked
from keepflow.ports import discover
from keepflow.targets.docker import Docker
from keepflow.tools.engine import Engine
from keepflow.wire.messages import RunJob

NODE = "local"
#: What scripts see as the address of the master; there is none.
NO_MASTER = "http://localhost"


@dataclass(frozen=True, slots=True)
class Desk:
    """The place of one local run: its working tree, and all that the worker needs."""

    tree: Path
    attempts: Attempts
    host: Host


def root() -> Path:
    """Return the directory of all local runs of this account."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "keepflow" / "local"


@contextmanager
def desk(place: Path, flow: str, wake: Callable[[], None]) -> Iterator[Desk]:
    """Make the place of one run of a flow (`project/flow`), and remove it afterwards; raises UsageError.

    What runs left that were killed is taken away first, their processes too.
    """
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = place / "runs" / secrets.token_hex(8)
        directory.parent.mkdir(exist_ok=True)
        _sweep(place, _engine(_file(flow).docker.host))
        directory.mkdir(mode=0o700)
    except OSError as error:
        sentence = f"{place}: no place for a local run: {error.strerror}; name another with XDG_CACHE_HOME"
        raise UsageError(sentence, code="no-place") from None
    lock = _locked(directory)
    try:
        yield _laid_out(place, directory, flow, wake)
    finally:
        remove(directory)
        if lock is not None:
            os.close(lock)


def _laid_out(place: Path, directory: Path, flow: str, wake: Callable[[], None]) -> Desk:
    tree, attempts = directory / "tree", directory / "attempts"
    attempts.mkdir(mode=0o700)
    file = _file(flow)
    host = Host(
        agent=NODE,
        master=NO_MASTER,
        ca_file=None,
        file=file,
        account=jobs_account(file),
        workplace=Workplace(place),
        code=OneTree(tree),
        kinds=discover("keepflow.steps"),
        images=Images(Docker(file.docker.host), MadeHere(directory / "made-here"), ask_registry),
        kept_images=KeptImages(directory / "images"),  # forgotten with the run: the images are the person's
        reports=Reports(directory / "reports"),
        clock=Clock(),
        secrets=_own_secrets,
        artifacts=_Nowhere(),
        engine=_engine(file.docker.host),
        key_id=f"local-{secrets.token_hex(8)}",
    )
    return Desk(tree, Attempts(attempts, wake), host)


class _Nowhere:
    """What is kept of a local run: nothing, the files are in its checkout, which goes with it."""

    def keep(self, _order: RunJob, _tree: Path, patterns: Sequence[str], _seconds: float, log: Saying) -> None:
        """Say that nothing is kept."""
        log.tell(f"a local run keeps no artifacts; these would be kept: {', '.join(patterns)}")

    def fetch(self, order: RunJob, tree: Path, log: Saying) -> None:
        """Do nothing: the jobs of a local run share one checkout."""


def _own_secrets(order: RunJob) -> dict[str, str]:
    """Return what the person's own environment holds of the secrets that steps name; nobody else is asked."""
    return held(use.name for step in order.steps for use in step.secrets)


def _file(flow: str) -> AgentFile:
    """Return what a host would say that lets this flow do everything."""
    address = os.environ.get("DOCKER_HOST", "")
    docker = {"docker": {"host": address}} if address.startswith("unix:///") else {}
    allowed = {"docker_for": [flow], "containers": {"for": [flow]}}
    return AgentFile.model_validate({"master": NO_MASTER, "capabilities": ["run"], **allowed, **docker})


def _engine(host: str) -> Engine:
    """Return the engine, with the logins of whoever runs this."""
    return Engine(host, Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")))


def _sweep(place: Path, engine: Engine) -> None:
    for left in (place / "runs").iterdir():
        lock = _locked(left)
        if lock is None:
            continue  # it runs
        if (left / "attempts").is_dir():
            for attempt in Attempts(left / "attempts"):
                end_marked(attempt.mark, 0)
                if boxes.wants(attempt.order) or any(step.kind == "compose" for step in attempt.order.steps):
                    leftovers.remove(engine, attempt.mark)
                remove(place / "scratch" / str(attempt.fence))
        remove(left)
        os.close(lock)


def _locked(directory: Path) -> int | None:
    """Take the lock of a run's directory; None when the run goes on."""
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
