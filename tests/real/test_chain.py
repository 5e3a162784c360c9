"""Stories of the whole chain, on real parts: what a person does, what visitors see, what keepflow says about it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import CANARY, NAMES
from tests.real.demo.files import PROJECT
from tests.real.demo.hostility import push_hostile
from tests.real.demo.master import end_of
from tests.real.demo.repository import Edit, replacing
from tests.real.demo.story import Released, Story
from tests.real.demo.world import World
from tests.real.hosts import Load, wait_until

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("released")]

ENDS_AT_ONCE = replacing("import asyncio\n", "print('cannot open the database')\nraise SystemExit(7)\nimport asyncio\n")
NEVER_WELL = replacing('return 200, "text/plain", b"ok\\n", False', 'return 500, "text/plain", b"not ok\\n", False')
IMPATIENT = replacing("within: 60s", "within: 1s")


@pytest.fixture
def bad_push(world: World) -> Any:
    """Push a commit to dev that will not go live, return how its run ended, and mend the branch here afterwards."""

    def push(edits: dict[str, Edit]) -> dict[str, Any]:
        sha = world.repository.edit("dev", edits, "Break it")
        try:
            world.repository.push("dev")
            return world.master.ended(world.master.run_of(sha)["number"])
        finally:
            world.repository.drop_last("dev")

    return push


def test_what_was_pushed_and_promoted_serves(world: World, story: Story) -> None:
    released = story.release()
    served = {name: world.doors[name].version()["commit"] for name in world.doors}
    assert served == {"dev": released.dev.sha, "test": released.test.sha, "production": released.test.sha}


def test_the_doctor_finds_the_production_host_well(world: World) -> None:
    """Run on the host itself, while it serves: every subject is looked at, and only the plain link is a warning."""
    argv = (str(world.keepflow.program), "agent", "doctor", "--json")
    examined = world.host.run(*argv, seconds=120, env=world.keepflow.env)
    found = json.loads(examined.stdout)["findings"]
    assert [one for one in found if one["state"] == "failed"] == []
    assert examined.returncode == 0
    assert [one["subject"] for one in found if one["state"] == "warning"] == ["agent file"]
    told = "\n".join(one["sentence"] for one in found)
    for words in (
        "Docker ",
        "obeys both flags",
        "80 is held by keepflow's own nginx",
        f"{world.registry['address']} lets user 'pull' read",
        f"{world.registry['address']} lets the engine log in",
        "holds the key this agent pinned",
        "runs, and is linked",
        "the pool 10.214.0.0/16 is free; 1 of its parts are allotted",
    ):
        assert words in told
    assert world.doors["production"].version()


def test_whoever_pushes_is_told_where_the_decision_can_be_read(world: World) -> None:
    marker, sha = world.repository.change("dev")
    told = re.search(rf"{world.names.master}(/projects/\S+/deliveries/[0-9]+)", world.repository.push("dev"))
    assert told is not None
    delivery = wait_until(lambda: handled(world, told[1]), 15, "the decision")
    assert delivery is not None
    run = world.master.run_of(sha)
    assert delivery["event"]["sha"] == sha
    assert [(one["flow"], one["run"]) for one in delivery["decision"]["runs"]] == [("dev", run["number"])]
    world.doors["dev"].shows(marker, 30)
    assert world.master.ended(run["number"])["state"] == "succeeded"


def handled(world: World, path: str) -> dict[str, Any] | None:
    """Return a delivery once intake has decided about it."""
    delivery = world.master.api.get(path)
    return delivery if delivery["handled"] else None


@pytest.mark.parametrize(
    ("edits", "code", "words", "last_line"),
    [
        ({"serve.py": ENDS_AT_ONCE}, "exited", "exit code 7", "cannot open the database"),
        ({"serve.py": NEVER_WELL, ".keepflow.yml": IMPATIENT}, "unhealthy", "within 1 s", ""),
    ],
)
def test_a_new_container_that_does_not_serve_never_gets_a_visitor(
    world: World, bad_push: Any, tmp_path: Path,
    edits: dict[str, Edit], code: str, words: str, last_line: str,
) -> None:  # fmt: skip
    door = world.doors["dev"]
    before = door.version()
    with Load(door.url, tmp_path, host_header=door.name) as load:
        run = bad_push(edits)
        visitors = load.finish()
    assert (visitors["failed"], len(visitors["marks"])) == (0, 1), visitors
    assert door.version() == before
    deployment = world.master.deployment(run["number"])
    assert (run["state"], deployment["phase"], deployment["reason_code"]) == ("failed", "failed", code)
    assert words in deployment["reason"]
    assert words in run["reason"] or run["reason"]
    assert last_line in deployment["log_tail"]


def test_a_commit_without_a_flow_file_is_a_failed_run_that_says_so(world: World, bad_push: Any) -> None:
    run = bad_push({".keepflow.yml": None})
    assert (run["state"], run["reason_code"]) == ("failed", "no-flow-file")
    assert "there is no .keepflow.yml at commit" in run["reason"]
    assert "keepflow init" in world.keepflow("why", str(run["number"]))
    assert "there is no .keepflow.yml" in world.keepflow("logs", str(run["number"]))


def test_stop_first_shows_the_maintenance_page_and_nothing_else_in_between(
    world: World, story: Story, tmp_path: Path
) -> None:
    door = world.doors["dev"]
    before = door.marker()
    world.repository.edit("dev", {".keepflow.yml": replacing("overlap", "stop-first")}, "Stop first")
    try:
        with Load(door.url, tmp_path, host_header=door.name) as load:
            live = story.push("dev", "dev")
            world.master.ended(live.run)
            visitors = load.finish()
    finally:
        world.repository.edit("dev", {".keepflow.yml": replacing("stop-first", "overlap")}, "Overlap again")
    assert set(visitors["errors"]) == {"status 503"}, visitors["errors"]
    assert [mark["mark"] for mark in visitors["marks"]] == [before, live.marker]
    deployment = world.master.deployment(live.run)
    assert end_of(deployment) == "done"
    assert deployment["receipt"]["strategy"] == "stop-first"
    assert 0 < deployment["receipt"]["maintenance"] < 10
    assert "stopping" in [phase["phase"] for phase in deployment["phases"]]


def test_hostile_branches_run_like_any_other_and_run_nothing_of_their_own(world: World, story: Story) -> None:
    Path(CANARY).unlink(missing_ok=True)
    assert push_hostile(world, NAMES) == {}
    assert not Path(CANARY).exists()
    live = story.push("dev", "dev")
    assert world.master.ended(live.run)["state"] == "succeeded"


# --- promotes --------------------------------------------------------------------------------------------------------


def test_a_release_that_was_not_pushed_is_not_promoted(world: World, released: Released) -> None:
    refused = world.promote(released.dev.run)
    assert refused.returncode == 7
    assert "was built but never pushed to a registry" in refused.stderr


def test_a_release_that_never_served_in_test_is_not_promoted(world: World) -> None:
    before = world.doors["production"].version()
    sha = world.repository.edit("master", {"serve.py": ENDS_AT_ONCE}, "Break it")
    world.repository.push("master")
    run = world.master.ended(world.master.run_of(sha)["number"])
    world.repository.drop_last("master")
    assert run["state"] == "failed"
    refused = world.promote(run["number"])
    assert refused.returncode == 7
    assert "no finished deployment in test" in refused.stderr
    assert world.doors["production"].version() == before


def test_what_was_built_before_a_new_order_key_is_promoted_after_it_and_its_evidence_fits(
    world: World, story: Story, tmp_path: Path
) -> None:
    tested = story.tested()
    rotated = world.keepflow.attempt("keys", "rotate", "--yes", "-o", "json")
    assert rotated.returncode == 0, rotated.stderr
    keys = [each["key"] for each in json.loads(rotated.stdout)["items"]]
    story.promote(tested)
    digest = next(each["identity"] for each in world.master.run(tested.run)["releases"] if each["promotable"])
    saved = tmp_path / "evidence.json"
    checked = world.keepflow.attempt("verify", digest, "--project", PROJECT, "--save", str(saved))
    assert checked.returncode == 0, checked.stderr
    assert "keepwork/production" in checked.stdout
    both = [argument for key in keys for argument in ("--key", key)]
    assert world.keepflow.attempt("verify", str(saved), *both).returncode == 0
    changed = saved.read_bytes().replace(b'"keyid":"sha256:', b'"keyid":"sha256;', 1)
    saved.write_bytes(changed)
    refused = world.keepflow.attempt("verify", str(saved))
    assert (refused.returncode, "receipt 1 does not fit" in refused.stderr) == (4, True), refused.stderr


def test_a_double_press_is_one_deployment(world: World, story: Story, numbers: Callable[..., None]) -> None:
    tested = story.tested()
    promotions = f"/projects/{PROJECT}/environments/production/promotions"
    body = {"run": tested.run, "note": "", "key": "pressed-twice-in-a-row"}
    with ThreadPoolExecutor(20) as many:
        pressed = list(many.map(lambda _: world.master.api.post(promotions, body), range(100)))
    assert {one["id"] for one in pressed} == {body["key"]}
    assert len({one["run"] for one in pressed}) == 1
    other = world.promote(tested.run)
    first = world.master.deployment(pressed[0]["run"])
    assert (other.returncode, "is not finished" in other.stderr) == (7, True), f"{end_of(first)}; {other.stderr}"
    world.doors["production"].shows(tested.marker, 30)
    assert world.master.ended(pressed[0]["run"])["state"] == "succeeded"
    newest = world.master.runs(flow="promote")[0]
    assert newest["number"] == pressed[0]["run"]
    numbers(presses=len(pressed), deployments=1)
