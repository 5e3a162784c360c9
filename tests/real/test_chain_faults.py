"""The whole chain when its parts are killed or away: a defined state with a reason, and the next push works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
import yaml

from tests.real.demo.doors import Door
from tests.real.demo.repository import replacing
from tests.real.demo.story import Live, Released, Story
from tests.real.demo.world import World

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("released")]


@pytest.fixture(scope="module")
def candidate(story: Story, released: Released) -> Live:
    """A release that serves in test and not yet in production."""
    candidate = story.tested()
    assert candidate.sha != released.production.sha
    return candidate


@pytest.fixture
def agent_is_mended(world: World) -> Iterator[None]:
    """Whatever a test does to the production agent, it runs as usual afterwards."""
    yield
    world.production.kill()
    world.production.start()


def test_a_master_killed_during_a_build_knows_afterwards_how_it_ended(world: World, story: Story) -> None:
    go = world.directory / "go"
    waits = f'run: "until [ -e {go} ]; do sleep 0.05; done"\n      - run: scripts/build-image.sh dev'
    sha = world.repository.edit(
        "dev", {".keepflow.yml": replacing("run: scripts/build-image.sh dev", waits)}, "Build slowly"
    )
    world.repository.push("dev")
    number = world.master.run_of(sha)["number"]
    world.master.becomes(number, lambda run: run["jobs"][0]["attempts"][0]["steps"], 15, "its first step under way")
    world.master.kill()
    world.master.start()
    go.touch()
    run = world.master.ended(number)
    world.repository.drop_last("dev")
    if run["state"] == "succeeded":
        log = world.master.log_of(number)
        assert log.count("\nbuilt ") == 1, log
    else:
        assert run["state"] in ("failed", "lost")
        assert run["reason_code"]
        assert run["reason"]
    live = story.push("dev", "dev")
    assert world.master.ended(live.run)["state"] == "succeeded"


@pytest.mark.parametrize("failpoint", ["deploy.gating", "switch.before"])
@pytest.mark.usefixtures("agent_is_mended")
def test_an_agent_killed_before_the_switch_leaves_the_old_one_serving_and_says_so(
    world: World, candidate: Live, failpoint: str
) -> None:
    before = world.doors["production"].version()
    world.production.stop()
    world.production.start(failpoints=f"{failpoint}=kill")
    pressed = world.promote(candidate.run)
    assert pressed.returncode == 0, pressed.stderr
    assert world.production.ends(30) == -SIGKILL
    assert world.doors["production"].version() == before
    world.production.start()
    run = world.master.ended(world.master.api.get(f"/deployments/{pressed.stdout.strip()}")["run"])
    deployment = world.master.deployment(run["number"])
    assert (run["state"], deployment["phase"], deployment["reason_code"]) == ("failed", "failed", "agent-restarted")
    assert "before the switch" in deployment["reason"]
    assert world.doors["production"].version() == before


def test_what_failed_with_the_agent_is_promoted_by_pressing_again(world: World, story: Story, candidate: Live) -> None:
    again = story.promote(candidate)
    assert world.master.ended(again.run)["state"] == "succeeded"


def test_a_deployment_waits_for_an_agent_that_is_away_and_is_done_when_it_is_back(world: World) -> None:
    door = allow_staging(world)
    elsewhere = replacing("push: [master, main]", "push: staging", "deploy: test", "deploy: staging")
    world.repository.edit("staging", {".keepflow.yml": elsewhere}, "Deploy to staging")
    marker, sha = world.repository.change("staging")
    world.production.stop()
    try:
        world.repository.push("staging")
        number = world.master.run_of(sha)["number"]
        waiting = world.master.becomes(number, lambda run: run["state"] == "waiting", 30, "waiting for the agent")
        assert "agent prod-1 is not connected" in waiting["reason"] + waiting["jobs"][-1]["reason"]
        assert "agent prod-1 is not connected" in world.keepflow("why", str(number))
    finally:
        world.production.start()
    assert world.master.ended(number)["state"] == "succeeded"
    door.shows(marker, 5)


def allow_staging(world: World) -> Door:
    """Add an environment on the production host that pushes reach; the host's own file allows it, too."""
    add(
        world.directory / "home" / "keepflow.yml",
        ("environments", "keepwork/staging"),
        {"agent": "prod-1", "service": "staging", "branches": ["staging"]},
    )
    world.keepflow("apply", "--file", str(world.directory / "home" / "keepflow.yml"), "--yes")
    on_the_host = world.host.path("/etc/keepflow/agent.yml")
    service = yaml.safe_load(on_the_host.read_text())["services"]["keepwork"]
    del service["receipts"]  # it is pushed to, not promoted to
    staging = {**service, "environment": "keepwork/staging", "front": {"server_name": "localhost", "listen": "8080"}}
    add(on_the_host, ("services", "staging"), staging)
    return Door(f"http://{world.host.address}:8080", "localhost")


def add(path: Path, place: tuple[str, str], told: dict[str, Any]) -> None:
    """Add an entry to a mapping of a YAML file."""
    data = yaml.safe_load(path.read_text())
    data[place[0]][place[1]] = told
    path.write_text(yaml.safe_dump(data, sort_keys=False))
