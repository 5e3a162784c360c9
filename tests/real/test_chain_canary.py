"""A canary over the whole chain: asked for at the master, gone through on another host, steered from far away."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest

from keepflow.crypto import dsse
from keepflow.crypto.keys import PublicKey
from keepflow.tools.http_get import get
from keepflow.wire.deployment_receipt import PAYLOAD_TYPE
from tests.real.demo.doors import Door
from tests.real.demo.story import Released, Story
from tests.real.demo.world import World
from tests.real.load import MARK
from tests.real.waiting import wait_until

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("released")]


def seen_by_many(door: Door, number: int = 120) -> dict[str, int]:
    """Return which markers so many different visitors see, and how often."""
    place = urlsplit(door.url)
    counts: dict[str, int] = {}
    for visitor in range(number):
        headers = {"Host": door.name, "User-Agent": f"visitor {visitor}"}
        body = get(place.hostname or "", place.port or 80, "/", headers, timeout=10).body.decode()
        found = re.search(MARK, body)
        assert found is not None
        counts[found[1]] = counts.get(found[1], 0) + 1
    return counts


def pressed(world: World, run: int) -> str:
    """Promote with a canary of 50 % that is held for ten minutes, and return the deployment once it is at that step."""
    done = world.promote(run, "--canary", "50", "--hold", "10m")
    assert done.returncode == 0, done.stderr
    deployment = done.stdout.strip()
    wait_until(lambda: told(world, deployment)["canary_step"] == 50, 60, "the canary", every=0.1)
    return deployment


def told(world: World, deployment: str) -> dict[str, Any]:
    """Return what the master knows about a deployment."""
    found: dict[str, Any] = world.master.api.get(f"/deployments/{deployment}")
    return found


def test_a_canary_is_held_called_off_then_tried_again_and_let_go_on(
    world: World, story: Story, released: Released
) -> None:
    assert released.production
    door = world.doors["production"]
    before = door.marker()
    tested = story.tested()
    world.keepflow("tested", "--in", "test", "--note", "looked at every page")

    first = pressed(world, tested.run)
    seen = seen_by_many(door)
    assert set(seen) == {before, tested.marker}
    assert 0.3 < seen[tested.marker] / 120 < 0.7
    world.keepflow("canary", "hold", "production", "--at", "50")
    held = "50 % of visitors held by"
    wait_until(lambda: any(held in one["detail"] for one in told(world, first)["phases"]), 30, "the hold", every=0.1)
    world.keepflow("canary", "abort", "production")
    world.master.ended(told(world, first)["run"])
    ended = told(world, first)
    assert (ended["phase"], ended["reason_code"], ended["canary_step"]) == ("reverted", "canary-aborted", None)
    assert seen_by_many(door, 40) == {before: 40}
    refused = world.keepflow.attempt("canary", "abort", "production")
    assert (refused.returncode, "[no-canary]" in refused.stderr) == (7, True)
    assert json.loads(world.keepflow("quarantine", "ls", "production", "-o", "json"))["items"] == []

    second = pressed(world, tested.run)
    world.keepflow("canary", "continue", "production")
    world.master.ended(told(world, second)["run"])
    assert told(world, second)["phase"] == "done"
    assert seen_by_many(door, 40) == {tested.marker: 40}

    receipt = world.master.api.get(f"/deployments/{second}/receipt")
    assert (receipt["verdict"], receipt["agent"]) == ("good", "prod-1")
    said = json.loads(dsse.open_(receipt["envelope"], PAYLOAD_TYPE, PublicKey.parse(receipt["public_key"])))
    assert [step["percent"] for step in said["evidence"]["canary"]] == [50]
    assert said["evidence"]["probes"]["failed"] == 0
    assert said["serving"] == said["identity"]
