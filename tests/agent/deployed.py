"""A host on which a deployer deploys: an engine in memory whose containers really answer on loopback."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from keepflow.agent.deployer import Deployer
from keepflow.agent.deployment import Deployment, ServicePolicy
from keepflow.agent.held_secrets import HeldSecrets
from keepflow.core import names
from keepflow.core.flows import Container, Health
from keepflow.ports import Site, Traffic, Visit
from keepflow.proxies.none import NoProxy
from keepflow.tools import failpoints
from tests.agent.confided import KEY
from tests.agent.fakes import FakeTarget, Told

V1, V2, V3 = (f"sha256:{digit * 64}" for digit in "123")
HEALTH = Health(within=0.5, successes=2, timeout=0.5, interval=0.02)
_subnets = itertools.count(0, 16)
_numbers = itertools.count(1)


class Killed(BaseException):
    """The process was killed here; nothing of it runs on."""


@dataclass
class Host:
    """A host with one service; `deployer()` is an agent that was just started on it."""

    root: Path
    target: FakeTarget = field(default_factory=FakeTarget)
    told: Told = field(default_factory=Told)
    policy: ServicePolicy = field(
        default_factory=lambda: ServicePolicy("shop", "shop/test", volumes=("data",), watch=0.05, drain=0.5)
    )
    pool: str = ""

    def __post_init__(self) -> None:
        offset = next(_subnets)
        of_this_process = 100 + os.getpid() % 100  # others may run these tests on this machine now
        self.pool = f"127.{of_this_process}.{offset // 256}.{offset % 256}/28"
        for image in (V1, V2, V3):
            self.target.add_image(image)

    def deployer(self, **changes: Any) -> Deployer:
        """Start an agent."""
        return Deployer(
            root=self.root / "agent",
            agent="test",
            target=self.target,
            proxy=NoProxy(self.root / "sw"),
            policies={"shop": replace(self.policy, **changes)},
            reporter=self.told,
            held=HeldSecrets(self.root / "agent/secrets", KEY.opening),
            pool=self.pool,
            patience=0.0,
        )

    def state(self) -> Traffic | None:
        """Read the flags."""
        deployer = self.deployer()
        return deployer.proxy.state(deployer.places.site(deployer.places.instance("shop", "main")))

    def running(self) -> dict[str, str]:
        """Return the identities of running containers by slot."""
        return {
            one.facts.labels[names.LABEL_SLOT]: one.facts.labels[names.LABEL_IDENTITY]
            for one in self.target.containers.values()
            if one.facts.running
        }


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.target.close()


def order(image: str, *, fence: int | None = None, action: str = "deploy", **container: Any) -> Deployment:
    number = fence or next(_numbers)
    return Deployment(
        id=f"d-{number}",
        fence=number,
        nonce=f"n-{number}",
        environment="shop/test",
        service="shop",
        instance="main",
        action=action,
        origin="local",
        repository="shop",
        image_id=image,
        digest=None,
        container=Container(**{"port": 8099, "health": HEALTH, "stop_timeout": 1.0, **container}),
    )


def from_registry(digest: str, **changes: Any) -> Deployment:
    return replace(order("", **changes), origin="registry", repository="registry.test:5000/shop", digest=digest)


class Visited(NoProxy):
    """A proxy whose record of visitors is what the test says; `states` is every traffic it was switched to."""

    def __init__(self, root: Path, visits: list[Visit]) -> None:
        super().__init__(root)
        self.record, self.states = visits, list[Traffic]()

    def switch(self, site: Site, traffic: Traffic) -> None:
        """Remember it."""
        super().switch(site, traffic)
        self.states.append(traffic)

    def visits(self, site: Site, position: int) -> tuple[list[Visit], int]:
        """Return what the test says."""
        return self.record[position:], len(self.record)


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def kill(*_: int) -> None:
        raise Killed

    monkeypatch.setattr(failpoints.os, "kill", kill)

    def arm(name: str | None) -> None:
        if name:
            monkeypatch.setenv(failpoints.VARIABLE, f"{name}=kill")
        else:
            monkeypatch.delenv(failpoints.VARIABLE, raising=False)

    return arm  # type: ignore[return-value]  # a plain fixture: monkeypatch undoes it


def die(host: Host, deployment: Deployment) -> None:
    """Deploy until the failpoint is hit."""
    with pytest.raises(Killed):
        host.deployer().deploy(deployment)
