"""What the agent remembers of one instance: its front's tokens and ports, what serves, and what served before.

    instances/kf-shop-main/
        lock           held while a deployment runs; it dies with the process that holds it
        front.json     tokens and ports of the site; made once
        served.json    the serving release, the ones before it, and until when the retired one is kept running

What serves is read from the front door and the containers; this is for a rollback, for retention and for "since when".
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from keepflow.agent.deployment import Deployment, ServicePolicy
from keepflow.agent.networks import SlotNetwork
from keepflow.core import deploys, names
from keepflow.core.flows import Container
from keepflow.errors import Refused
from keepflow.ports import Site
from keepflow.tools.files import write_atomic

_DEFAULT_PORT = 8080
_STAGED = 3  #: releases laid here for a promote that are kept


@dataclass(frozen=True, slots=True)
class Front:
    """What a site keeps for ever, and the port of the application in each slot."""

    service: str
    instance: str
    probe_token: str
    bypass_token: str
    blue_port: int = _DEFAULT_PORT
    green_port: int = _DEFAULT_PORT

    def with_port(self, slot: str, port: int) -> Front:
        """Return it with another port in one slot."""
        return replace(self, blue_port=port) if slot == "blue" else replace(self, green_port=port)

    def site(self, policy: ServicePolicy, network: SlotNetwork) -> Site:
        """Return what the proxy must know."""
        return Site(
            service=self.service,
            instance=self.instance,
            server_name=policy.host_name(self.instance),
            listen=policy.listen,
            blue=f"{network.blue}:{self.blue_port}",
            green=f"{network.green}:{self.green_port}",
            probe_token=self.probe_token,
            bypass_token=self.bypass_token,
            certificate=policy.certificate,
            certificate_key=policy.certificate_key,
            only_by_name=policy.most is not None,
        )


@dataclass(frozen=True, slots=True)
class Served:
    """A release that served here, with everything needed to make it serve again without asking anybody."""

    deployment: str
    environment: str
    origin: str
    repository: str
    image_id: str
    digest: str | None
    container: Container
    since: int  #: UTC microseconds
    action: str = "deploy"  #: how it came to serve: "deploy", "rollback" or "adopt"
    container_id: str = ""  #: of the engine

    @property
    def identity(self) -> str:
        """The digest of a registry release, else the image id."""
        return self.digest or self.image_id

    @classmethod
    def of(cls, deployment: Deployment, image_id: str, since: int, container_id: str) -> Served:
        """Remember a deployment that serves; `image_id` is what this engine calls the image."""
        return cls(
            deployment=deployment.id,
            environment=deployment.environment,
            origin=deployment.origin,
            repository=deployment.repository,
            image_id=image_id,
            digest=deployment.digest,
            container=deployment.container,
            since=since,
            action=deployment.action,
            container_id=container_id,
        )

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Served:
        """Read it back from plain data."""
        return cls(**{**data, "container": deploys.from_json(data["container"])})


@dataclass(frozen=True, slots=True)
class History:
    """The serving release and slot, the releases before it (newest first), and the hot one that waits to be stopped."""

    current: Served | None = None
    slot: str | None = None
    previous: tuple[Served, ...] = ()
    retired: str | None = None  #: container kept running for a rollback
    retired_until: int = 0  #: UTC microseconds
    retired_grace: float = 30.0
    requests: int = 0  #: of visitors to the serving release while it was watched
    errors: int = 0  #: those of them that failed

    def after(self, served: Served, slot: str, keep: int) -> History:
        """Return the history once `served` serves in `slot`; at most `keep` releases are remembered."""
        before = (self.current, *self.previous) if self.current else self.previous
        others = tuple(one for one in before if (one.identity, one.container) != (served.identity, served.container))
        return History(current=served, slot=slot, previous=others[: max(keep - 1, 1)])

    @property
    def identities(self) -> frozenset[str]:
        """The identities whose images must stay."""
        return frozenset(one.identity for one in (self.current, *self.previous) if one)


@dataclass(slots=True)
class Instance:
    """The directory of one instance."""

    root: Path
    service: str
    instance: str
    _lock: int | None = field(default=None, repr=False)

    @property
    def place(self) -> Path:
        """Its directory, made when missing."""
        path = self.root / names.prefix(self.service, self.instance)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def front(self) -> Front:
        """Return the site's tokens and ports, made on first use."""
        path = self.place / "front.json"
        try:
            return Front(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            front = Front(self.service, self.instance, secrets.token_hex(16), secrets.token_hex(16))
            self.save_front(front)
            return front

    @property
    def known(self) -> bool:
        """Whether it was ever begun here, and not removed since."""
        return (self.root / names.prefix(self.service, self.instance) / "front.json").exists()

    def forget(self) -> None:
        """Remember nothing of it any more; the lock goes with `release`."""
        (self.place / "front.json").unlink(missing_ok=True)
        for path in self.place.iterdir():
            if path.name != "lock":
                path.unlink()

    def save_front(self, front: Front) -> None:
        """Remember tokens and ports."""
        write_atomic(self.place / "front.json", json.dumps(asdict(front), indent=1).encode(), 0o600)

    def history(self) -> History:
        """Return what serves and what served before, as far as it is remembered."""
        try:
            data = json.loads((self.place / "served.json").read_bytes())
        except FileNotFoundError:
            return History()
        current = Served.from_json(data["current"]) if data["current"] else None
        previous = tuple(Served.from_json(one) for one in data["previous"])
        return History(**{**data, "current": current, "previous": previous})

    def save_history(self, history: History) -> None:
        """Remember what serves and what served before."""
        write_atomic(self.place / "served.json", json.dumps(asdict(history), indent=1).encode(), 0o600)

    def staged(self) -> tuple[str, ...]:
        """Return the identities laid here for a promote, newest first; their images stay as well."""
        try:
            return tuple(json.loads((self.place / "staged.json").read_bytes()))
        except FileNotFoundError:
            return ()

    def save_staged(self, identity: str) -> None:
        """Remember one more; the oldest beyond the last few is let go of."""
        kept = (identity, *(one for one in self.staged() if one != identity))[:_STAGED]
        write_atomic(self.place / "staged.json", json.dumps(kept).encode(), 0o600)

    def claim(self, patience: float = 0.0) -> Self:
        """Hold the instance until `release` or the end of this process.

        Waits up to `patience` seconds for whoever holds it; then raises Refused `instance-busy`.
        """
        deadline = time.monotonic() + patience
        while (held := _taken(self.place / "lock")) is None:
            if time.monotonic() >= deadline:
                raise Refused(
                    f"{self.service}/{self.instance}: a deployment is under way on this host; wait for its end",
                    code="instance-busy",
                )
            time.sleep(0.01)
        self._lock = held
        return self

    def release(self) -> None:
        """Let the next deployment come; of an instance of which nothing is remembered, nothing is left."""
        if self._lock is not None:
            if [path.name for path in self.place.iterdir()] == ["lock"]:
                (self.place / "lock").unlink()
                with contextlib.suppress(OSError):  # somebody who waited has made it anew
                    self.place.rmdir()
            os.close(self._lock)
            self._lock = None


def _taken(path: Path) -> int | None:
    """Lock a file and return its descriptor; None when somebody holds it, or it was removed by who held it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    os.close(descriptor)
    return None


def known_instances(root: Path) -> Iterator[Instance]:
    """Return every instance this host has ever had a front for."""
    for path in sorted(root.glob("*/front.json")):
        data = json.loads(path.read_bytes())
        yield Instance(root, data["service"], data["instance"])
