"""Images of jobs on a real engine: only what the agent pulled or its jobs built goes, never what is needed (R77)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepflow.agent.kept_images import KeptImages
from keepflow.agent.lanes import Lanes
from keepflow.agent.storage import Storage
from keepflow.core.names import keep_tag
from keepflow.core.pruning import Rule
from keepflow.tools.engine import Engine as AgentEngine
from tests.real.engines import Engine

pytestmark = pytest.mark.real
DAY = 86400.0


class Images:
    """Images of one test, each of its own, under names nobody else has."""

    def __init__(self, engine: Engine, base: str, place: Path) -> None:
        self.engine, self._base, self._place = engine, base, place
        self.prefix = f"keepflow-test-{secrets.token_hex(4)}"

    def make(self, name: str) -> str:
        """Build an image and return its id."""
        (self._place / "Dockerfile").write_text(f"FROM {self._base}\nLABEL keepflow.test={self.prefix}-{name}\n")
        self.engine.docker("build", "--quiet", "--tag", self.named(name), str(self._place))
        return self.engine.docker("image", "inspect", "--format", "{{.Id}}", self.named(name))

    def named(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def left(self) -> set[str]:
        """Return the names that are there still."""
        listed = self.engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"{self.prefix}/*")
        return {line.removeprefix(f"{self.prefix}/") for line in listed.splitlines()}


@pytest.fixture
def images(engine: Engine, base_images: dict[str, str], tmp_path: Path) -> Iterator[Images]:
    made = Images(engine, base_images["busybox"], tmp_path)
    try:
        yield made
    finally:
        for name in made.left():
            engine.docker("image", "rm", "--force", made.named(name))


def test_r77_images_of_jobs_go_but_none_that_is_needed_or_that_somebody_else_brought(
    engine: Engine, images: Images, tmp_path: Path
) -> None:
    now = [1000 * DAY]
    kept = KeptImages(tmp_path / "record", clock=lambda: now[0])
    ours = AgentEngine(engine.host)
    storage = Storage(lambda: Rule(unused=30 * DAY), Lanes(tmp_path / "lanes"), kept, ours, lambda: now[0])
    pulled = {name: images.make(f"{name}:1") for name in ("idle", "running", "serving", "fresh", "renamed")}
    built = [images.make(f"shop:{number}") for number in (1, 2)]
    images.make("stranger:1")
    for name, image_id in pulled.items():
        kept.came(image_id, images.named(f"{name}:1"))
    for number, image_id in enumerate(built, 1):
        now[0] += 1
        kept.came(image_id, images.named(f"shop:{number}"), built=True)
    engine.docker("tag", pulled["serving"], tag := keep_tag("shop", "main", pulled["serving"]))
    engine.docker("tag", pulled["renamed"], images.named("of-a-person:1"))
    container = engine.docker("create", pulled["running"], "true")
    now[0] += 31 * DAY
    kept.used(pulled["fresh"])
    try:
        why = {kept.named(one.name).removeprefix(f"{images.prefix}/"): one.needed for one in storage.items()}
        assert why == {
            "idle:1": "",
            "running:1": "a container has it",
            "serving:1": "a service here may go back to it",
            "fresh:1": "a job used it just now",
            "renamed:1": "",
            "shop:1": "",
            "shop:2": "the newest that was built of its name",
        }
        everything = images.left()
        gone = {kept.named(one.name) for one in storage.over()}
        assert gone == {images.named(name) for name in ("idle:1", "renamed:1", "shop:1")}
        assert images.left() == everything, "a look removes nothing"
        assert len(storage.prune()) == 2, "one has another name, and so it stays"
        assert images.left() == {"running:1", "serving:1", "fresh:1", "shop:2", "stranger:1", "of-a-person:1"}
    finally:
        engine.docker("rm", container)
        engine.docker("image", "rm", tag)


def test_a_container_that_came_meanwhile_keeps_its_image(engine: Engine, images: Images, tmp_path: Path) -> None:
    kept, ours = KeptImages(tmp_path / "record"), AgentEngine(engine.host)
    image_id = images.make("late:1")
    kept.came(image_id, images.named("late:1"))
    container = engine.docker("create", image_id, "true")
    try:
        assert not kept.remove(ours, image_id)
        assert engine.docker("inspect", "--format", "{{.Image}}", container) == image_id
        assert ours.image_id(image_id) == image_id
    finally:
        engine.docker("rm", container)
