"""The agent killed at every failpoint of a deployment: one container serves, visitors never notice, the word is right.

One host lives through all cases, with visitors all the time; each case deploys another release and is killed once.
With --long each case is done twenty times, and the process that takes it up is killed as well, at a place drawn by lot.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from keepflow.agent.deployment import Deployment
from keepflow.core.flows import Health, Strategy
from keepflow.core.states import Phase
from tests.faults.points import points
from tests.faults.visitors import Saw, Visitors
from tests.real.deploying import Host
from tests.real.engines import Engine
from tests.real.waiting import wait_until

pytestmark = pytest.mark.real

KILLED = -9
QUICK = Health(within=8.0, successes=1, timeout=2.0)
PAGE = ("GET", "status 503"), ("POST", "status 503")  #: the maintenance page
#: A POST that was inside a container when it died, before or after it had begun to answer: nobody may send it again.
IN_THE_DYING = ("POST", "status 502"), ("POST", "connection closed without an answer")
RELOADED = tuple(  #: an nginx below 1.27.4 closes idle connections at a reload, and a request may meet the close
    (method, error)
    for method in ("GET", "POST")
    for error in ("connection closed without an answer", "connection reset by peer")
)


@dataclass(frozen=True, slots=True)
class Story:
    """A kind of deployment, and which failures of visitors it may cause."""

    container: dict[str, Any] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)
    declared: tuple[tuple[str, str], ...] = ()
    crowded: bool = False  #: the idle slot still runs the release before
    action: str = "deploy"
    adopts: bool = False  #: somebody sent visitors back by hand, and that is to be what serves


STORIES = {
    "overlap": Story(),
    "stop-first": Story({"strategy": Strategy.STOP_FIRST}, declared=PAGE),
    "dies when visitors come": Story({"env": {"MODE": "late-death"}}, {"watch": 3.0}, IN_THE_DYING),
    "ends": Story({"env": {"MODE": "exit"}}),
    "stop-first that ends": Story({"strategy": Strategy.STOP_FIRST, "env": {"MODE": "exit"}}, declared=PAGE),
    "into a slot that is still hot": Story(crowded=True),
    "adopted": Story(adopts=True),
    "rehearsed": Story(action="rehearse"),
    "with a release command": Story({"release_command": ("python3", "--version")}),
    "with a canary": Story({"canary": (50,), "canary_hold": 1}),
    "with another port": Story({"port": 9000, "env": {"PORT": "9000"}}, declared=RELOADED),
}


def _around(*acts: str) -> tuple[str, ...]:
    return tuple(f"{act}.{when}" for act in acts for when in ("before", "after"))


#: Story → how it ends → at which failpoint the agent was killed.
CASES: dict[str, dict[Phase, tuple[str, ...]]] = {
    "overlap": {
        Phase.FAILED: (
            "deploy.accepted", "deploy.preflight", "deploy.pulling", *_around("count", "keep"), "deploy.preparing",
            *_around("create"), "docker.before-create", "docker.after-create", "deploy.starting", *_around("start"),
            "docker.before-start", "docker.after-start", "deploy.gating", "deploy.switching", "switch.before",
            "flags.before-rename",
        ),
        Phase.DONE: (
            "flags.after-rename", "switch.after", "deploy.proving", "deploy.watching", "deploy.draining",
            *_around("drop-net", "stop-old"), "deploy.outcome", "deploy.told",
        ),
    },
    "stop-first": {
        Phase.FAILED: ("deploy.stopping", "pause.before"),
        Phase.REVERTED: ("pause.after", *_around("stop-first")),
    },
    "dies when visitors come": {Phase.REVERTED: _around("switch-back", "remove-new")},
    "ends": {Phase.FAILED: _around("stop-counting")},
    "stop-first that ends": {Phase.REVERTED: _around("start-old")},
    "into a slot that is still hot": {Phase.FAILED: _around("clear")},
    "adopted": {Phase.DONE: _around("adopt")},
    "rehearsed": {Phase.FAILED: _around("remove-rehearsed")},
    "with a release command": {Phase.FAILED: _around("release-command")},
    "with a canary": {Phase.FAILED: ("deploy.canary", "canary.before"), Phase.REVERTED: ("canary.after",)},
    "with another port": {Phase.FAILED: _around("reload")},
}  # fmt: skip
#: More of the same; in the long form only, for every failpoint is hit without them.
MORE: dict[str, dict[Phase, tuple[str, ...]]] = {
    "stop-first": {
        # The new container is made first, then the page goes up: that is the first change of the flags.
        Phase.FAILED: ("create.after",),
        Phase.REVERTED: ("flags.after-rename", *_around("start"), "switch.before"),
        Phase.DONE: ("switch.after", "deploy.watching", "deploy.outcome"),
    },
    "dies when visitors come": {Phase.REVERTED: ("flags.after-rename", "switch.after", "deploy.outcome")},
    "stop-first that ends": {Phase.REVERTED: ("deploy.gating", *_around("switch-back", "remove-new"))},
    "into a slot that is still hot": {Phase.FAILED: ("create.after",), Phase.DONE: ("switch.after", "stop-old.after")},
    "with another port": {Phase.FAILED: ("start.after",), Phase.DONE: ("switch.after", "stop-old.before")},
}
#: Where a process that takes a deployment up can be killed in its turn.
SECOND = (
    "deploy.proving", "deploy.draining", "deploy.outcome", "flags.after-rename",
    *_around("drop-net", "stop-old", "start-old", "switch-back", "remove-new"),
)  # fmt: skip


def test_every_failpoint_of_the_product_has_its_case() -> None:
    """A case fails when its process is not killed at its place, so what is listed is hit; others are another test's."""
    listed = {point for ends in CASES.values() for group in ends.values() for point in group}
    assert listed - points() == set(), "these are in the code no more"
    here = Path(__file__)
    tests = [path.read_text() for path in here.parent.parent.glob("**/test_*.py") if path != here]
    assert {point for point in points() - listed if not any(f'"{point}' in text for text in tests)} == set()


