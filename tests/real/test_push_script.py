"""push-image.sh: what is pushed is what was built, with the login that was lent, and an error is an error."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import pytest

from tests.real.engines import Engine
from tests.real.hosts import free_port, wait_until
from tests.real.parts import find, need
from tests.real.scripted import Checkout, get

pytestmark = pytest.mark.real

MANIFESTS = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry on loopback that wants a login."""

    address: str
    authorization: str

    def login(self, directory: Path) -> str:
        """Write a DOCKER_CONFIG directory with the login and return it."""
        directory.mkdir()
        auths = {self.address: {"auth": self.authorization.removeprefix("Basic ")}}
        (directory / "config.json").write_text(json.dumps({"auths": auths}))
        return str(directory)

    def digest(self, name: str, tag: str) -> str:
        """Return the digest the registry has for a tag."""
        url = f"http://{self.address}/v2/{name}/manifests/{tag}"
        return get(url, Accept=MANIFESTS, Authorization=self.authorization).headers["docker-content-digest"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with one user; an engine needs no certificate for loopback."""
    need("docker-registry")
    home = tmp_path_factory.mktemp("registry")
    port = free_port()
    hashed = bcrypt.hashpw(b"lent", bcrypt.gensalt(rounds=4)).decode()
    (home / "users").write_text(f"push:{hashed}\n")
    (home / "registry.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {home}/data}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\nauth: {{htpasswd: {{realm: keepflow, path: {home}/users}}}}\n"
    )
    authorization = "Basic " + base64.b64encode(b"push:lent").decode()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(find("docker-registry")), "serve", str(home / "registry.yml")], stdout=log, stderr=log
        )
    try:
        url = f"http://127.0.0.1:{port}/v2/"
        wait_until(lambda: get(url, Authorization=authorization).status == 200, 10, "the registry answering")
        yield Registry(f"127.0.0.1:{port}", authorization)
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture(scope="module")
def checkout(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout with one image built for test."""
    made = Checkout.make(tmp_path_factory.mktemp("push") / "checkout", engine)
    made.build("test", 5)
    yield made
    made.clean()


@pytest.fixture(autouse=True)
def nothing_told(checkout: Checkout) -> None:
    """Start every test with an empty $KEEPFLOW_OUTPUT."""
    checkout.output.unlink(missing_ok=True)


def test_what_was_built_is_pushed_and_its_digest_is_the_registrys(
    checkout: Checkout, registry: Registry, tmp_path: Path
) -> None:
    config = registry.login(tmp_path / "config")
    done = checkout.run("push-image.sh", "test", number=5, KEEPFLOW_REGISTRY=registry.address, DOCKER_CONFIG=config)
    assert done.returncode == 0, done.stdout + done.stderr
    pushed = f"{registry.address}/{checkout.name}:b5"
    assert checkout.told == [f"pushed={pushed}"]
    assert done.stdout.splitlines()[-1] == f"pushed {pushed}@{registry.digest(checkout.name, 'b5')}"
    ids = [
        checkout.engine.docker("image", "inspect", "--format", "{{.Id}}", image)
        for image in (pushed, f"{checkout.name}/test:b5")
    ]
    assert ids[0] == ids[1], "nothing was rebuilt"


def test_without_the_lent_login_nothing_is_pushed(checkout: Checkout, registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = checkout.run(
        "push-image.sh", "test", number=5, KEEPFLOW_REGISTRY=registry.address, DOCKER_CONFIG=str(tmp_path / "empty")
    )
    assert done.returncode == 1
    assert "the push of" in done.stderr
    assert checkout.told == []


def test_a_registry_that_is_down_is_an_error(checkout: Checkout) -> None:
    address = f"127.0.0.1:{free_port()}"
    done = checkout.run("push-image.sh", "test", number=5, KEEPFLOW_REGISTRY=address)
    assert done.returncode == 1
    assert checkout.told == []


def test_an_image_that_was_never_built_is_named(checkout: Checkout, registry: Registry) -> None:
    done = checkout.run("push-image.sh", "test", number=404, KEEPFLOW_REGISTRY=registry.address)
    assert done.returncode == 3
    assert f"no image {checkout.name}/test:b404" in done.stderr


@pytest.mark.parametrize("address", ["", "--help", "a b", "$(id)", "host/path"])
def test_an_address_that_is_none_is_refused(checkout: Checkout, address: str) -> None:
    done = checkout.run("push-image.sh", "test", number=5, KEEPFLOW_REGISTRY=address)
    assert done.returncode == 2
    assert "KEEPFLOW_REGISTRY" in done.stderr
