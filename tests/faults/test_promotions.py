"""Many releases one after the other, three in ten of them bad, under fifty visitors with kept connections.

The visitors' own log decides: no request fails but a POST that was already inside a container when that died. With
--long it is two hundred releases, fifty in each of four tests.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keepflow.agent.deployment import Deployment, Outcome
from keepflow.core.flows import Health
from keepflow.core.states import Phase
from tests.faults.visitors import Saw, Visitors
from tests.real.deploying import Host
from tests.real.engines import Engine

pytestmark = pytest.mark.real

CLIENTS, RATE = 50, 300
VERSIONS = ("v1", "v2", "v3")
BACK = 30.0  #: seconds from the first sign of a bad release until the old one serves alone again


@dataclass(frozen=True, slots=True)
class Bad:
    """A way for a release to be bad, and how its deployment must end."""

    end: Phase
    code: str
    container: dict[str, Any] = dataclasses.field(default_factory=dict)
    image: str = ""
    digest: str = ""


BAD = {
    "missing": Bad(Phase.FAILED, "image-missing", image="sha256:" + "0" * 64),
    "of another digest": Bad(Phase.FAILED, "pull-failed", digest="sha256:" + "d" * 64),
    "ends at once": Bad(Phase.FAILED, "exited", {"env": {"MODE": "exit", "VERSION": "bad"}}),
    "unhealthy": Bad(
        Phase.FAILED, "unhealthy", {"env": {"MODE": "sick", "VERSION": "bad"}, "health": Health(within=1.0)}
    ),
    "dies after the switch": Bad(
        Phase.REVERTED, "died-after-switch", {"env": {"MODE": "late-death", "VERSION": "bad"}}
    ),
}
GOOD = ""
#: How a POST fails that was inside a container when that died: before it had begun to answer, or in the middle.
BROKEN_OFF = ("status 502", "connection closed without an answer")


def a_mix(good: int, each: int, seed: int) -> list[str]:
    """Return so many good releases and so many of each bad kind, in the order that a seed draws."""
    mixed = [GOOD] * good + list(BAD) * each
    random.Random(seed).shuffle(mixed)  # noqa: S311 - draws an order of tests, guards nothing
    return mixed


class Place:
    """One host, the release that serves, and when what happened."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.serving = "v1"
        self.deaths: list[tuple[float, float]] = []  #: from when to when a release was up that died after the switch
        self.back_after: list[float] = []  #: seconds from the end of a bad container until its deployment had ended

    def release(self, kind: str) -> Outcome:
        """Deploy one and return how it ended."""
        began = time.time()
        deployer = self.host.deployer(watch=3.0 if kind == "dies after the switch" else 0.3)
        outcome = deployer.deploy(self._order(kind))
        ended = time.time()
        if outcome.outcome == Phase.REVERTED:
            self.deaths.append((began, ended))
        if outcome.code in ("exited", "died-after-switch"):
            self.back_after.append(round(ended - self._death_since(began), 2))
        return outcome

    def following(self) -> str:
        """Return the good release that comes next."""
        return VERSIONS[(VERSIONS.index(self.serving) + 1) % len(VERSIONS)]

    def _order(self, kind: str) -> Deployment:
        if kind == GOOD:
            return self.host.order(self.following())
        bad = BAD[kind]
        order = self.host.order(bad.image or self.following(), **bad.container)
        if bad.digest:
            order = dataclasses.replace(order, origin="registry", digest=bad.digest, repository="localhost:1/shop")
        return order

    def _death_since(self, moment: float) -> float:
        """Return when, by the engine's own record, the first container of this host has ended since a moment."""
        told = self.host.engine.docker(
            "events", "--since", f"{moment:.6f}", "--until", f"{time.time():.6f}", "--filter", "event=die",
            "--filter", f"label=keepflow.test={self.host.service}", "--format", "{{.TimeNano}}",
        )  # fmt: skip
        return int(told.split()[0]) / 1e9

    def is_declared(self, failure: Saw) -> bool:
        """Say whether a failure is one of those nobody can prevent: a POST inside a container that died."""
        inside = any(began <= failure.at <= ended for began, ended in self.deaths)
        return inside and failure.method == "POST" and failure.error in BROKEN_OFF


@pytest.fixture
def place(engine: Engine, releases: dict[str, str]) -> Iterator[Place]:
    """A host that serves v1."""
    host = Host.fresh(engine, releases)
    try:
        assert host.deployer().deploy(host.order("v1")).outcome == Phase.DONE
        yield Place(host)
    finally:
        host.clean()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Ten releases, or two hundred in four parts."""
    if "mix" in metafunc.fixturenames:
        parts = [a_mix(35, 3, seed) for seed in range(4)] if metafunc.config.getoption("--long") else [a_mix(5, 1, 3)]
        metafunc.parametrize("mix", parts, ids=[f"part {number}" for number, _ in enumerate(parts, 1)])


@pytest.mark.timeout(900)
def test_f16_no_request_is_lost_whatever_is_released(
    place: Place, mix: list[str], log_dir: Path, numbers: Callable[..., None]
) -> None:
    url = f"http://127.0.0.1:{place.host.port}/"
    with Visitors(url, "shop.example.org", log_dir, clients=CLIENTS, rate=RATE) as visitors:
        seen: list[Saw] = []
        for kind in mix:
            outcome = place.release(kind)
            if kind == GOOD:
                assert outcome.outcome == Phase.DONE, outcome
                place.serving = place.following()
            else:
                assert (outcome.outcome, outcome.code) == (BAD[kind].end, BAD[kind].code), outcome
            assert place.host.get() == (200, f"marker: {place.serving}\n")
            assert list(place.host.containers().values()).count("running") == 1
            seen += visitors.seen()
        summary = visitors.finish()
    failures = [one for one in seen if one.error]
    assert [one for one in failures if not place.is_declared(one)] == []
    assert {one.mark for one in seen} <= {"", *VERSIONS}, "nobody ever saw a page of a bad release"
    assert max(place.back_after) < BACK
    numbers(
        releases=len(mix),
        bad=sum(kind != GOOD for kind in mix),
        requests=summary["sent"],
        posts_inside_a_dying_container=len(failures),
        failed_otherwise=0,
        p99_ms=[summary["p99_ms"]],
        longest_gap_ms=[summary["longest_gap_ms"]],
        back_after_seconds=place.back_after,
    )
