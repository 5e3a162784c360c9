"""`build:` and `push:` with a real engine and a real registry that wants a login."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepflow.core.bases import base_of
from keepflow.steps import build, push
from keepflow.targets.docker import Docker
from tests.real.engines import Engine
from tests.real.test_push_script import Registry, registry
from tests.steps.context import Bench

__all__ = ["registry"]  # the fixture
pytestmark = pytest.mark.real
NAME = "keepflow-test-steps"


@pytest.fixture
def bench(tmp_path: Path, engine: Engine, registry: Registry, base_images: dict[str, str]) -> Iterator[Bench]:
    """A checkout with a Dockerfile, and the login of the registry lent as the agent lends it."""
    folder = tmp_path / "job"
    folder.mkdir()
    made = Bench(
        folder,
        real=True,
        DOCKER_HOST=engine.host,
        DOCKER_CONFIG=registry.login(tmp_path / "docker"),
        KEEPFLOW_IMAGE=NAME,
        KEEPFLOW_REGISTRY=registry.address,
        BUILD_NUMBER="7",
    )
    made.lend(registry.address, NAME)
    (made.context.workspace / "Dockerfile").write_text(
        f"FROM {base_images['busybox']}\nARG NUMBER\nRUN echo $NUMBER >/number\n"
    )
    yield made
    engine.attempt("image", "rm", "--force", f"{NAME}:b7", f"{registry.address}/{NAME}:b7")


def test_what_is_built_is_what_the_registry_has_afterwards(
    bench: Bench, engine: Engine, registry: Registry, base_images: dict[str, str]
) -> None:
    assert build.perform(build.Spec(args={"NUMBER": "${BUILD_NUMBER}"}), bench.context) == 0, bench.said
    assert engine.docker("run", "--rm", f"{NAME}:b7", "cat", "/number") == "7"
    assert push.perform(push.Spec(), bench.context) == 0, bench.said
    assert bench.output.read_text() == f"image={NAME}:b7\npushed={registry.address}/{NAME}:b7\n"
    digests = json.loads(engine.docker("image", "inspect", "--format", "{{json .RepoDigests}}", f"{NAME}:b7"))
    assert f"{registry.address}/{NAME}@{registry.digest(NAME, 'b7')}" in digests
    known = Docker(engine.host).layered()
    base = base_of(next(one for one in known if f"{NAME}:b7" in one.names), known)
    assert base is not None
    assert base.image_id == engine.docker("image", "inspect", "--format", "{{.Id}}", base_images["busybox"])


def test_a_dockerfile_that_fails_fails_the_step_and_names_no_image(bench: Bench) -> None:
    (bench.context.workspace / "Dockerfile").write_text("FROM scratch\nRUN false\n")
    assert build.perform(build.Spec(), bench.context) != 0
    assert bench.output.read_text() == ""


def test_a_wrong_login_fails_the_step_and_nothing_counts_as_pushed(bench: Bench, registry: Registry) -> None:
    assert build.perform(build.Spec(), bench.context) == 0, bench.said
    wrong = base64.b64encode(b"push:wrong").decode()
    config = Path(bench.context.env["DOCKER_CONFIG"]) / "config.json"
    config.write_text(json.dumps({"auths": {registry.address: {"auth": wrong}}}))
    assert push.perform(push.Spec(), bench.context) != 0
    assert "pushed" not in bench.output.read_text()
