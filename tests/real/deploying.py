"""A host to deploy to in tests: an agent's deployer with a real engine, an own nginx on a free port, and the images."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from keepflow.agent.deployer import Deployer
from keepflow.agent.deployment import Deployment, ServicePolicy
from keepflow.core.flows import Container, Health
from keepflow.proxies._own import OwnNginx
from keepflow.proxies.nginx import Nginx
from keepflow.targets.docker import Docker
from tests.agent.fakes import Told
from tests.real.engines import Engine
from tests.real.waiting import free_port

APP = Path(__file__).with_name("app.py")
LABEL = "keepflow.test"
_numbers = itertools.count(1)


def build_images(engine: Engine, base: str) -> dict[str, str]:
    """Build three releases of the test application on an engine and return their image ids by version."""
    images = {}
    with tempfile.TemporaryDirectory() as context:
        shutil.copy(APP, Path(context) / "app.py")
        for version in ("v1", "v2", "v3"):
            (Path(context) / "Dockerfile").write_text(
                f"FROM {base}\nCOPY app.py /app.py\nENV VERSION={version}\nLABEL {LABEL}.image={os.getpid()}\n"
                'CMD ["python3", "-u", "/app.py"]\n'
            )
            tag = f"keepflow-test-deploy-{os.getpid()}:{version}"
            engine.docker("build", "--quiet", "--tag", tag, context)
            images[version] = engine.docker("image", "inspect", "--format", "{{.Id}}", tag)
    return images


@dataclass(slots=True)
class Host:
    """One host: where its state lies, how it is reached, and what it was asked so far."""

    engine: Engine
    images: dict[str, str]
    root: Path
    pool: str
    port: int = field(default_factory=free_port)
    service: str = "shop"
    policy: ServicePolicy | None = None
    told: Told = field(default_factory=Told)

    def __post_init__(self) -> None:
        self.root.chmod(0o755)
        self.policy = ServicePolicy(
            service=self.service,
            environment="shop/test",
            server_name="shop.example.org",
            listen=f"127.0.0.1:{self.port}",
            volumes=("data",),
            watch=0.3,
            drain=8.0,
        )

    def deployer(self, **changes: Any) -> Deployer:
        """Return a deployer over the state on disk, as an agent that was just started has it."""
        assert self.policy is not None
        policy = replace(self.policy, **changes)
        return Deployer(
            root=self.root / "agent",
            agent="test",
            target=Docker(self.engine.host),
            proxy=self.proxy(),
            policies={self.service: policy},
            reporter=self.told,
            pool=self.pool,
            labels={LABEL: str(os.getpid())},
        )

    def proxy(self) -> Nginx:
        """Return the own nginx."""
        return Nginx.own(self.root / "sw", self.root / "nginx")

    def order(self, version: str, *, action: str = "deploy", **container: Any) -> Deployment:
        """Return a fresh order for a version; `container` overrides the description."""
        number = next(_numbers)
        described = {"health": Health(within=8.0, successes=3, timeout=2.0), "stop_timeout": 5.0, **container}
        return Deployment(
            id=f"d{os.getpid()}-{number}",
            fence=number,
            nonce=f"n{os.getpid()}-{number}",
            environment="shop/test",
            service=self.service,
            instance="main",
            action=action,
            origin="local",
            repository="shop",
            image_id=self.images.get(version, version),
            digest=None,
            container=Container(**described),
        )

    def get(self) -> tuple[int, str]:
        """Ask the front door as a visitor and return status and body."""
        from keepflow.tools.http_get import get

        answer = get("127.0.0.1", self.port, "/", {"Host": "shop.example.org"}, timeout=5)
        return answer.status, answer.body.decode()

    def containers(self) -> dict[str, str]:
        """Return this host's containers: name → running or exited."""
        listed = self.engine.docker(
            "ps", "--all", "--filter", f"label={LABEL}={os.getpid()}", "--format", "{{.Names}} {{.State}}"
        )
        return dict(line.split() for line in listed.splitlines())

    def clean(self) -> None:
        """Remove everything this host made."""
        OwnNginx(self.root / "nginx", "nginx").stop()
        self.engine.remove_labelled(f"{LABEL}={os.getpid()}")
        for volume in self.engine.docker("volume", "ls", "--quiet", "--filter", f"name=kf-{self.service}-").split():
            self.engine.docker("volume", "rm", "--force", volume)
        for tag in self.engine.docker(
            "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"kf-{self.service}-main-keep"
        ).split():
            self.engine.docker("image", "rm", tag)
        shutil.rmtree(self.root, ignore_errors=True)
