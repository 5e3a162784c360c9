"""Scripts as a person runs them: in a checkout of the sample application, with nothing of keepflow around."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from tests.real.engines import Engine
from tests.real.sample import make_repository
from tests.real.waiting import wait_until


@dataclass
class Checkout:
    """A checkout of the sample application whose images and services have a name nobody else uses."""

    directory: Path
    engine: Engine
    name: str = field(default_factory=lambda: f"kfts{secrets.token_hex(4)}")

    @classmethod
    def make(cls, directory: Path, engine: Engine) -> Checkout:
        """Make a repository of the sample application for an engine."""
        make_repository(directory, app=engine.base_image("app"), compress=engine.base_image("compress"))
        return cls(directory, engine)

    @property
    def output(self) -> Path:
        """The file that stands for $KEEPFLOW_OUTPUT."""
        return self.directory.parent / "output"

    @property
    def told(self) -> list[str]:
        """What scripts wrote to $KEEPFLOW_OUTPUT so far."""
        return self.output.read_text().splitlines() if self.output.exists() else []

    def env(self, **more: str) -> dict[str, str]:
        """Return the environment a script gets: that of this process without anything of a job, and what is told."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("KEEPFLOW_", "GIT_"))}
        clean["DOCKER_HOST"] = self.engine.host
        return clean | {"KEEPFLOW_IMAGE": self.name, "KEEPFLOW_OUTPUT": str(self.output), **more}

    def run(self, script: str, *argv: str, number: int = 1, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the checkout to its end and return its outcome, good or bad."""
        return subprocess.run(
            [str(self.directory / "scripts" / script), *argv],
            env=self.env(BUILD_NUMBER=str(number), **more),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def start(self, script: str, *argv: str, number: int = 1, **more: str) -> subprocess.Popen[str]:
        """Start a script of the checkout in a process group of its own."""
        return subprocess.Popen(
            [str(self.directory / "scripts" / script), *argv],
            env=self.env(BUILD_NUMBER=str(number), **more),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def build(self, environment: str = "dev", number: int = 1) -> str:
        """Build an image of the checkout as it is and return its name."""
        done = self.run("build-image.sh", environment, number=number)
        assert done.returncode == 0, done.stderr + done.stdout
        return f"{self.name}/{environment}:b{number}"

    def images(self) -> set[str]:
        """Return every image of this checkout, named or only used while building."""
        listed = self.engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
        return {image for image in listed if self.name in image}

    def service(self, environment: str = "dev") -> str:
        """Return the name of the service that restart-server.sh runs."""
        return f"{self.name}-{environment}"

    def clean(self) -> None:
        """Remove everything the scripts made on the engine."""
        for environment in ("dev", "test"):
            self.engine.remove_labelled(f"keepflow.service={self.service(environment)}")
            Path(f"/run/lock/kf-{self.service(environment)}-main.lock").unlink(missing_ok=True)
        for volume in self.engine.docker("volume", "ls", "--quiet").split():
            if self.name in volume:
                self.engine.docker("volume", "rm", volume)
        for image in self.images():
            self.engine.attempt("rmi", image)


@dataclass(frozen=True, slots=True)
class Answered:
    """What an HTTP server said."""

    status: int
    headers: dict[str, str]
    body: bytes


def get(url: str, **headers: str) -> Answered:
    """Ask for a URL once, past every proxy of the environment; header names are written with `_` for `-`."""
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})  # noqa: S310  # tests ask only servers they started
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=5) as answer:
        return Answered(answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read())


def version_of(url: str) -> dict[str, str]:
    """Return what the sample application says it is, as soon as it answers."""
    told: dict[str, str] = json.loads(wait_until(lambda: get(f"{url}/version"), 10, f"{url} answering").body)
    return told
