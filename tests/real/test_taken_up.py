"""Jobs in containers, with services, by Compose and on other hosts go on when their agent is killed, line for line.

The agent is a real process that gets SIGKILL in the middle of numbered lines, at no chosen moment.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keepflow.agent.leftovers import end_compose
from keepflow.core.boxes import compose_project, new_mark
from keepflow.core.names import LABEL_COMPOSE
from keepflow.executors._processes import marked
from keepflow.executors.shell import MARK, started_at
from keepflow.tools.engine import Engine as AgentEngine
from keepflow.tools.machine import boot_id
from keepflow.wire import messages
from tests.agent.processes import Builder, Ran, number_in
from tests.real.boxes import left, of, step
from tests.real.engines import Engine
from tests.real.test_compose_step import made_by_compose
from tests.real.test_compose_step import steps as compose_steps
from tests.real.test_job_containers import builder
from tests.real.test_job_services import GET, SERVE
from tests.real.test_ssh_step import builder as ssh_builder
from tests.real.test_ssh_step import server, there
from tests.real.waiting import wait_until

__all__ = ["builder", "server", "ssh_builder", "there"]  # fixtures
pytestmark = [pytest.mark.real, pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")]
PARTS, PART = 3, 1000  #: a kill in each part of so many lines
COUNT = f"""i=0
while [ $i -lt {PARTS * PART} ]; do
  i=$((i+1)); echo $i
  if [ $((i % 50)) = 0 ]; then sleep 0.02; fi
  if [ $((i % {PART})) = 0 ]; then until [ -e {{go}}$((i / {PART})) ]; do sleep 0.02; done; fi
done
"""


def killed_often(builder: Builder, fence: int, go: Callable[[int], Path], first: bytes = b"\n1\n") -> Ran:
    """Kill the agent in each part of a job's numbered lines; return how it ended."""
    builder.master.await_log(fence, first, seconds=60)
    for part in range(1, PARTS + 1):
        builder.agent.kill()
        go(part).touch()  # what is printed while no agent is there, and after
        builder.agent.start()
    return builder.result(fence)


def numbered(log: str, pattern: str = r"^(\d+)$") -> list[int]:
    """Return the numbered lines of a log, in their order."""
    return [int(found) for found in re.findall(pattern, log, re.MULTILINE)]


EVERY = list(range(1, PARTS * PART + 1))


@pytest.mark.parametrize("level", ["job", "step"])
def test_r54_a_job_in_a_container_with_services_goes_on_when_its_agent_is_killed(
    builder: Builder, engine: Engine, base_images: dict[str, str], level: str
) -> None:
    """R54, R34, R25: the same containers, every line once and in order, and nothing left in the end."""
    web = {"image": base_images["busybox"], "command": ["sh", "-c", SERVE.format(wait="0.2")], "ready": {"port": 80}}
    where: dict[str, Any] = {"image": {"name": base_images["app"]}, "services": {"web": web}}
    count = COUNT.format(go="$TMPDIR/go-")
    own = where if level == "step" else {}
    fence = builder.send(
        steps=(step(f"echo kept >/tmp/kept; {count}cat /tmp/kept", **own), step(GET.format("web"), **own)),
        where=where if level == "job" else {},
    )
    builder.master.await_log(fence, b"\n1\n", seconds=60)
    ids = [of(engine, fence, what)["Id"] for what in ("box", "web")]
    tmp = Path(f"{builder.agent.state}-jobs/scratch/{fence}/tmp")
    same: list[bool] = []

    def go(part: int) -> Path:
        same.append([of(engine, fence, what)["Id"] for what in ("box", "web")] == ids)
        return tmp / f"go-{part}"

    ran = killed_often(builder, fence, go)
    assert ran.end.state == "succeeded", ran.log[-2000:]
    assert numbered(ran.log) == EVERY
    assert same == [True] * PARTS
    assert ran.log.count("\nkept\n") == 1
    times = 2 if level == "step" else 1
    assert ran.log.count("── service web: ") == times
    assert ran.log.count("── service web is ready") == times
    assert ran.log.count("\nup\n") == 1
    assert sum(isinstance(body, messages.JobStarted) for body in ran.reports) == 1
    assert left(engine, fence) == []


def test_r57_what_was_taken_up_is_stopped_to_its_last_container(
    builder: Builder, engine: Engine, base_images: dict[str, str]
) -> None:
    """R57: also the services, and what hides from its command in the container."""
    web = {"image": base_images["busybox"], "command": ["sleep", "600"]}
    fence = builder.send(
        "sleep 601 & setsid sleep 602 & echo inside; wait",
        where={"image": {"name": base_images["busybox"]}, "services": {"web": web}},
    )
    builder.master.await_log(fence, b"\ninside\n")
    builder.agent.kill()
    builder.agent.start()
    assert len(left(engine, fence)) == 3
    builder.stop(fence, grace=0)
    ran = builder.result(fence)
    assert ran.end.state == "cancelled"
    assert ran.log.count("\ninside\n") == 1
    assert left(engine, fence) == []


