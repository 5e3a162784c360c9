"""The example of Circle and Cyclone as a flow, run for real by `keepflow up` on a push.

pre_build in a container → build → integration with services, one of them the fresh image → push → post_build.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.processes import MasterProcess, hook_headers, push_body
from tests.real.engines import Engine
from tests.real.parts import need
from tests.real.test_push_script import Registry, registry
from tests.real.waiting import wait_until
from tests.tools.repositories import bare, commit

__all__ = ["registry"]  # the fixture
pytestmark = pytest.mark.real
NAME = "keepflow-test-circle"
FLOW = """\
image: {name}
flows:
  circle:
    on: {{push: master}}
    steps:
      - name: pre_build
        image: {{name: {compress}, at: /go/src/github.com/caicloud/ci-demo-go}}
        run:
          - cd /go/src/github.com/caicloud/ci-demo-go/code
          - esbuild --minify --log-level=error main.js --outfile={compiled}
          - cp app.js ../publish/
      - build: {{context: publish, dockerfile: publish/Dockerfile_publish}}
      - name: integration
        image: {app}
        services:
          postgres: {{image: {busybox}, command: [nc, -ll, -p, "5432", -e, cat], ready: {{port: 5432}}}}
          app: {{image: BUILT_IMAGE, ready: {{port: 8080, http: /app.js}}}}
        run: |
          export CGO_ENABLED=0
          python3 code/test.py
      - push: {to}
      - name: post_build
        image: {busybox}
        run: echo "Built Successfully."
"""
DOCKERFILE = "FROM {busybox}\nCOPY app.js /www/app.js\nCMD exec httpd -f -p 8080 -h /www\n"
TEST = """\
import http.client
import os
import socket

asked = http.client.HTTPConnection("app", 8080, timeout=10)
asked.request("GET", "/app.js")
print("served:", asked.getresponse().read().decode().strip())
with socket.create_connection(("postgres", 5432), timeout=10) as database:
    database.sendall(b"select 1\\n")
    print("stored:", database.recv(100).decode().strip(), os.environ["CGO_ENABLED"])
"""
AGENT = """\
master: {url}
capabilities: [run]
nginx: {{mode: none}}
docker: {{host: "{engine}"}}
docker_for: [demo/circle]
containers: {{for: demo, memory: 256MB}}
"""


@dataclass
class Circle:
    """A master with its agent, and the project."""

    master: MasterProcess
    repository: Path
    files: Callable[..., dict[str, str]]
    pushed: int = 0

    def run(self, **different: str) -> tuple[dict[str, Any], str]:
        """Push a commit and return its run once it has ended, and its log."""
        self.pushed += 1
        sha = commit(self.repository, dict(self.files(**different)))
        body = push_body("refs/heads/master", sha)
        assert self.master.ask("POST", "/hooks/demo", body, hook_headers(body, f"d-{self.pushed}")).status == 202

        def look() -> dict[str, Any] | None:
            runs = self.master.api("GET", "/projects/demo/runs").json["items"]
            found = next((run for run in runs if run["sha"] == sha), None)
            if found is None or found["state"] in ("queued", "waiting", "running"):
                return None
            return dict(self.master.api("GET", f"/projects/demo/runs/{found['number']}").json)

        run = wait_until(look, 120, f"the end of the run of {sha[:10]}", every=0.1)
        log = self.master.api("GET", f"/projects/demo/runs/{run['number']}/log").body.decode()
        return run, log


@pytest.fixture(scope="module")
def circle(
    engine: Engine, base_images: dict[str, str], registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Circle]:
    """`keepflow up`, a repository with the sources, and a registry that wants a login."""
    need("docker", "git")
    place = tmp_path_factory.mktemp("circle")
    home, repository = place / "home", bare(place / "repository")
    home.mkdir(mode=0o700)

    def files(compiled: str = "app.js", to: str = "", test: str = TEST) -> dict[str, str]:
        return {
            ".keepflow.yml": FLOW.format(name=NAME, compiled=compiled, to=to, **base_images),
            "code/main.js": 'const words = "from the " + "sources"; console.log(words);\n',
            "code/test.py": test,
            "publish/Dockerfile_publish": DOCKERFILE.format(**base_images),
        }

    master = MasterProcess(home, verb="up")
    (home / "local-agent.yml").write_text(AGENT.format(url=master.url, engine=engine.host))
    master.start()
    try:
        push = {"username": "push", "password": "lent"}
        master.apply(
            {"demo": {"repo": str(repository), "images": [NAME]}},
            registries={"main": {"address": registry.address, "push": push}},
            environments={"demo/test": {"agents": ["local"], "service": "demo-test", "branches": ["master"]}},
        )
        yield Circle(master, repository, files)
    finally:
        master.stop()
        for tag in engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split():
            if NAME in tag:
                engine.attempt("image", "rm", "--force", tag)


def steps(run: dict[str, Any]) -> list[tuple[str, int | None]]:
    """Return the steps that began, each with how it ended."""
    attempts = [attempt for job in run["jobs"] for attempt in job["attempts"]]
    return [(step["name"], step["exit_code"]) for attempt in attempts for step in attempt["steps"]]


def test_r23_r25_r26_r27_the_whole_flow_runs_in_its_order(circle: Circle, registry: Registry) -> None:
    """R23, R24, R25, R26, R27, R34: what was compiled is built, tested as a service, pushed, and then told."""
    run, log = circle.run()
    assert run["state"] == "succeeded", log
    names = [name for name, _ in steps(run)]
    assert names == ["pre_build", "build publish", "integration", "push", "post_build"], json.dumps(run)
    assert 'served: const words="from the sources";console.log(words);' in log
    assert "stored: select 1 0" in log
    assert "\nBuilt Successfully.\n" in log
    [release] = [one for one in run["releases"] if one["digest"]]
    assert release["digest"] == registry.digest(NAME, f"b{run['number']}")


def test_r23_an_output_of_pre_build_that_is_missing_fails_it_and_nothing_is_built(circle: Circle) -> None:
    run, log = circle.run(compiled="elsewhere.js")
    assert run["state"] == "failed"
    assert [name for name, _ in steps(run)] == ["pre_build"], log
    assert run["releases"] == []


def test_r25_services_are_gone_when_integration_fails_and_nothing_is_pushed(circle: Circle, engine: Engine) -> None:
    run, log = circle.run(test="raise SystemExit('no good')\n")
    assert run["state"] == "failed"
    assert steps(run)[-1] == ("integration", 1), log
    assert "no good" in log
    assert engine.docker("container", "ls", "-aq", "--filter", f"label=keepflow.run=demo#{run['number']}") == ""
    assert engine.docker("network", "ls", "-q", "--filter", f"label=keepflow.run=demo#{run['number']}") == ""


def test_r26_post_build_does_not_run_when_the_push_failed(circle: Circle) -> None:
    run, log = circle.run(to="another-name")
    assert run["state"] == "failed"
    assert [name for name, _ in steps(run)] == ["pre_build", "build publish", "integration", "push another-name"]
    assert "may not push" in log
    assert "Built Successfully" not in log.replace('echo "Built Successfully."', "")
