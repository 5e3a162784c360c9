"""Jobs in containers, with services, by Compose and on other hosts go on when their agent is killed, line for line.

The agent is a real process that gets SIGKILL in the middle of numbered lines, at no chosen moment.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keepflow.wire import messages
from tests.agent.processes import Builder, Ran
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


def numbers(log: str, pattern: str = r"^(\d+)$") -> list[int]:
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
    assert numbers(ran.log) == EVERY
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
    assert numbers(ran.log, r"^\S*tests\S* +\| (\d+)$") == EVERY
    assert [line for line in made_by_compose(engine) if f"kf-job-{fence}-" in line] == []


def test_r54_a_step_on_another_host_goes_on_when_its_agent_is_killed(
    ssh_builder: Builder, there: Path, tmp_path: Path
) -> None:
    fence = ssh_builder.send(steps=(step(f"{COUNT.format(go=f'{tmp_path}/go-')}exit 7", ssh="mac-1"),))
    ran = killed_often(ssh_builder, fence, lambda part: tmp_path / f"go-{part}")
    assert (ran.end.state, ran.end.exit_code) == ("failed", 7), ran.log[-2000:]
    assert numbers(ran.log) == EVERY
    assert ran.log.count("── copies the checkout to mac-1") == 1
    assert list(there.iterdir()) == []
