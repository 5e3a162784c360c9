"""The whole chain while a deployment to production is under way and a part of it goes: it ends on the host, alone.

The agent is held at a failpoint, the part is taken away, the agent goes on. Visitors are asked on the host itself, the
engine and nginx there tell what serves; what master and API say is compared with that afterwards.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from keepflow.core import names
from tests.faults.visitors import Visitors
from tests.real.demo.files import PRODUCTION_NAME, PROJECT
from tests.real.demo.master import end_of
from tests.real.demo.story import Live, Released, Story
from tests.real.demo.world import World
from tests.real.waiting import wait_until

pytestmark = pytest.mark.real

PHASES = ["preflight", "pulling", "preparing", "starting", "gating", "switching", "proving", "watching", "draining"]
STATES = [
    pytest.param("deploy.pulling", marks=pytest.mark.long),
    "deploy.gating",
    pytest.param("deploy.watching", marks=pytest.mark.long),
]
#: Asks the front door on the host itself, which can be done while the cable is cut.
ASK = (
    "import sys, urllib.request as u\n"
    "q = u.Request('http://127.0.0.1/', headers={'Host': sys.argv[1]})\n"
    "print(u.build_opener(u.ProxyHandler({})).open(q, timeout=5).read().decode())\n"
)


@dataclass
class Chain:
    """A world in which production serves, and two tested releases to promote in turn."""

    world: World
    candidates: tuple[Live, Live]

    @property
    def next(self) -> Live:
        """The tested release that production does not serve now."""
        serving = self.world.doors["production"].marker()
        return next(one for one in self.candidates if one.marker != serving)

    def press(self, release: Live) -> int:
        """Press Promote, or Roll back where that is what it is, and return the number of its run."""
        pressed = self.world.promote(release.run)
        if pressed.returncode and pressed.stderr.rstrip().endswith("[rollback]"):
            pressed = self.world.promote(release.run, "--rollback")
        assert pressed.returncode == 0, pressed.stderr
        run: int = self.world.master.api.get(f"/deployments/{pressed.stdout.strip()}")["run"]
        return run

    def deployment(self, run: int) -> dict[str, Any]:
        """Return what the API says of the deployment of a run, once that has ended."""
        self.world.master.ended(run)
        return self.world.master.deployment(run)

    def page(self) -> str:
        """Return the page a visitor on the host gets."""
        done = self.world.host.run(sys.executable, "-c", ASK, PRODUCTION_NAME, seconds=20)
        return done.stdout if done.returncode == 0 else f"no page: {done.stderr[-300:]}"

    def shows(self, release: Live, seconds: float = 30) -> None:
        """Wait until visitors on the host see a release."""
        wait_until(lambda: f"marker: {release.marker}" in self.page(), seconds, f"{release.marker} on the host")

    def running(self) -> list[str]:
        """Return the containers that run on the host, by its engine."""
        names = self.world.host.engine.docker(
            "ps", "--filter", "label=keepflow.service=keepwork", "--format", "{{.Names}}"
        )
        return names.split()

    def ended_on_the_host(self) -> None:
        """Wait until no deployment is under way on the host, whatever the master knows; one container runs then."""
        journal = self.world.host.path("/var/lib/keepflow/agent/journal/open")
        wait_until(lambda: not list(journal.iterdir()), 60, "the end of the deployment on the host")
        assert len(self.running()) == 1

    def times_begun(self, run: int) -> tuple[int, int]:
        """Return how many journals and how many containers the host has for the deployment of a run."""
        deployment = self.world.master.deployment(run)["id"]
        journals = self.world.host.path("/var/lib/keepflow/agent/journal").glob(f"*/*@{deployment}.jsonl")
        label = f"label={names.LABEL_DEPLOYMENT}={deployment}"
        made = self.world.host.engine.docker("ps", "--all", "--quiet", "--filter", label)
        return len(list(journals)), len(made.split())

    @contextlib.contextmanager
    def held(self, point: str) -> Iterator[Held]:
        """Have the agent wait at a failpoint of its next deployment; afterwards it is an agent like any other."""
        place = self.world.directory / f"hold-{secrets.token_hex(3)}"
        place.mkdir()
        self.world.production.stop()
        self.world.production.start(failpoints=f"{point}=hold:{place}")
        try:
            yield Held(place, point)
        finally:
            (place / "go").touch()
            self.world.host.mend()


@dataclass(frozen=True, slots=True)
class Held:
    """An agent that waits at a failpoint."""

    place: Path
    point: str

    def reached(self) -> None:
        """Wait until it does."""
        wait_until((self.place / f"{self.point}.reached").exists, 30, f"the agent at {self.point}")

    def go(self) -> None:
        """Let it go on."""
        (self.place / "go").touch()


@pytest.fixture(scope="module")
def chain(world: World, story: Story, released: Released) -> Iterator[Chain]:
    """Two tested releases, one of which serves in production; nothing is laid there ahead, so that promotes pull.

    In the end the agent is as usual.
    """
    lay_ahead(world, allowed=False)
    first = released.test
    second = story.tested()
    story.promote(second)  # so that both were in production, and either can be gone to by whichever test runs alone
    world.quiet()
    yield Chain(world, (first, second))
    lay_ahead(world, allowed=True)
    world.production.stop()
    world.production.start()


def lay_ahead(world: World, *, allowed: bool) -> None:
    """Have the production host take images ahead of a promote, or refuse them."""
    path = world.host.path("/etc/keepflow/agent.yml")
    told = yaml.safe_load(path.read_text())
    told["services"][PROJECT]["prestage"] = allowed
    path.write_text(yaml.safe_dump(told, sort_keys=False))


@pytest.mark.parametrize("point", STATES)
def test_f02_the_master_killed_meanwhile_hears_of_it_when_it_is_back(
    chain: Chain, point: str, numbers: Callable[..., None]
) -> None:
    release = chain.next
    with chain.held(point) as held:
        run = chain.press(release)
        held.reached()
        chain.world.master.kill()
        held.go()
        chain.shows(release)
        chain.ended_on_the_host()
        back = time.monotonic()
        chain.world.master.start()
        deployment = chain.deployment(run)
        numbers(deployments=1, told_after_seconds=[round(time.monotonic() - back, 2)])
    assert (end_of(deployment), deployment["receipt"]["probes"]["failed"]) == ("done", 0)
    said = [phase["phase"] for phase in deployment["phases"]]
    assert [phase for phase in PHASES if phase not in said] == [], "nothing is missing from its log"
    assert chain.world.master.environment("production")["drift"] in ("", None)


@pytest.mark.parametrize("point", STATES)
def test_f09_the_cable_cut_meanwhile_the_host_goes_on_and_reports_afterwards(
    chain: Chain, point: str, numbers: Callable[..., None]
) -> None:
    release = chain.next
    with chain.held(point) as held:
        run = chain.press(release)
        held.reached()
        before = chain.world.master.becomes(run, lambda run: run["state"] == "running", 10, "running")
        chain.world.host.cut()
        held.go()
        chain.shows(release)
        chain.ended_on_the_host()
        meanwhile = chain.world.master.run(run)
        assert (before["state"], meanwhile["state"]) == ("running", "running"), "the master does not guess"
        assert chain.world.master.deployment(run)["phase"] not in ("done", "failed", "unknown")
        mended = time.monotonic()
        chain.world.host.mend()
        deployment = chain.deployment(run)
        numbers(deployments=1, told_after_seconds=[round(time.monotonic() - mended, 2)])
    assert end_of(deployment) == "done"
    assert [phase for phase in PHASES if phase not in [said["phase"] for said in deployment["phases"]]] == []
    assert chain.world.doors["production"].marker() == release.marker


# --- orders and answers that are lost ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "end"),
    [
        ("order.kept", "done"),
        ("order.accepted", "failed"),
        pytest.param("order.answered", "failed", marks=pytest.mark.long),
    ],
)
def test_f03_killed_around_its_answer_an_order_is_carried_out_once_or_not_at_all(
    chain: Chain, point: str, end: str
) -> None:
    release, agent = chain.next, chain.world.production
    before = chain.world.doors["production"].marker()
    agent.stop()
    agent.start(failpoints=f"{point}=kill")
    run = chain.press(release)
    assert agent.ends(30) == -signal.SIGKILL
    agent.start()
    deployment = chain.deployment(run)
    assert deployment["phase"] == end, deployment
    assert chain.times_begun(run) == (1, 1 if end == "done" else 0)
    assert chain.world.doors["production"].marker() == (release.marker if end == "done" else before)
    assert len(chain.running()) == 1


def test_f01_an_order_lost_on_the_way_is_sent_again_and_carried_out_once(chain: Chain) -> None:
    release, world = chain.next, chain.world
    world.host.cut()
    try:
        run = chain.press(release)
        wait_until(lambda: world.master.deployment(run)["phase"] == "offered", 15, "the order on its way")
        world.production.kill()
        assert chain.times_begun(run) == (0, 0)
    finally:
        world.host.mend()
    world.production.start()
    assert end_of(chain.deployment(run)) == "done"
    assert chain.times_begun(run) == (1, 1)


@pytest.mark.long
def test_f03_an_answer_lost_on_the_way_starts_nothing_twice(chain: Chain) -> None:
    release = chain.next
    with chain.held("order.accepted") as held:
        run = chain.press(release)
        held.reached()
        chain.world.host.cut()
        held.go()
        chain.shows(release)
        chain.ended_on_the_host()
        assert chain.world.master.deployment(run)["phase"] == "offered"
        chain.world.production.kill()
        chain.world.host.mend()
        chain.world.production.start()
        assert end_of(chain.deployment(run)) == "done"
    assert chain.times_begun(run) == (1, 1)


def test_f07_a_rollback_typed_on_the_host_and_killed_is_ended_by_the_agent_and_told(chain: Chain) -> None:
    world, newest = chain.world, max(chain.candidates, key=lambda one: one.run)
    if world.doors["production"].marker() != newest.marker:  # what was gone back to is not gone back from
        assert end_of(chain.deployment(chain.press(newest))) == "done"
    before = world.doors["production"].marker()
    killed = {**world.keepflow.env, "KEEPFLOW_FAILPOINTS": "switch.after=kill"}
    world.host.cut()
    try:
        words = (
            "agent",
            "rollback",
            "keepwork",
            "--state",
            "/var/lib/keepflow/agent",
        )  # so it is not handed to the agent
        typed = world.host.run(str(world.keepflow.program), *words, env=killed)
        assert typed.returncode == -signal.SIGKILL, typed.stderr
        chain.ended_on_the_host()
        assert f"marker: {before}" not in chain.page()
    finally:
        world.host.mend()
    after = world.doors["production"].marker()
    assert after not in ("", before)
    serves = world.doors["production"].version()["commit"]
    wait_until(lambda: heard_of(world, serves), 60, "the master hearing of it", every=0.1)


def heard_of(world: World, sha: str) -> bool:
    """Say whether the master expects a commit in production, and has seen that it serves there."""
    card = world.master.environment("production")
    return card["serving"]["sha"] == sha and not card["drift"]


# --- the registry, the engine, nginx ----------------------------------------------------------------------------------


def test_f11_without_the_registry_the_old_one_serves_on_and_a_rollback_works(chain: Chain, story: Story) -> None:
    world, fresh = chain.world, story.tested()
    before = world.doors["production"].marker()
    world.keepflow("registry", "down")
    try:
        deployment = chain.deployment(chain.press(fresh))
        assert (deployment["phase"], deployment["reason_code"]) == ("failed", "pull-failed"), deployment
        assert world.doors["production"].marker() == before
        assert len(chain.running()) == 1
        back = chain.next
        deployment = chain.deployment(chain.press(back))
        assert (end_of(deployment), deployment["receipt"]["pulled"]) == ("done", False)
        assert world.doors["production"].marker() == back.marker
    finally:
        world.keepflow("registry", "up")
    assert end_of(chain.deployment(chain.press(fresh))) == "done"
    assert world.doors["production"].marker() == fresh.marker


@pytest.mark.long
@pytest.mark.timeout(600)
def test_f12_the_cable_cut_during_a_pull_fails_it_on_the_host_with_the_old_one_serving(
    chain: Chain, story: Story, numbers: Callable[..., None]
) -> None:
    fresh = story.tested()
    before = chain.world.doors["production"].marker()
    with chain.held("deploy.pulling") as held:
        run = chain.press(fresh)
        held.reached()
        chain.world.host.cut()
        held.go()
        began = time.monotonic()
        journal = chain.world.host.path("/var/lib/keepflow/agent/journal/open")
        wait_until(lambda: not list(journal.iterdir()), 400, "the end of the pull", every=0.5)
        numbers(gave_up_after_seconds=[round(time.monotonic() - began, 1)])
        assert f"marker: {before}" in chain.page()
        chain.world.host.mend()
        deployment = chain.deployment(run)
    assert deployment["phase"] == "failed"
    assert end_of(chain.deployment(chain.press(fresh))) == "done"


@pytest.mark.parametrize(
    ("point", "ends"),
    [
        ("deploy.gating", {"failed"}),
        pytest.param("deploy.watching", {"done", "reverted"}, marks=pytest.mark.long),
    ],
)
def test_f10_the_engine_restarted_meanwhile_one_release_serves_and_the_word_is_right(
    chain: Chain, point: str, ends: set[str]
) -> None:
    """A watched container that the engine restarted may count as good or as bad; what serves must be what is said."""
    release, world = chain.next, chain.world
    before = world.doors["production"].marker()
    with chain.held(point) as held:
        run = chain.press(release)
        held.reached()
        world.host.engine.stop()
        world.host.start_engine()
        held.go()
        deployment = chain.deployment(run)
    assert deployment["phase"] in ends, deployment
    assert deployment["phase"] != "failed" or "restart of the engine" in deployment["reason"], deployment
    world.doors["production"].shows(release.marker if deployment["phase"] == "done" else before, 20)
    assert len(chain.running()) == 1


def test_f27_nginx_killed_meanwhile_stands_again_before_the_deployment_ends(chain: Chain) -> None:
    release, world = chain.next, chain.world
    before = world.doors["production"].marker()
    with chain.held("deploy.gating") as held:
        run = chain.press(release)
        held.reached()
        for pid in of_nginx(world):
            os.kill(pid, signal.SIGKILL)
        assert world.doors["production"].marker() == ""
        world.doors["production"].shows(before, 30)
        held.go()
        assert end_of(chain.deployment(run)) == "done"
    assert world.doors["production"].marker() == release.marker


def of_nginx(world: World) -> list[int]:
    """Return the processes of nginx on the production host, the master first."""
    (pid_file,) = world.host.path("/var/lib/keepflow").rglob("nginx.pid")
    master = int(pid_file.read_text())
    return [master, *map(int, Path(f"/proc/{master}/task/{master}/children").read_text().split())]


# --- flags that somebody damaged --------------------------------------------------------------------------------------


def test_flags_that_somebody_removed_come_back_and_visitors_never_notice(chain: Chain, log_dir: Path) -> None:
    world = chain.world
    door = world.doors["production"]
    (current,) = world.host.path("/var/lib/keepflow/sw").glob("*/cur")
    with Visitors(door.url, door.name, log_dir, clients=10, rate=100) as visitors:
        current.unlink()
        wait_until(current.is_symlink, 30, "the flags being back")
        summary = visitors.finish()
    assert summary["failed"] == 0, summary["failures"]
    assert "the flags were gone" in world.production.log.read_text()


@pytest.mark.long
def test_flags_that_nginx_may_not_read_are_an_alarm_and_visitors_never_notice(chain: Chain, log_dir: Path) -> None:
    world = chain.world
    door = world.doors["production"]
    (current,) = world.host.path("/var/lib/keepflow/sw").glob("*/cur")
    with Visitors(door.url, door.name, log_dir, clients=10, rate=100) as visitors:
        current.parent.chmod(0o700)
        try:
            alarm = wait_until(lambda: world.master.environment("production")["drift"], 60, "the alarm", every=0.25)
        finally:
            current.parent.chmod(0o755)
        wait_until(lambda: not world.master.environment("production")["drift"], 60, "the end of the alarm", every=0.25)
        summary = visitors.finish()
    assert "cannot read the flag directory" in alarm
    assert summary["failed"] == 0, summary["failures"]
