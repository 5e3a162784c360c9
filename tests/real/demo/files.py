"""The files of a world, as its admins write them: the master's, and those of the two agents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PROJECT = "keepwork"
PRODUCTION_NAME = "keepwork.example.org"  #: what visitors of production ask for
#: Short, so that a demo is; `hot: 0s` stops the old container as soon as it is drained.
_TIMES = {"watch": "2s", "drain": "15s", "hot": "0s"}


@dataclass(frozen=True, slots=True)
class Names:
    """What is called how in one world; all of it unique, so that worlds on one engine do not meet."""

    image: str  #: the image that flows build, and the start of every name on this host's engine
    registry: str  #: host:port
    master: str  #: URL
    dev_port: int
    test_port: int

    @property
    def dev(self) -> str:
        """The service of the environment dev."""
        return f"{self.image}-dev"

    @property
    def test(self) -> str:
        """The service of the environment test."""
        return f"{self.image}-test"


def write_server(path: Path, names: Names, *, repository: Path, hook_secret: Path, registry: dict[str, str]) -> None:
    """Write keepflow.yml; `registry` is what `keepflow registry up -o json` told."""
    push = {"username": registry["push_user"], "password_file": registry["push_password_file"]}
    environments: dict[str, Any] = {
        "dev": {"agent": "local", "service": names.dev, "branches": ["dev"]},
        "test": {"agent": "local", "service": names.test, "branches": ["master", "main"], "args": ["test"]},
        "production": {"agent": "prod-1", "service": "keepwork", "args": ["prod"], "promote_from": "test"},
    }
    _write(
        path,
        {
            "url": names.master,
            "registries": {"main": {"address": names.registry, "ca_file": registry["ca_file"], "push": push}},
            "projects": {
                PROJECT: {
                    "repo": str(repository),
                    "forge": "bare",
                    "hook_secret_file": str(hook_secret),
                    "images": [names.image],
                }
            },
            "environments": {f"{PROJECT}/{name}": told for name, told in environments.items()},
        },
    )


def write_local_agent(path: Path, names: Names, engine: str) -> None:
    """Write what the agent beside the master may do: build, and deploy dev and test."""
    registry_image = f"{names.registry}/{names.image}"
    _write(
        path,
        {
            "master": names.master,
            "insecure_http": True,  # a veth pair of this machine is the whole network
            "capabilities": ["run", "deploy"],
            "jobs": 2,
            "docker": {"host": engine},
            "docker_for": [f"{PROJECT}/dev", f"{PROJECT}/test"],
            "containers": {"for": PROJECT},
            "nginx": {"mode": "own"},
            "services": {
                names.dev: _service("dev", [f"{names.image}/dev"], "localhost", f"127.0.0.1:{names.dev_port}"),
                names.test: _service("test", [registry_image], "localhost", f"127.0.0.1:{names.test_port}"),
            },
        },
    )


def write_production_agent(path: Path, names: Names, engine: str, authority: str, password: str) -> None:
    """Write agent.yml of the production host, and beside it the files it names; the login can only pull."""
    path.with_name("registry.crt").write_text(authority)
    secret = path.with_name("pull.password")
    secret.touch(0o600)
    secret.write_text(password)
    login = {"username": "pull", "password_file": "pull.password", "ca_file": "registry.crt"}
    _write(
        path,
        {
            "master": names.master,
            "insecure_http": True,  # a veth pair of this machine is the whole network
            "capabilities": ["deploy"],
            "docker": {"host": engine},
            "registries": {names.registry: login},
            "networks": "10.214.0.0/16",
            "nginx": {"mode": "own"},
            "services": {
                "keepwork": {
                    **_service("production", [f"{names.registry}/{names.image}"], PRODUCTION_NAME, "80"),
                    "receipts": "required",
                }
            },
        },
    )


def _service(environment: str, images: list[str], server_name: str, listen: str) -> dict[str, Any]:
    front = {"server_name": server_name, "listen": listen}
    return {"environment": f"{PROJECT}/{environment}", "images": images, "front": front, "volumes": ["log"], **_TIMES}


def _write(path: Path, told: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(told, sort_keys=False, width=100))
