"""Kills a job in containers, with services, at acts that matter, and lets another process take it up.

`python -m tests.real.dying_boxes DIRECTORY ENGINE IMAGE EVERY` kills at each EVERYth act, and prints a line of JSON for
each life, as `tests.agent.dying` does.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from keepflow.agent.attempts import Attempts
from keepflow.agent.box_notes import Notes
from keepflow.agent.kept_images import KeptImages
from keepflow.agent.progress import Progress
from keepflow.agent.recording import Recording
from keepflow.agent.reports import Reports
from keepflow.agent.worker import Job
from keepflow.config.agent_file import Containers
from keepflow.core import names
from keepflow.executors.shell import Process, Shell
from keepflow.steps import run as run_step
from keepflow.tools.engine import Engine
from tests.agent.dying import a_host, arm, forked
from tests.agent.test_attempts import order
from tests.real.boxes import step

ACTS: tuple[tuple[type, str], ...] = (
    (Recording, "_write"), (Reports, "append"), (Progress, "_note"), (Notes, "put"),
    (Engine, "docker"), (Shell, "start"), (Process, "wait"),
)  # fmt: skip
_MOST = 500


def live(place: Path, engine: Engine, image: str, act: int | None) -> None:
    """Run the job of this place, or what is left of it; die at an act, counted from 0."""
    if act is not None:
        arm(act, ACTS)
    (place / "attempts").mkdir(parents=True, exist_ok=True)
    attempts, reports = Attempts(place / "attempts"), Reports(place / "reports")
    box = {"image": {"name": image}}
    service = {"image": image, "command": ["httpd", "-f", "-p", "80"], "ready": {"port": 80}}
    steps = (
        step("echo one; echo one >>done; echo kept >/tmp/kept"),
        step("echo two; echo two >>done; test ! -e /tmp/kept", **box, services={"web": service}),
        step("echo three; echo three >>done; cat /tmp/kept; exit 3"),
    )
    attempt = attempts.add(order(1, steps=steps, where={**box, "services": {"db": service}})) or attempts.get(1)
    if attempt is None:
        raise AssertionError("the attempt is there")
    host = replace(
        a_host(place, reports),
        file=SimpleNamespace(
            docker_for=(), containers=Containers(), ssh={}, docker=SimpleNamespace(host="unix:///none")
        ),
        kinds={"run": run_step},
        engine=engine,
        kept_images=KeptImages(place / "images"),
        key_id="dying",
    )
    if 1 not in reports.finished:
        Job(attempt, host).run()


def main(root: Path, engine: Engine, image: str, every: int) -> None:
    """Kill at every act until a life comes to its end."""
    for act in range(0, _MOST, every):
        place = root / str(act)
        place.mkdir()
        died = forked(functools.partial(live, place, engine, image, act))
        if died:
            forked(functools.partial(live, place, engine, image, None))
        attempt = Attempts(place / "attempts").get(1)
        mark = attempt.mark if attempt else ""
        label = f"label={names.LABEL_ATTEMPT}={mark}"
        left = [engine.docker(noun, "ls", "-q", "--filter", label).text for noun in ("container", "network", "volume")]
        log = re.sub(r" \(\d+\.\d s\)", "", (place / "attempts" / "1" / "log").read_text())
        done = (place / "lane" / "done").read_text().split()
        told = {"act": act if died else None, "log": log, "done": done, "left": "".join(left).split()}
        print(json.dumps(told), flush=True)
        if not died:
            return
    raise SystemExit("no life came to its end")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Engine(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
