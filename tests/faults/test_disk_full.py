"""F12: the disk of the agent's state fills up while a deployment is under way: the old one serves, nothing is half."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepflow.agent import rollout
from keepflow.agent.deployment import Deployment
from keepflow.core.states import Phase
from tests.agent.fakes import Told
from tests.real.deploying import Host
from tests.real.engines import Engine
from tests.real.parts import need_root

pytestmark = pytest.mark.real

SMALL = 16 << 20  #: bytes of the disk
RESERVE = 4 << 20  #: what must be free on it before a deployment begins


@pytest.fixture
def host(engine: Engine, releases: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host that serves v1, with flags, journal and nginx's files on a small disk of their own."""
    need_root()
    monkeypatch.setattr(rollout, "RESERVE", RESERVE)
    made = Host.fresh(engine, releases)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL},mode=755", "keepflow-test", made.root], check=True)
    try:
        assert made.deployer().deploy(made.order("v1")).outcome == Phase.DONE
        yield made
    finally:
        made.nginx().stop()
        subprocess.run(["umount", "--lazy", made.root], check=True)
        made.clean()


def fill(place: Path, leave: int = 0) -> None:
    """Write until nothing, or only so much, is left on the disk of a place."""
    with (place / "filling").open("ab", buffering=0) as filling:
        for size in (1 << 16, 1 << 12, 1):
            while os.statvfs(place).f_bavail * 4096 > leave:
                try:
                    filling.write(b"x" * size)
                except OSError:
                    break


class Fills(Told):
    """Fills the disk as soon as a deployment enters a phase."""

    def __init__(self, place: Path, when: Phase) -> None:
        super().__init__()
        self.place, self.when = place, when

    def phase(self, deployment: Deployment, phase: Phase, detail: str) -> None:
        """Fill at the right moment."""
        super().phase(deployment, phase, detail)
        if phase == self.when:
            fill(self.place)


def test_f12_a_deployment_does_not_begin_on_a_disk_that_is_nearly_full(host: Host) -> None:
    fill(host.root, leave=RESERVE // 2)
    outcome = host.deployer().deploy(host.order("v2"))
    assert (outcome.outcome, outcome.code) == (Phase.FAILED, "disk-full")
    assert "free some space" in outcome.sentence
    assert host.containers() == {"blue": "running"}


@pytest.mark.parametrize(
    "when",
    [
        pytest.param(Phase.PULLING, marks=pytest.mark.long),
        pytest.param(Phase.GATING, marks=pytest.mark.long),
        Phase.SWITCHING,
        Phase.WATCHING,
    ],
)
def test_f12_a_disk_that_fills_up_meanwhile_ends_in_one_release_that_serves_and_is_told(
    host: Host, when: Phase
) -> None:
    deployer = host.deployer()
    deployer.reporter = host.told = Fills(host.root, when)
    lost = host.order("v2")
    outcome = deployer.deploy(lost)
    assert os.statvfs(host.root).f_bavail == 0
    assert outcome.code != "internal-error", outcome
    assert version(host, outcome.serving) in host.get()[1], "on the full disk, what is said to serve does"
    (host.root / "filling").unlink()
    host.deployer().recover()
    found = deployer.journals.find(lost.id)
    assert found is not None
    assert found[2] is not None, "with room on the disk it ends"
    assert found[2].outcome in (Phase.DONE, Phase.FAILED, Phase.REVERTED)
    assert version(host, found[2].serving) == ("v2" if found[2].outcome == Phase.DONE else "v1")
    assert host.get() == (200, f"marker: {version(host, found[2].serving)}\n")
    assert list(host.containers().values()).count("running") == 1
    assert host.told.outcomes[-1] == (lost.id, found[2])
    assert host.deployer().recover() == []
    host.told = Told()
    assert host.deployer().deploy(host.order("v3")).outcome == Phase.DONE


def version(host: Host, identity: str | None) -> str:
    """Return the version of a release."""
    return next(version for version, image in host.images.items() if image == identity)
