"""A real agent on a real engine: it builds an image, obeys an order for it, and serves it behind its own nginx."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from keepflow.cli.entry import ask_agent
from keepflow.core import deploys, names
from keepflow.core.flows import Container, Health
from keepflow.crypto import dsse
from keepflow.tools.http_get import get
from keepflow.wire import messages
from keepflow.wire.messages import BuiltImage, DeployAnswer, DeployFinished, DeployPhase, HostRollback
from keepflow.wire.orders import PAYLOAD_TYPE
from tests.agent.processes import AgentProcess, Builder
from tests.fakes import serve_master
from tests.real.engines import Engine
from tests.real.parts import find, need
from tests.real.waiting import free_port, wait_until
from tests.tools import smart_http
from tests.tools.repositories import bare, commit

pytestmark = pytest.mark.real

SERVICE = f"kfagent{os.getpid()}"
POOL = f"10.213.{200 + os.getpid() % 50}.0/28"
DOCKERFILE = """FROM {base}
ARG VERSION
COPY app.py /app.py
ENV VERSION=$VERSION
CMD ["python3", "-u", "/app.py"]
"""


@dataclass
class Host(Builder):
    """An agent that may build and deploy; `deploy` is the master's press of a button."""

    engine: Engine = field(kw_only=True)
    port: int = field(kw_only=True)
    agent_key: str = ""

    def build(self, version: str) -> BuiltImage:
        """Build a release by a job and return what the agent says of it."""
        tag = f"{SERVICE}:{version}"
        script = f"docker build -q --build-arg VERSION={version} -t {tag} . && echo image={tag} >>$KEEPFLOW_OUTPUT"
        ran = self.run(script, images=(SERVICE,), flow="dev")
        assert ran.end.state == "succeeded", ran.log
        (image,) = ran.end.images
        return image

    def order(self, built: BuiltImage, *, expires_in: float = 300, **changes: Any) -> messages.Deploy:
        """Sign an order for an image."""
        self.last += 1
        container = changes.pop("container", Container(health=Health(within=8.0, successes=2), stop_timeout=2.0))
        now = time.time_ns() // 1000
        fields = {
            "version": 1,
            "critical": ["fence"],
            "action": "deploy",
            "deployment": f"d-{SERVICE}-{self.last}",
            "agent": "build-1",
            "agent_key": self.master.hellos[-1].key_id,
            "environment": "shop/dev",
            "service": SERVICE,
            "instance": "main",
            "image": {"origin": "local", "repository": SERVICE, "image_id": built.image_id, "digest": None},
            "description": deploys.to_json(container),
            "description_hash": deploys.description_hash(container),
            "evidence": "none",
            "receipts": [],
            "fence": self.last,
            "expect_current": None,
            "issued_at": now,
            "expires_at": now + int(expires_in * 1e6),
            "nonce": f"n-{SERVICE}-{self.last}",
            "approver": "ann",
            **changes,
        }
        envelope = dsse.seal(deploys.canonical(fields), PAYLOAD_TYPE, self.master.key)
        return messages.Deploy(fence=self.last, deployment=str(fields["deployment"]), envelope=envelope)

    def deploy(self, built: BuiltImage, **changes: Any) -> messages.DeployFinished:
        """Send an order and wait for its end."""
        message = self.order(built, **changes)
        self.master.send(message)
        return self.outcome(message)

    def outcome(self, message: messages.Deploy) -> messages.DeployFinished:
        """Wait for the end of a deployment."""
        found = self.master.await_report(DeployFinished, message.fence, 60)
        assert isinstance(found, DeployFinished)
        return found

    def page(self) -> tuple[int, str]:
        """Ask the front door as a visitor."""
        answer = get("127.0.0.1", self.port, "/", {"Host": "shop.example.org"}, timeout=5)
        return answer.status, answer.body.decode()

    def containers(self) -> list[str]:
        """Name the containers of the service that run."""
        return self.engine.docker(
            "ps", "--filter", f"label={names.LABEL_SERVICE}={SERVICE}", "--format", "{{.Names}}"
        ).split()

    def clean(self) -> None:
        """Remove everything this host made."""
        self.engine.remove_labelled(f"{names.LABEL_SERVICE}={SERVICE}")
        for tag in self.engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split():
            if SERVICE in tag:
                self.engine.attempt("image", "rm", "--force", tag)


@contextlib.contextmanager
def _host(place: Path, engine: Engine, base: str) -> Iterator[Host]:
    repository = bare(place / "repository")
    app = Path(__file__).with_name("app.py").read_text()
    sha = commit(repository, {"app.py": app, "Dockerfile": DOCKERFILE.format(base=base)})
    port = free_port()
    file = f"""
capabilities: [run, deploy]
docker_for: [shop/dev]
docker: {{host: "{engine.host}"}}
networks: {POOL}
nginx: {{mode: own, binary: {find("nginx")}}}
services:
  {SERVICE}:
    environment: shop/dev
    images: [{SERVICE}]
    front: {{server_name: shop.example.org, listen: "127.0.0.1:{port}"}}
    watch: 200ms
    drain: 2s
    hot: 0
"""
    with smart_http.serve(repository) as code, serve_master(code_url=code.url, heartbeat=0.5) as master:
        agent = AgentProcess(master, place, file=file)
        host = Host(master, agent, sha, engine=engine, port=port)
        agent.start()
        try:
            yield host
        finally:
            agent.close()
            _stop_nginx(place / "nginx")
            host.clean()