class Place:
    """One host with visitors, and the release that serves there."""

    def __init__(self, host: Host, visitors: Visitors) -> None:
        self.host = host
        self.visitors = visitors
        self.serving = "v1"
        self.counts: Counter[str] = Counter()

    def kill_one(self, story: Story, point: str, second: str = "") -> tuple[Phase, list[Saw]]:
        """Deploy the next release, kill that, kill its recovery, recover; return how it ended and what visitors saw."""
        host = self.host
        if story.crowded:
            assert host.deployer(hot=1.0).deploy(host.order(self.next(), health=QUICK)).outcome == Phase.DONE
            self.serving = self.next()
        by_hand = self.back_by_hand() if story.adopts else None
        self.visitors.seen()
        lost = by_hand or host.order(self.next(), action=story.action, **{"health": QUICK, **story.container})
        assert host.die(point, lost, **story.policy) == KILLED, f"{point} was not reached"
        if second:
            self.counts["second kills"] += host.die(second, None, **story.policy) == KILLED
        outcome = self.recovered(lost, story)
        if outcome == Phase.DONE and not story.adopts:
            self.serving = self.next()
        self.counts["kills"] += 1
        return outcome, self.visitors.seen()

    def back_by_hand(self) -> Deployment:
        """Deploy two releases and send visitors back to the first, as a person does; return the order to adopt that."""
        host = self.host
        for _ in range(2):
            assert host.deployer(hot=60.0).deploy(host.order(self.next(), health=QUICK)).outcome == Phase.DONE
            before, self.serving = self.serving, self.next()
        (current,) = (host.root / "sw").glob("*/cur")
        slot = "green" if (current / "blue").exists() else "blue"
        state = max(path for path in (current.parent / "states").iterdir() if path.name.endswith(f"-{slot}"))
        (current.parent / "by-hand").symlink_to(Path("states") / state.name)
        (current.parent / "by-hand").replace(current)
        self.serving = before
        host.engine.docker("stop", f"kf-{host.service}-main-{'blue' if slot == 'green' else 'green'}")
        return host.order(before, action="adopt", health=QUICK)

    def recovered(self, lost: Deployment, story: Story) -> Phase:
        """Start the agent again and return how the deployment ended; it is told once and taken up once."""
        host = self.host
        deployer = host.deployer(**story.policy)
        deployer.recover()
        found = deployer.journals.find(lost.id)
        assert found is not None
        assert found[2] is not None, "it has not ended"
        assert host.deployer().recover() == [], "a second recovery finds nothing to do"
        if story.crowded:
            wait_until(lambda: deployer.tend() == [] and len(self.running()) == 1, 20, "the end of the hot container")
        return found[2].outcome

    def next(self) -> str:
        """Return the release that is deployed next."""
        return {"v1": "v2", "v2": "v3", "v3": "v1"}[self.serving]

    def running(self) -> dict[str, str]:
        """Return what the engine says is running: slot → image."""
        label = f"label=keepflow.test={self.host.service}"
        listed = self.host.engine.docker("ps", "--no-trunc", "--filter", label, "--format", "{{.Names}} {{.Image}}")
        return {line.split()[0].rpartition("-")[2]: line.split()[1] for line in listed.splitlines()}


