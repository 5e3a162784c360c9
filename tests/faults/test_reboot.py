"""A host that goes down and comes up, whenever it does: what served serves again, whatever the engine started."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from keepflow.core.states import Phase
from tests.real.deploying import Host
from tests.real.engines import Engine
from tests.real.waiting import wait_until

pytestmark = pytest.mark.real


@pytest.fixture
def host(engine: Engine, releases: dict[str, str]) -> Iterator[Host]:
    """A host that serves v1 in blue."""
    made = Host.fresh(engine, releases)
    try:
        assert made.deployer().deploy(made.order("v1")).outcome == Phase.DONE
        yield made
    finally:
        made.clean()


def slots(host: Host) -> list[str]:
    """Return the names of both containers."""
    return [f"kf-{host.service}-main-{slot}" for slot in ("blue", "green")]


@pytest.mark.parametrize("first", ["blue", "green"])
def test_f09_after_a_reboot_the_same_release_serves_whatever_docker_started_first(host: Host, first: str) -> None:
    host.deployer(hot=60.0).deploy(host.order("v2"))
    host.engine.docker("kill", *slots(host))
    host.nginx().stop()
    host.engine.docker("start", *sorted(slots(host), reverse=first == "green"))
    assert host.deployer().recover() == []
    wait_until(lambda: host.get() == (200, "marker: v2\n"), 10, "v2 serving")
    assert host.deployer().serving(host.service).identity == host.images["v2"]


def test_f09_a_reboot_right_after_the_flag_ends_with_the_old_release(host: Host) -> None:
    """The new container has no restart policy before it was proven, so a reboot does not start it."""
    host.die("switch.after", host.order("v2"))
    host.engine.docker("kill", *slots(host))
    host.nginx().stop()
    host.engine.docker("start", slots(host)[0])
    (outcome,) = host.deployer().recover()
    assert (outcome.outcome, outcome.code) == (Phase.REVERTED, "ended-unseen")
    assert host.get() == (200, "marker: v1\n")


def test_f24_killed_after_the_flag_and_the_new_one_died_the_old_one_is_put_back(host: Host) -> None:
    host.die("switch.after", host.order("v2"))
    host.engine.docker("kill", slots(host)[1])
    assert host.get() == (200, "marker: v1\n"), "the net catches what the new one cannot answer"
    (outcome,) = host.deployer().recover()
    assert (outcome.outcome, outcome.serving) == (Phase.REVERTED, host.images["v1"])
    assert host.containers() == {"blue": "running"}