def _stop_nginx(home: Path) -> None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((home / "nginx.pid").read_text()), 15)


@pytest.fixture(scope="module")
def host(engine: Engine, base_images: dict[str, str]) -> Iterator[Host]:
    """A host with an agent that serves the application."""
    need("nginx")
    place = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="kf-test-"))
    place.chmod(0o755)
    try:
        with _host(place, engine, base_images["app"]) as made:
            yield made
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_what_a_job_built_is_deployed_and_served(host: Host) -> None:
    first, second = host.build("v1"), host.build("v2")
    assert first.image_id == host.engine.docker("image", "inspect", "--format", "{{.Id}}", f"{SERVICE}:v1")
    end = host.deploy(first)
    assert (end.outcome, end.serving) == ("done", first.image_id), end.sentence
    assert host.page() == (200, "marker: v1\n")
    end = host.deploy(second, expect_current=first.image_id)
    assert end.outcome == "done", end.sentence
    assert host.page() == (200, "marker: v2\n")
    beat = wait_until(
        lambda: [
            beat for beat in host.master.heartbeats if beat.services and beat.services[0].identity == second.image_id
        ],
        20,
        "a heartbeat that says what serves",
    )[-1]
    assert beat.services[0].environment == "shop/dev"


def test_a_rollback_typed_on_the_host_is_carried_out_by_the_running_agent_and_told(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEEPFLOW_AGENT_STATE", str(host.agent.state))
    assert ask_agent([SERVICE]) == 0
    assert host.page() == (200, "marker: v1\n")
    told = wait_until(
        lambda: [one for one in host.master.reports.values() if isinstance(one, HostRollback)], 5, "a word"
    )
    assert (told[0].outcome, told[0].by.partition(":")[0]) == ("done", "host")


def test_an_order_altered_or_replayed_touches_nothing(host: Host) -> None:
    image = host.build("v3")
    serving = host.page()
    before = host.containers()
    foreign = {"origin": "local", "repository": SERVICE, "image_id": _foreign(host), "digest": None}
    for changes, code in (
        ({"service": "other"}, "service-unknown"),
        ({"expires_in": -1}, "expired"),
        ({"fence": 1}, "stale-fence"),
        ({"expect_current": "sha256:" + "0" * 64}, "expect-current"),
        ({"image": foreign}, "not-made-here"),
    ):
        message = host.order(image, **changes)
        host.master.send(message)
        answer = host.master.await_report(DeployAnswer, message.fence)
        assert (answer.accepted, answer.code) == (False, code)
    assert (host.page(), host.containers()) == (serving, before)
    lines = (host.agent.state / "refused.log").read_text().splitlines()
    assert len(lines) >= 5
    good = host.order(image)
    host.master.send(good)
    assert host.outcome(good).outcome == "done"
    running = host.containers()
    host.master.send(good)
    wait_until(lambda: not host.master.outgoing, 20, "the receipt of the replay")
    host.build("v4")
    assert host.containers() == running


def _foreign(host: Host) -> str:
    """Return an image of this engine that no job of this agent built."""
    return host.engine.docker("image", "inspect", "--format", "{{.Id}}", "keepflow-test/busybox")


def test_kill_9_before_the_switch_ends_in_a_state_with_a_reason_and_the_next_order_works(host: Host) -> None:
    image = host.build("v5")
    before = host.page()
    slow = Container(health=Health(within=20.0, successes=200, interval=0.05), stop_timeout=2.0)
    message = host.order(image, container=slow)
    host.master.send(message)

    def gating() -> bool:
        return any(
            isinstance(body, DeployPhase) and body.fence == message.fence and body.phase == "gating"
            for body in list(host.master.reports.values())
        )

    wait_until(gating, 30, "the gate")
    host.agent.kill()
    assert host.page() == before, "the front door outlives the agent"
    host.agent.start()
    end = host.outcome(message)
    assert (end.outcome, end.code) == ("failed", "agent-restarted")
    assert host.page() == before
    assert host.deploy(image).outcome == "done"
    assert host.page() == (200, "marker: v5\n")


def test_the_agent_listens_nowhere(host: Host) -> None:
    assert host.agent.process is not None
    listed = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout
    assert f"pid={host.agent.process.pid}," not in listed


def test_sigterm_leaves_what_serves_alone(host: Host) -> None:
    serving = host.page()
    assert host.agent.stop() == 0
    assert host.page() == serving
    host.agent.start()
