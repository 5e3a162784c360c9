"""Kills a job's process at every act that matters, one after the other, and lets another process take the job up.

`python -m tests.agent.dying DIRECTORY` prints a line of JSON for each life: where it was killed, and what came of the
job after all. Each life is a fork of this process, which has no threads, so that a case takes milliseconds.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

from pydantic import BaseModel

from keepflow.agent.accounts import JobsAccount
from keepflow.agent.attempts import AttemptLog, Attempts
from keepflow.agent.job_host import Host
from keepflow.agent.pipe import Pipe
from keepflow.agent.progress import Progress
from keepflow.agent.recording import Recording, _RawLog
from keepflow.agent.reports import Reports
from keepflow.agent.worker import Job
from keepflow.agent.workplace import Workplace
from keepflow.executors.shell import Process, Shell
from keepflow.ports import StepContext
from keepflow.wire import messages
from tests.agent.test_attempts import order

#: Acts before which the process is killed; before one is after the one before it.
ACTS: tuple[tuple[type, str], ...] = (
    (Recording, "_write"), (Recording, "close"), (Pipe, "_begin"), (Reports, "append"),
    (Progress, "_note"), (Shell, "start"), (Process, "wait"), (AttemptLog, "append"), (_RawLog, "_keep"),
)  # fmt: skip
_STEPS = (["first"], ["second", "third"], ["fourth", "false", "never"])
_MOST = 200


class Words(BaseModel):
    """A step: each word is said, then a command that takes it down."""

    words: list[str]


def perform(spec: Words, context: StepContext) -> int:
    """Say and run."""
    for word in spec.words:
        context.say(f"about to do {word}\n")
        if code := context.sh(("sh", "-c", f'echo did {word}; echo {word} >>"$HOME/done"; [ {word} != false ]'), {}):
            context.say(f"{word} went wrong\n")
            return code
    return 0


class _Lanes:
    """One lane, without git."""

    def __init__(self, place: Path) -> None:
        self.place = place

    @contextlib.contextmanager
    def of(self, *_: object) -> Iterator[Path]:
        self.place.mkdir(exist_ok=True)
        yield self.place


def live(place: Path, act: int | None) -> None:
    """Run the job of this place, or what is left of it; die at an act, counted from 0."""
    if act is not None:
        arm(act, ACTS)
    (place / "attempts").mkdir(parents=True, exist_ok=True)
    attempts, reports = Attempts(place / "attempts"), Reports(place / "reports")
    steps = tuple(messages.StepOrder(kind="talk", name=words[0], spec={"words": words}) for words in _STEPS)
    attempt = attempts.add(order(1, steps=steps)) or attempts.get(1)
    assert attempt is not None
    if 1 not in reports.finished:
        Job(attempt, a_host(place, reports)).run()


def a_host(place: Path, reports: Reports) -> Host:
    workplace = Workplace(place)
    kinds = {"talk": SimpleNamespace(Spec=Words, perform=perform)}
    parts: dict[str, Any] = {
        "agent": "build-1",
        "master": "http://127.0.0.1:1",
        "ca_file": None,
        "file": SimpleNamespace(docker_for=(), containers=None, ssh={}, docker=SimpleNamespace(host="unix:///none")),
        "account": JobsAccount("jobs", None, Path("/none"), None),
        "workplace": workplace,
        "code": _Lanes(place / "lane"),
        "kinds": kinds,
        "images": SimpleNamespace(resolve=lambda *_, **__: ()),
        "reports": reports,
        "clock": SimpleNamespace(now=lambda: 1),
        "secrets": lambda _: {},
    }
    unused = {field.name: MagicMock() for field in fields(Host)}  # what this job does not look at
    return Host(**{**unused, **parts})


def arm(act: int, acts: Sequence[tuple[type, str]]) -> None:
    """Have this process killed before one of some acts, counted from 0 in the order in which they come."""
    counted = iter(range(_MOST))

    def tick() -> None:
        if next(counted) == act:
            os.kill(os.getpid(), signal.SIGKILL)

    def after_a_tick(act: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(act)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            tick()
            return act(*arguments, **named)

        return wrapped

    for owner, name in acts:
        setattr(owner, name, after_a_tick(getattr(owner, name)))


def forked(live: Callable[[], None]) -> bool:
    """Live in a child; say whether it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            live()
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def _what_came_of(place: Path) -> dict[str, Any]:
    """Return the log without times, the reports in short, and the commands that were carried out."""
    log = re.sub(r"\(\d+\.\d s\)", "(0.0 s)", (place / "attempts" / "1" / "log").read_text())
    told = [
        cast("messages.Report", messages.from_agent.validate_json(text))
        for _, text in Reports(place / "reports").after(0)
    ]
    bodies = [body.body for body in told]
    return {
        "log": log,
        "reports": [body.model_dump(mode="json", exclude={"at"}) for body in bodies],
        "done": (place / "homes" / "shop" / "protected" / "done").read_text().split(),
        "raw": (place / "attempts" / "1" / "raw").exists(),
    }


def main(root: Path) -> None:
    """Kill at every act until a life comes to its end."""
    for act in range(_MOST):
        place = root / str(act)
        place.mkdir()
        died = forked(functools.partial(live, place, act))
        if died:
            forked(functools.partial(live, place, None))
        print(json.dumps({"act": act if died else None, **_what_came_of(place)}), flush=True)
        if not died:
            return
    raise SystemExit("no life came to its end")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
