"""`compose:` on a real agent: the exit code of the named service, runs that never meet, and nothing left of any."""

from __future__ import annotations

import os
from typing import Any

import pytest

from keepflow.core import names
from keepflow.wire import messages
from tests.agent.processes import Builder
from tests.real.boxes import step
from tests.real.engines import Engine
from tests.real.test_job_containers import builder
from tests.real.waiting import wait_until

__all__ = ["builder"]  # the fixture
pytestmark = [pytest.mark.real, pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")]
FILE = """\
version: "3.7"
services:
  web:
    image: {image}
    init: true
    command: sh -c 'mkdir -p /www; echo up >/www/index.html; exec httpd -f -p 80 -h /www'
    volumes: [kept:/kept]
  tests:
    build: .
    init: true
    command: sh -c '{script}'
    depends_on: [web]
volumes: {{kept: {{}}}}
"""
DOCKERFILE = "FROM {image}\\nLABEL made-by=compose-step\\n"


def steps(image: str, script: str, **spec: Any) -> tuple[messages.StepOrder, ...]:
    """Return steps that lay a Compose file and run it."""
    text = FILE.format(image=image, script=script).replace("'", "'\\''")
    made = f"printf '{DOCKERFILE.format(image=image)}' >Dockerfile; printf '%s' '{text}' >test-compose.yml"
    compose = messages.StepOrder(kind="compose", name="compose", spec={"file": ["test-compose.yml"], **spec})
    return step(made), compose


def made_by_compose(engine: Engine) -> list[str]:
    """List everything on the engine that Compose made for jobs."""
    label = f"label={names.LABEL_COMPOSE}"
    found = [
        engine.docker(
            noun, "ls", *more, "--format", f'{{{{.ID}}}} {{{{.Label "{names.LABEL_COMPOSE}"}}}}', "--filter", label
        )
        for noun, more in (("container", ["-a"]), ("network", []))
    ]
    found.append(engine.docker("volume", "ls", "-q", "--filter", label))
    return [line for line in "\n".join(found).splitlines() if "kf-job-" in line]


def test_the_exit_code_of_the_named_service_is_the_steps(
    builder: Builder, engine: Engine, base_images: dict[str, str]
) -> None:
    work = steps(base_images["busybox"], "echo ended by itself; exit 7", service="tests")
    ran = builder.run(steps=work, flow="build")
    assert (ran.end.state, ran.end.exit_code) == ("failed", 7), ran.log
    assert "ended by itself" in ran.log
    assert made_by_compose(engine) == []
    assert engine.docker("image", "ls", "-q", "--filter", "label=made-by=compose-step") == ""


def test_r56_two_runs_of_one_file_at_once_do_not_meet_and_a_stopped_one_leaves_nothing(
    builder: Builder, engine: Engine, base_images: dict[str, str]
) -> None:
    """R56, R57."""
    before = made_by_compose(engine)

    def made() -> list[str]:
        return [line for line in made_by_compose(engine) if line not in before]

    work = steps(base_images["busybox"], "echo waits; exec sleep 600", service="tests")
    first, second = (builder.send(steps=work, flow="build", run=number) for number in (1, 2))
    for fence in (first, second):
        builder.master.await_log(fence, b"waits\n", seconds=60)
    projects = {line.split()[1] for line in made() if " " in line}
    assert len(projects) == 2
    builder.stop(first, grace=1)
    assert builder.result(first).end.state == "cancelled"
    left = {line.split()[1] for line in made() if " " in line}
    assert len(left) == 1
    builder.agent.kill()
    builder.agent.start()
    assert made() != [], "a job goes on without its agent, and is taken up"
    builder.stop(second, grace=1)
    assert builder.result(second).end.state == "cancelled"
    wait_until(lambda: made() == [], 30, "the end of what the job began before its agent was killed")
    assert engine.docker("image", "ls", "-q", "--filter", "label=made-by=compose-step") == ""


def test_a_flow_without_the_engine_runs_no_compose(builder: Builder, base_images: dict[str, str]) -> None:
    ran = builder.run(steps=steps(base_images["busybox"], "true"), flow="other")
    assert ran.end.state == "failed"