@pytest.fixture(scope="module")
def place(engine: Engine, releases: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A host that serves v1, with visitors."""
    host = Host.fresh(engine, releases)
    try:
        assert host.deployer().deploy(host.order("v1")).outcome == Phase.DONE
        url = f"http://127.0.0.1:{host.port}/"
        with Visitors(url, "shop.example.org", tmp_path_factory.mktemp("visitors"), clients=12, rate=120) as visitors:
            yield Place(host, visitors)
    finally:
        host.clean()


def every(cases: dict[str, dict[Phase, tuple[str, ...]]], *marks: pytest.MarkDecorator) -> list[Any]:
    """Return the parameters of all these cases."""
    return [
        pytest.param(story, end, point, id=f"{story}, {point}: {end.value}", marks=marks)
        for story, ends in cases.items() for end, group in ends.items() for point in group
    ]  # fmt: skip


@pytest.mark.parametrize(("story", "end", "point"), [*every(CASES), *every(MORE, pytest.mark.long)])
@pytest.mark.timeout(1800)
def test_f24_killed_anywhere_one_release_serves_and_the_word_is_right(
    place: Place, rounds: int, numbers: Callable[..., None], story: str, end: Phase, point: str
) -> None:
    told = STORIES[story]
    lots = random.Random(f"{story} {point}")  # noqa: S311 - draws where to kill, guards nothing
    place.counts.clear()
    requests, declared = 0, 0
    for number in range(rounds):
        outcome, seen = place.kill_one(told, point, lots.choice(SECOND) if number else "")
        failed = [one for one in seen if one.error]
        requests, declared = requests + len(seen), declared + len(failed)
        assert [one for one in failed if (one.method, one.error) not in told.declared] == []
        assert outcome == end
        assert list(place.running().values()) == [place.host.images[place.serving]]
        assert place.host.get() == (200, f"marker: {place.serving}\n")
    numbers(**place.counts, requests=requests, failed_as_declared=declared, failed_otherwise=0)


@pytest.mark.parametrize(
    ("story", "end", "point", "second"),
    [
        ("overlap", Phase.FAILED, "start.after", "remove-new.after"),
        pytest.param("overlap", Phase.DONE, "switch.after", "stop-old.before", marks=pytest.mark.long),
        ("stop-first", Phase.REVERTED, "stop-first.after", "start-old.after"),
        pytest.param(
            "dies when visitors come", Phase.REVERTED, "switch.after", "switch-back.after", marks=pytest.mark.long
        ),
    ],
)
def test_f24_killed_again_while_taking_it_up(place: Place, story: str, end: Phase, point: str, second: str) -> None:
    place.counts.clear()
    outcome, seen = place.kill_one(STORIES[story], point, second)
    assert place.counts["second kills"] == 1
    assert [one for one in seen if one.error and (one.method, one.error) not in STORIES[story].declared] == []
    assert outcome == end
    assert list(place.running().values()) == [place.host.images[place.serving]]
