"""A master put back to an old backup, with real agents that have gone on: it learns from them and delivers again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.demo.story import Live, Story
from tests.real.demo.world import World

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("released")]

#: What a backup holds; all else of the home (the registry, files people wrote) stays where it is.
OF_THE_MASTER = ("keepflow.db", "keepflow.db-wal", "keepflow.db-shm", "logs", "mirrors", "master.key", "order.key")


@pytest.fixture(scope="module")
def files(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A backup of the world as it is before anything of this module, and its key."""
    directory = tmp_path_factory.mktemp("backup")
    backup, key = directory / "keepflow.tar", directory / "master.key"
    world.quiet()
    world.keepflow("backup", str(backup))
    world.keepflow("backup", "--export-key", str(key))
    return backup, key


@pytest.fixture(scope="module")
def since(story: Story, files: tuple[Path, Path]) -> Live:  # noqa: ARG001 - the backup comes first
    """What went to production after the backup was made."""
    return story.promote(story.tested())


@pytest.fixture(scope="module")
def restored(world: World, files: tuple[Path, Path], since: Live) -> Iterator[None]:  # noqa: ARG001 - nor before that
    """The same master, as the backup has it; the agents know more than it does."""
    world.quiet()
    world.master.stop()
    aside = world.directory / "lost"
    aside.mkdir()
    for name in OF_THE_MASTER:
        if (world.directory / "home" / name).exists():
            (world.directory / "home" / name).rename(aside / name)
    backup, key = files
    world.keepflow("restore", str(backup), "--key", str(key))
    world.master.start()
    world.production.wait_ready(lambda: world.master.online("prod-1"), 30)
    yield
    world.quiet()


@pytest.mark.usefixtures("restored")
def test_it_says_that_production_serves_something_it_does_not_know_of(world: World, since: Live) -> None:
    assert world.doors["production"].version()["commit"] == since.sha, "no visitor noticed anything"
    world.production.wait_ready(lambda: world.master.environment("production")["drift"], 30)
    drift = world.master.environment("production")["drift"]
    assert " serves; " in drift


@pytest.mark.usefixtures("restored")
def test_what_was_pushed_since_is_found_and_built_by_itself(world: World, since: Live) -> None:
    run = world.master.run_of(since.sha, 60)
    assert run["number"] > since.run
    assert world.master.ended(run["number"])["state"] == "succeeded"


@pytest.mark.usefixtures("restored")
def test_it_delivers_again_and_no_agent_takes_its_numbers_for_old_ones(world: World, story: Story, since: Live) -> None:
    newest = story.tested()
    assert newest.run > since.run + 900, "run numbers that may have been given out are skipped"
    live = story.promote(newest)
    assert world.master.ended(live.run)["state"] == "succeeded"
    assert world.doors["production"].version()["commit"] == newest.sha
    production = world.master.environment("production")
    assert (production["drift"], production["serving"]["sha"]) == (None, newest.sha)