def test_what_an_attempt_has_that_is_gone_from_the_disk_is_removed_when_the_agent_starts(
    builder: Builder, engine: Engine, base_images: dict[str, str]
) -> None:
    """Containers, and what Compose made, are known by their labels alone; what is no job's is left alone."""
    image = base_images["busybox"]
    inside = builder.send("echo inside; sleep 600", where={"image": {"name": image}})
    composed = builder.send(steps=compose_steps(image, "echo inside; exec sleep 600"), flow="build")
    stranger = engine.docker(
        "run", "--detach", "--init", "--label", "com.docker.compose.project=kf-job-1", image, "sleep", "600"
    )
    try:
        for fence in (inside, composed):
            builder.master.await_log(fence, b"inside\n", seconds=60)
        builder.agent.kill()
        for fence in (inside, composed):
            shutil.rmtree(builder.agent.state / "attempts" / str(fence))
        (builder.agent.state / "attempts" / "taken").write_bytes(b"")  # or they would be made again from there
        assert left(engine, inside) != []
        builder.agent.start()
        wait_until(lambda: not left(engine, inside), 30, "the end of the container")
        wait_until(
            lambda: not [line for line in made_by_compose(engine) if f"kf-job-{composed}-" in line], 30, "of Compose"
        )
        assert engine.docker("inspect", "--format", "{{.State.Running}}", stranger) == "true"
    finally:
        engine.docker("rm", "--force", stranger)


def test_r54_a_compose_job_goes_on_when_its_agent_is_killed(
    builder: Builder, engine: Engine, base_images: dict[str, str], tmp_path: Path
) -> None:
    """R54, R56: every line of the service once and in order, its exit code, and nothing left."""
    (tmp_path / "count.sh").write_text(f"{COUNT.format(go='/go/go-')}exit 7\n")
    work = list(compose_steps(base_images["busybox"], "exec sh /go/count.sh", service="tests"))
    work.insert(1, step(f"sed -i 's#build: .#build: .\\n    volumes: [\"{tmp_path}:/go\"]#' test-compose.yml"))
    fence = builder.send(steps=tuple(work), flow="build")
    ran = killed_often(builder, fence, lambda part: tmp_path / f"go-{part}", first=b"| 1\n")
    assert (ran.end.state, ran.end.exit_code) == ("failed", 7), ran.log[-2000:]
    assert numbered(ran.log, r"^\S*tests\S* +\| (\d+)$") == EVERY
    assert [line for line in made_by_compose(engine) if f"kf-job-{fence}-" in line] == []


def test_r54_a_step_on_another_host_goes_on_when_its_agent_is_killed(
    ssh_builder: Builder, there: Path, tmp_path: Path
) -> None:
    fence = ssh_builder.send(steps=(step(f"{COUNT.format(go=f'{tmp_path}/go-')}exit 7", ssh="mac-1"),))
    ran = killed_often(ssh_builder, fence, lambda part: tmp_path / f"go-{part}")
    assert (ran.end.state, ran.end.exit_code) == ("failed", 7), ran.log[-2000:]
    assert numbered(ran.log) == EVERY
    assert ran.log.count("── copies the checkout to mac-1") == 1
    assert list(there.iterdir()) == []


def test_r57_what_compose_runs_is_ended_at_once_when_its_job_has_had_its_time(
    engine: Engine, base_images: dict[str, str]
) -> None:
    """R57: `down` alone would ask once more, and wait for five seconds."""
    mark, other = (new_mark("agent", 1, lot * 16) for lot in "ab")
    stubborn = ("sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    made = [
        engine.docker(
            "run", "--detach", "--label", f"{LABEL_COMPOSE}={compose_project(one)}", base_images["busybox"], *stubborn
        )
        for one in (mark, other)
    ]
    try:
        end_compose(AgentEngine(engine.host), mark)
        shown = engine.docker("inspect", "--format", "{{.State.Running}}", *made).split()
        assert shown == ["false", "true"]
    finally:
        engine.docker("rm", "--force", *made)


@pytest.mark.parametrize("kind", ["container", "compose", "ssh"])
def test_r57_a_cancel_ends_the_last_process_wherever_it_runs(
    request: pytest.FixtureRequest, base_images: dict[str, str], numbers: Callable[..., None], kind: str
) -> None:
    """R57: a process that hears no SIGTERM; it carries a name by which it is found."""
    name = f"4{os.getpid()}{len(kind)}"
    script = f'trap "" TERM; sleep {name} & echo waits; while :; do sleep 1; done'
    image = base_images["busybox"]
    there: Builder = request.getfixturevalue("ssh_builder" if kind == "ssh" else "builder")
    if kind == "container":
        fence = there.send(script, where={"image": {"name": image}})
    elif kind == "compose":
        fence = there.send(steps=compose_steps(image, script), flow="build")
    else:
        fence = there.send(steps=(step(script, ssh="mac-1"),))

    def living() -> list[Path]:
        argv = ("sleep", name)
        return [found for found in Path("/proc").glob("[0-9]*") if _argv(found) == argv]

    there.master.await_log(fence, b"waits\n", seconds=60)
    wait_until(living, 20, "the process")
    began = time.monotonic()
    there.stop(fence, grace=0.5)
    wait_until(lambda: not living(), 60, "the end of the process", every=0.005)
    numbers(kind=kind, grace=0.5, seconds=[round(time.monotonic() - began, 2)])
    assert there.result(fence).end.state == "cancelled"


