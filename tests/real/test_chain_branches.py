"""The whole chain with an instance for every branch: two pushes serve side by side, and one goes with its branch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from keepflow.core import names
from tests.real.demo.doors import Door
from tests.real.demo.files import PROJECT
from tests.real.demo.world import World
from tests.real.hosts import wait_until
from tests.real.waiting import free_port

pytestmark = pytest.mark.real

BRANCHES = ("feature/cart", "feature-cart")
FLOW = """
  review:
    on: {push: "feature*/**"}
    steps:
      - run: scripts/build-image.sh dev
      - deploy: {environment: review, per_branch: true}
"""


@pytest.fixture
def port(world: World) -> Iterator[int]:
    """An environment beside the others, as both files say it; the port its visitors come in by."""
    home, port = world.directory / "home", free_port()
    server, agent = home / "keepflow.yml", home / "local-agent.yml"
    before = {path: path.read_text() for path in (server, agent)}
    service = f"{world.names.image}-rv"
    place = {"agent": "local", "service": service, "branches": ["feature*", "feature*/**"]}
    _change(server, lambda told: told["environments"].update({f"{PROJECT}/review": place}))
    _change(agent, lambda told: told["docker_for"].append(f"{PROJECT}/review"))
    host = {
        "environment": f"{PROJECT}/review",
        "images": [f"{world.names.image}/dev"],
        "front": {"server_name": "*.review.example.org", "listen": f"127.0.0.1:{port}"},
        "volumes": ["log"],
        "instances": 2,
        "watch": "1s",
        "hot": "0s",
    }
    _change(agent, lambda told: told["services"].update({service: host}))
    world.keepflow("apply", "--file", str(server), "--yes")
    yield port
    world.repository.delete([branch for branch in BRANCHES if _instance(world, branch)])
    wait_until(lambda: not any(_instance(world, branch) for branch in BRANCHES), 60, "the end of all instances")
    for path, text in before.items():
        path.write_text(text)
    world.keepflow("apply", "--file", str(server), "--yes")


def _change(path: Path, change: Any) -> None:
    told = yaml.safe_load(path.read_text())
    change(told)
    path.write_text(yaml.safe_dump(told, sort_keys=False))


def _instance(world: World, branch: str) -> dict[str, Any] | None:
    """Return the card of a branch's instance, None when the board has none."""
    wanted = f"review-{names.branch_instance(f'refs/heads/{branch}')}"
    cards: list[dict[str, Any]] = world.master.api.get(f"/projects/{PROJECT}/environments")["items"]
    return next((card for card in cards if card["name"] == wanted), None)


def _served(world: World, branch: str, port: int) -> tuple[Door, str]:
    """Push a branch that asks for an instance; return its front door and what it should show."""
    flow = FLOW.replace("feature*/**", branch)
    world.repository.edit(branch, {".keepflow.yml": lambda text: text + flow}, "Have it reviewed")
    marker, sha = world.repository.change(branch)
    world.repository.push(branch)
    ended = world.master.ended(world.master.run_of(sha)["number"])
    assert ended["state"] == "succeeded", world.master.went_wrong(sha)
    host_name = f"{names.branch_instance(f'refs/heads/{branch}')}.review.example.org"
    card = wait_until(lambda: _told(world, branch), 20, "the address on the board")
    assert card["url"] == f"http://{host_name}:{port}"
    return Door(f"http://127.0.0.1:{port}", host_name), marker


def test_r46_each_branch_serves_under_its_own_name_and_goes_with_it(world: World, port: int) -> None:
    (gone, left), (stays, marker) = (_served(world, branch, port) for branch in BRANCHES)
    assert (gone.marker(), stays.marker()) == (left, marker)
    world.repository.delete([BRANCHES[0]])
    wait_until(lambda: _instance(world, BRANCHES[0]) is None, 60, "the end of the instance")
    assert gone.get()[0] == 404
    assert stays.marker() == marker


def _told(world: World, branch: str) -> dict[str, Any] | None:
    card = _instance(world, branch)
    return card if card and card["url"] else None
