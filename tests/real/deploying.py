"""A host to deploy to in tests: an agent's deployer with a real engine, an own nginx on a free port, and the images."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from keepflow.agent.deployer import Deployer
from keepflow.agent.deployment import Deployment, ServicePolicy
from keepflow.agent.held_secrets import HeldSecrets
from keepflow.agent.networks import host_routes
from keepflow.core.flows import Container, Health
from keepflow.proxies._own import OwnNginx
from keepflow.proxies.nginx import Nginx
from keepflow.targets.docker import Docker
from keepflow.tools.failpoints import VARIABLE
from keepflow.tools.http_get import get
from tests.agent.confided import KEY
from tests.agent.fakes import Told
from tests.real.engines import Engine
from tests.real.load_process import ROOT
from tests.real.parts import find, need
from tests.real.waiting import free_port

APP = Path(__file__).with_name("app.py")
LABEL = "keepflow.test"
_numbers = itertools.count(1)
_hosts = itertools.count()
_POOLS = list(IPv4Network("10.213.64.0/18").subnets(new_prefix=28))


def image_tag(version: str) -> str:
    """Return the tag of a version of the test application that this process built."""
    return f"keepflow-test-deploy-{os.getpid()}:{version}"


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
            engine.docker("build", "--quiet", "--force-rm", "--tag", image_tag(version), context)
            images[version] = engine.docker("image", "inspect", "--format", "{{.Id}}", image_tag(version))
    return images


def _free_pool(number: int) -> IPv4Network:
    """Return a pool nothing on this host routes yet: a run that was broken off may have left its networks behind."""
    taken = host_routes()
    start = os.getpid() * 16 + number
    pools = (_POOLS[(start + step) % len(_POOLS)] for step in range(len(_POOLS)))
    return next(pool for pool in pools if not any(pool.overlaps(route) for route in taken))


@dataclass(slots=True)
class Host:
    """One host: where its state lies, how it is reached, and what it was asked so far."""

    engine: Engine
    images: dict[str, str]
    root: Path
    pool: str
    service: str
    port: int = field(default_factory=free_port)
    told: Told = field(default_factory=Told)
    _targets: list[Docker] = field(default_factory=list)

    @classmethod
    def fresh(cls, engine: Engine, images: dict[str, str]) -> Host:
        """Return a host with one service and an own nginx, and nothing deployed; `clean` it in the end."""
        need("nginx")
        root = Path(tempfile.mkdtemp(prefix="keepflow-deploy-test-"))
        root.chmod(0o755)
        number = next(_hosts)
        return cls(engine, images, root, str(_free_pool(number)), f"shop{os.getpid()}x{number}")

    def deployer(self, **changes: Any) -> Deployer:
        """Return a deployer over the state on disk, as an agent that was just started has it."""
        policy = ServicePolicy(
            service=self.service,
            environment="shop/test",
            listen=f"127.0.0.1:{self.port}",
            volumes=("data",),
            **{"server_name": "shop.example.org", "watch": 0.3, "drain": 8.0, **changes},
        )
        target = Docker(self.engine.host)
        self._targets.append(target)
        return Deployer(
            root=self.root / "agent",
            agent="test",
            target=target,
            proxy=Nginx.own(self.root / "sw", self.root / "nginx", find("nginx") or "nginx"),
            policies={self.service: policy},
            reporter=self.told,
            held=HeldSecrets(self.root / "agent/secrets", KEY.opening),
            pool=self.pool,
            labels={LABEL: self.service},
            patience=0.0,
        )

    def nginx(self) -> OwnNginx:
        """Return the own nginx as a process."""
        return OwnNginx(self.root / "nginx", find("nginx") or "nginx")

    def order(
        self,
        version: str,
        *,
        action: str = "deploy",
        canary: tuple[int, ...] = (),
        canary_hold: int = 0,
        **container: Any,
    ) -> Deployment:
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
            canary=canary,
            canary_hold=canary_hold,
        )

    def die(self, point: str, deployment: Deployment | None, **changes: Any) -> int:
        """Let another process deploy (None: take up what is open), killed at a failpoint; return how it ended."""
        told = {
            "socket": str(self.engine.socket),
            "root": str(self.root),
            "pool": self.pool,
            "service": self.service,
            "port": self.port,
            "policy": changes,
            "deployment": deployment.to_json() if deployment else None,
        }
        done = subprocess.run(
            [sys.executable, "-m", "tests.real.deploy_once"], cwd=ROOT, env={**os.environ, VARIABLE: f"{point}=kill"},
            input=json.dumps(told), capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode not in (0, -9):
            raise RuntimeError(done.stderr)
        return done.returncode

    def get(self) -> tuple[int, str]:
        """Ask the front door as a visitor and return status and body."""
        answer = get("127.0.0.1", self.port, "/", {"Host": "shop.example.org"}, timeout=5)
        return answer.status, answer.body.decode()

    def containers(self) -> dict[str, str]:
        """Return this host's containers: slot → running or exited."""
        listed = self.engine.docker(
            "ps", "--all", "--filter", f"label={LABEL}={self.service}", "--format", "{{.Names}} {{.State}}"
        )
        return {line.split()[0].rpartition("-")[2]: line.split()[1] for line in listed.splitlines()}

    def clean(self) -> None:
        """Remove everything this host made."""
        for target in self._targets:
            target.close()
        self.nginx().stop()
        self.engine.remove_labelled(f"{LABEL}={self.service}")
        for volume in self.engine.docker("volume", "ls", "--quiet", "--filter", f"name=kf-{self.service}-").split():
            self.engine.docker("volume", "rm", "--force", volume)
        for tag in self.engine.docker(
            "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"kf-{self.service}-main-keep"
        ).split():
            self.engine.docker("image", "rm", tag)
        shutil.rmtree(self.root, ignore_errors=True)