def _argv(process: Path) -> tuple[str, ...]:
    try:
        return tuple((process / "cmdline").read_text().split("\0")[:-1])
    except OSError:
        return ()


def restarted(builder: Builder, fence: int) -> Ran:
    """Let the agent that was killed find that the machine was restarted meanwhile."""
    notes = builder.agent.state / "attempts" / str(fence) / "progress"
    notes.write_text(notes.read_text().replace(boot_id(), "another"))
    builder.agent.start()
    return builder.result(fence)


def test_what_cannot_be_taken_up_leaves_no_container_and_is_lost_in_words(
    builder: Builder, engine: Engine, base_images: dict[str, str]
) -> None:
    web = {"image": base_images["busybox"], "command": ["sleep", "600"]}
    where = {"image": {"name": base_images["busybox"]}, "services": {"web": web}}
    fence = builder.send("echo inside; sleep 600", where=where)
    builder.master.await_log(fence, b"\ninside\n")
    builder.agent.kill()
    ran = restarted(builder, fence)
    assert (ran.end.state, ran.end.code) == ("lost", "machine-restarted")
    assert ran.log.endswith("── lost: the machine was restarted while this job ran\n")
    assert left(engine, fence) == []


def killed_with_its_session(builder: Builder, pid: Path) -> int:
    """Kill an agent and the session to another host, where a process goes on that wrote its number to `pid`."""
    fence = builder.send(steps=(step(f"sleep 600 & echo $! >{pid}; echo began; wait", ssh="mac-1"),))
    builder.master.await_log(fence, b"\nbegan\n")
    mark = json.loads((builder.agent.state / "attempts" / str(fence) / "attempt.json").read_bytes())["mark"]
    builder.agent.kill()
    for seen in marked(f"{MARK}={mark}"):
        os.kill(seen.pid, signal.SIGKILL)
    return fence


def test_what_cannot_be_taken_up_leaves_no_process_on_another_host(
    ssh_builder: Builder, there: Path, tmp_path: Path
) -> None:
    """The session is gone with the machine; another one finds what it had begun, and ends it."""
    pid = tmp_path / "pid"
    fence = killed_with_its_session(ssh_builder, pid)
    ran = restarted(ssh_builder, fence)
    assert (ran.end.state, ran.end.code) == ("lost", "machine-restarted")
    wait_until(lambda: started_at(number_in(pid)) is None, 20, "the end of the process there")
    assert list(there.iterdir()) == []


def test_a_session_that_is_gone_makes_the_job_lost_and_leaves_nothing_there(
    ssh_builder: Builder, there: Path, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    fence = killed_with_its_session(ssh_builder, pid)
    ssh_builder.agent.start()
    ran = ssh_builder.result(fence)
    assert (ran.end.state, ran.end.code) == ("lost", "agent-restarted")
    assert ran.end.sentence == "the agent was restarted: its processes were ended while no agent was there"
    wait_until(lambda: started_at(number_in(pid)) is None, 20, "the end of the process there")
    assert list(there.iterdir()) == []


def test_r57_a_job_is_cancelled_while_it_waits_for_a_service(
    builder: Builder, engine: Engine, base_images: dict[str, str]
) -> None:
    """R57: also while the command that asks it hangs."""
    web = {
        "image": base_images["busybox"],
        "command": ["sleep", "600"],
        "ready": {"command": ["sleep", "600"], "within": "10m"},
    }
    fence = builder.send("echo never", where={"services": {"web": web}})
    builder.master.await_log(fence, b"service web: ")
    builder.stop(fence, grace=1)
    ran = builder.result(fence)
    assert (ran.end.state, ran.end.sentence) == ("cancelled", "cancelled by ann")
    assert left(engine, fence) == []


@pytest.mark.timeout(1800)
def test_r54_a_job_in_containers_killed_before_any_act_has_the_same_log_and_end(
    request: pytest.FixtureRequest,
    engine: Engine,
    base_images: dict[str, str],
    tmp_path: Path,
    numbers: Callable[..., None],
) -> None:
    """R54: with --long every act, else every fifteenth; no command is run twice or left out, and nothing is left."""
    every = 1 if request.config.getoption("--long") else 15
    argv = [sys.executable, "-m", "tests.real.dying_boxes", str(tmp_path), engine.host, base_images["busybox"]]
    done = subprocess.run([*argv, str(every)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lives = [json.loads(line) for line in done.stdout.splitlines()]
    whole = lives[-1]
    assert whole["act"] is None
    assert "\nthree\nkept\n── step 3/3 " in whole["log"]
    assert whole["log"].endswith(" failed with exit code 3\n")
    for life in lives:
        assert life["log"] == whole["log"], f"killed at act {life['act']}: {done.stderr}"
        assert life["done"] == ["one", "two", "three"], f"killed at act {life['act']}"
        assert life["left"] == [], f"killed at act {life['act']}"
    numbers(lives=len(lives), every=every)
