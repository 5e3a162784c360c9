"""Real parts as fixtures: the engine of this host, base images on it, and second hosts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.demo.story import Released, Story
from tests.real.demo.telling import Teller
from tests.real.demo.world import World
from tests.real.deploying import build_images, image_tag
from tests.real.engines import SYSTEM_SOCKET, answers
from tests.real.hosts import Engine, SecondHost, sweep
from tests.real.images import KINDS
from tests.real.leftovers import STATE
from tests.real.parts import need, need_root


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """This host's engine, started when none is running. Remove what you make on it, by name or label."""
    need("docker")
    if not answers(SYSTEM_SOCKET):
        need("dockerd", "iptables")
        need_root()
    with Engine.primary(STATE / "primary") as primary:
        yield primary


@pytest.fixture(scope="session")
def base_images(engine: Engine) -> dict[str, str]:
    """The names of the base images on this host's engine: `busybox`, `app` and `compress`."""
    return {kind: engine.base_image(kind) for kind in KINDS}


@pytest.fixture(scope="session")
def releases(engine: Engine, base_images: dict[str, str]) -> Iterator[dict[str, str]]:
    """Three releases of the test application: image id by version."""
    yield build_images(engine, base_images["app"])
    for version in ("v1", "v2", "v3"):
        engine.docker("image", "rm", "--force", image_tag(version))


@pytest.fixture(scope="session")
def second_host() -> Iterator[SecondHost]:
    """A second host with its own running engine and no way in, shared by the session."""
    need("dockerd", "docker", "iptables", "ip", "ss", "nsenter", "unshare")
    need_root()
    sweep()
    with SecondHost() as host:
        host.start_engine()
        yield host


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    """A directory for the output of processes a test starts."""
    place = tmp_path / "logs"
    place.mkdir()
    return place


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """The whole chain, built once for the session; whoever breaks something in it mends it again."""
    need("docker", "dockerd", "docker-registry", "nginx", "iptables", "ip", "ss", "nsenter", "unshare", "git")
    need_root()
    with World() as made:
        yield made


@pytest.fixture(scope="session")
def story(world: World) -> Story:
    """What people do in that world."""
    return Story(world, Teller())


@pytest.fixture(scope="session")
def released(story: Story) -> Released:
    """Something serves in dev, in test and in production."""
    return story.release()
