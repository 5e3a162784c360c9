"""Production on two hosts, each with its own network, engine, nginx and agent: both are switched, or none stays so."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.real.demo import files
from tests.real.demo.doors import Door
from tests.real.demo.master import end_of
from tests.real.demo.production import AGENT, Production
from tests.real.demo.repository import replacing
from tests.real.demo.story import Live, Story
from tests.real.demo.world import World
from tests.real.hosts import Load, SecondHost
from tests.real.test_chain_canary import seen_by_many, told
from tests.real.waiting import wait_until

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("released")]

SECOND = "prod-2"
#: A release that dies on a host whose own file says so, as on one whose disk or database is broken.
_DIES_THERE = "if os.environ.get('BROKEN'): raise SystemExit(7)\n"
BREAK = replacing("import os\n", f"import os\n{_DIES_THERE}")
MEND = replacing(_DIES_THERE, "")


@pytest.fixture(scope="module")
def doors(world: World) -> Iterator[dict[str, Door]]:
    """Let a second host join, make production both, and return their front doors in the order of the file."""
    file = world.directory / "home" / "keepflow.yml"
    before = file.read_text()
    with SecondHost("prod2") as host:
        second = _join(world, host)
        try:
            wanted = yaml.safe_load(before)
            production = wanted["environments"][f"{files.PROJECT}/production"]
            del production["agent"]
            production["agents"] = [AGENT, SECOND]
            file.write_text(yaml.safe_dump(wanted, sort_keys=False))
            world.keepflow("apply", "--file", str(file), "--yes")
            yield {AGENT: world.doors["production"], SECOND: second.door}
        finally:
            file.write_text(before)
            world.keepflow("apply", "--file", str(file), "--yes")
            second.stop()


def _join(world: World, host: SecondHost) -> Production:
    """Make a second production host out of a machine that reaches the master and the registry, and nobody else."""
    host.start_engine()
    routed = host.run("ip", "route", "add", f"{world.host.gateway}/32", "via", host.gateway)
    assert routed.returncode == 0, routed.stderr
    trusted = host.path("/etc/docker") / "certs.d" / world.registry["address"] / "ca.crt"
    trusted.parent.mkdir(parents=True)
    shutil.copyfile(world.registry["ca_file"], trusted)
    agent_file = host.path("/etc/keepflow/agent.yml")
    authority = Path(world.registry["ca_file"]).read_text()
    password = Path(world.registry["pull_password_file"]).read_text()
    files.write_production_agent(agent_file, world.names, host.engine.host, authority, password)
    env_file = agent_file.with_name("keepwork.env")
    env_file.touch(0o600)
    env_file.write_text("BROKEN=1\n")
    ours = yaml.safe_load(agent_file.read_text())
    ours["services"]["keepwork"]["env_file"] = "/etc/keepflow/keepwork.env"
    agent_file.write_text(yaml.safe_dump(ours, sort_keys=False))
    log = world.directory / "logs" / f"{SECOND}.log"
    second = Production(host, world.keepflow, world.master, log, SECOND)
    second.join()
    second.start()
    return second


def _promoted(world: World, candidate: Live, doors: dict[str, Door], log: Path) -> tuple[int, Any, dict[str, Any]]:
    """Promote under visitors at every front door; return exit code, the run as it ended, and what visitors met."""
    before = {run["number"] for run in world.master.runs()}
    with ExitStack() as stack:
        loads = {
            name: stack.enter_context(Load(door.url, log / name, host_header=door.name, clients=8))
            for name, door in doors.items()
        }
        pressed = world.promote(candidate.run, "-w", seconds=180)
        world.quiet(120)
        visitors = {name: load.finish() for name, load in loads.items()}
    promote = next(run for run in world.master.runs() if run["number"] not in before and run["flow"] == "promote")
    return pressed.returncode, world.master.run(promote["number"]), visitors


@pytest.fixture(scope="module")
def both(world: World, story: Story, doors: dict[str, Door]) -> Live:
    """A release that serves on both hosts: prod-2 gets its first one here."""
    candidate = story.tested()
    pressed = world.promote(candidate.run, "-w", seconds=180)
    assert pressed.returncode == 0, pressed.stderr
    for door in doors.values():
        door.shows(candidate.marker, 5)
    return candidate


@pytest.mark.usefixtures("both")
def test_a_promote_switches_one_host_after_the_other_and_no_visitor_of_either_notices(
    world: World, story: Story, doors: dict[str, Door], tmp_path: Path
) -> None:
    candidate = story.tested()
    code, run, visitors = _promoted(world, candidate, doors, tmp_path)
    assert (code, run["state"]) == (0, "succeeded"), run["reason"]
    first, second = (job["deployment"] for job in run["jobs"])
    assert (first["host"], second["host"]) == (AGENT, SECOND)
    assert first["finished_at"] <= second["accepted_at"], "the second host began after the first was done"
    for name, door in doors.items():
        assert visitors[name]["failed"] == 0, visitors[name]
        assert visitors[name]["sent"] > 0
        assert visitors[name]["marks"][-1]["mark"] == candidate.marker
        assert door.version()["commit"] == candidate.sha
    proof = world.keepflow.json("receipt", str(run["number"]))
    assert [host["phase"] for host in proof["hosts"]] == ["done", "done"]
    assert proof["sent"] == sum(host["receipt"]["probes"]["sent"] for host in proof["hosts"])
    assert proof["sent"] > 0
    assert proof["failed"] == 0
    assert world.master.environment("production")["mixed"] is False


@pytest.mark.usefixtures("both")
def test_a_canary_goes_host_by_host_and_one_called_off_on_the_second_brings_the_first_back(
    world: World, story: Story, doors: dict[str, Door]
) -> None:
    before = doors[AGENT].version()
    old = doors[AGENT].marker()
    candidate = story.tested()
    done = world.promote(candidate.run, "--canary", "50", "--hold", "10m")
    assert done.returncode == 0, done.stderr
    run = told(world, done.stdout.strip())["run"]

    _at_half(world, run, AGENT)
    seen = seen_by_many(doors[AGENT])
    assert set(seen) == {old, candidate.marker}
    assert 0.3 < seen[candidate.marker] / 120 < 0.7
    assert seen_by_many(doors[SECOND], 40) == {old: 40}, "the second host has not been asked yet"
    world.keepflow("canary", "continue", "production", "--at", "50")

    _at_half(world, run, SECOND)
    assert seen_by_many(doors[AGENT], 40) == {candidate.marker: 40}, "the first host is done"
    assert set(seen_by_many(doors[SECOND])) == {old, candidate.marker}
    world.keepflow("canary", "abort", "production")
    world.master.ended(run)
    world.quiet(120)
    first, second = (job["deployment"] for job in world.master.run(run)["jobs"])
    assert (first["phase"], second["phase"], second["reason_code"]) == ("done", "reverted", "canary-aborted")
    back = next(one for one in world.master.runs() if one["number"] > run)
    assert (back["flow"], end_of(world.master.deployment(back["number"]))) == ("rollback", "done")
    for door in doors.values():
        assert door.version() == before
        assert seen_by_many(door, 40) == {old: 40}
    assert world.master.environment("production")["mixed"] is False


def _at_half(world: World, run: int, host: str) -> None:
    """Wait until the canary of a run is at its step on a host."""

    def there() -> bool:
        found = [job["deployment"] for job in world.master.run(run)["jobs"] if job["deployment"]]
        return any(one["host"] == host and one["canary_step"] == 50 for one in found)

    wait_until(there, 60, f"the canary on {host}", every=0.1)


@pytest.mark.usefixtures("both")
def test_when_the_second_host_fails_the_first_goes_back_and_no_visitor_of_either_notices(
    world: World, story: Story, doors: dict[str, Door], tmp_path: Path
) -> None:
    before = doors[AGENT].version()
    assert doors[SECOND].version() == before
    world.repository.edit("master", {"serve.py": BREAK}, "Look for a broken host")
    try:
        candidate = story.tested()
        code, run, visitors = _promoted(world, candidate, doors, tmp_path)
    finally:
        world.repository.edit("master", {"serve.py": MEND}, "Take it back")
    assert (code, run["state"]) == (3, "failed")
    first, second = (job["deployment"] for job in run["jobs"])
    assert (end_of(first), second["phase"]) == ("done", "failed"), "what happened stays written down"
    back = next(one for one in world.master.runs() if one["number"] > run["number"])
    assert (back["flow"], back["state"]) == ("rollback", "succeeded")
    assert f"#{run['number']} failed on {SECOND}" in back["why"]
    deployment = world.master.deployment(back["number"])
    assert (deployment["host"], deployment["kind"], deployment["phase"]) == (AGENT, "rollback", "done")
    for name, door in doors.items():
        assert door.version() == before
        assert visitors[name]["failed"] == 0, visitors[name]
    old, new = visitors[AGENT]["marks"]
    assert new["mark"] == candidate.marker
    assert old["first"] < new["first"] < new["last"] < old["last"], "the first host served the old, the new, the old"
    assert len(visitors[SECOND]["marks"]) == 1, "visitors of the second host saw nothing of it"
    assert world.master.environment("production")["mixed"] is False
