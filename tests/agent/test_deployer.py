"""The deployer's rules, on an engine in memory whose containers really answer on loopback."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepflow import errors
from keepflow.agent.deployer import Deployer
from keepflow.agent.deployment import Deployment, ServicePolicy
from keepflow.agent.held_secrets import HeldSecrets
from keepflow.agent.pulse import Pulse
from keepflow.core import names
from keepflow.core.flows import Container, Health, Strategy, Volume
from keepflow.core.states import PHASE_ORDER, Phase
from keepflow.ports import Answer, ImageFacts, RegistryLogin, Site, Traffic, Visit
from keepflow.proxies.none import NoProxy
from keepflow.tools import failpoints
from tests.agent.confided import KEY, confided
from tests.agent.fakes import FakeTarget, Told

V1, V2, V3 = (f"sha256:{digit * 64}" for digit in "123")
HEALTH = Health(within=0.5, successes=2, timeout=0.5, interval=0.02)
_subnets = itertools.count(0, 16)
_numbers = itertools.count(1)


class Killed(BaseException):
    """The process was killed here; nothing of it runs on."""


@dataclass
class Host:
    """A host with one service; `deployer()` is an agent that was just started on it."""

    root: Path
    target: FakeTarget = field(default_factory=FakeTarget)
    told: Told = field(default_factory=Told)
    policy: ServicePolicy = field(
        default_factory=lambda: ServicePolicy("shop", "shop/test", volumes=("data",), watch=0.05, drain=0.5)
    )
    pool: str = ""

    def __post_init__(self) -> None:
        offset = next(_subnets)
        of_this_process = 100 + os.getpid() % 100  # others may run these tests on this machine now
        self.pool = f"127.{of_this_process}.{offset // 256}.{offset % 256}/28"
        for image in (V1, V2, V3):
            self.target.add_image(image)

    def deployer(self, **changes: Any) -> Deployer:
        """Start an agent."""
        return Deployer(
            root=self.root / "agent",
            agent="test",
            target=self.target,
            proxy=NoProxy(self.root / "sw"),
            policies={"shop": replace(self.policy, **changes)},
            reporter=self.told,
            held=HeldSecrets(self.root / "agent/secrets", KEY.opening),
            pool=self.pool,
            patience=0.0,
        )

    def state(self) -> Traffic | None:
        """Read the flags."""
        deployer = self.deployer()
        return deployer.proxy.state(deployer.places.site(deployer.places.instance("shop", "main")))

    def running(self) -> dict[str, str]:
        """Return the identities of running containers by slot."""
        return {
            one.facts.labels[names.LABEL_SLOT]: one.facts.labels[names.LABEL_IDENTITY]
            for one in self.target.containers.values()
            if one.facts.running
        }


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.target.close()


def order(image: str, *, fence: int | None = None, action: str = "deploy", **container: Any) -> Deployment:
    number = fence or next(_numbers)
    return Deployment(
        id=f"d-{number}",
        fence=number,
        nonce=f"n-{number}",
        environment="shop/test",
        service="shop",
        instance="main",
        action=action,
        origin="local",
        repository="shop",
        image_id=image,
        digest=None,
        container=Container(**{"port": 8099, "health": HEALTH, "stop_timeout": 1.0, **container}),
    )


def from_registry(digest: str, **changes: Any) -> Deployment:
    return replace(order("", **changes), origin="registry", repository="registry.test:5000/shop", digest=digest)


# --- the good way -----------------------------------------------------------------------------------------------------


def test_the_first_release_serves_in_blue_and_the_next_in_green(host: Host) -> None:
    deployer = host.deployer()
    first, second = order(V1), order(V2)
    assert deployer.deploy(first).outcome == Phase.DONE
    assert deployer.serving("shop").identity == V1
    outcome = deployer.deploy(second)
    assert (outcome.outcome, outcome.serving) == (Phase.DONE, V2)
    assert host.running() == {"green": V2}
    assert host.state() == Traffic("green")
    assert host.told.names(second.id) == [
        phase.value for phase in PHASE_ORDER if phase not in (Phase.QUEUED, Phase.OFFERED, Phase.STOPPING, Phase.CANARY)
    ]
    assert [name for name, _ in host.told.outcomes] == [first.id, second.id]


def test_the_receipt_states_what_was_proven(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    receipt = deployer.deploy(order(V2)).receipt
    assert (receipt["digest_before"], receipt["digest_after"], receipt["slot"]) == (V1, V2, "green")
    assert receipt["probes"]["sent"] > 0
    assert receipt["probes"]["failed"] == 0
    assert receipt["sockets"]["left"] == 0
    assert receipt["maintenance"] == 0
    assert set(receipt["phases"]) >= {"pulling", "gating", "switching", "proving", "watching", "draining"}
    json.dumps(receipt, allow_nan=False)


def test_deploying_what_serves_already_starts_a_fresh_container(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    before = deployer.serving("shop").container_id
    assert deployer.deploy(order(V1)).outcome == Phase.DONE
    assert deployer.serving("shop").container_id != before


def test_old_is_touched_only_after_new_serves(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    host.target.calls.clear()
    deployer.deploy(order(V2))
    green, blue = "kf-shop-main-green", "kf-shop-main-blue"
    assert host.target.calls == [("create", green), ("start", green), ("stop", blue)]
    host.target.calls.clear()
    deployer.deploy(order(V3))
    aside = ("remove", f"{blue}-aside")
    assert host.target.calls == [("create", blue), ("start", blue), ("stop", green), aside], "removing can wait"


def test_a_proven_container_gets_its_restart_policy_and_a_retired_one_loses_it(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    deployer.deploy(order(V2))
    policies = {name: one.policy for name, one in host.target.containers.items()}
    assert policies == {"kf-shop-main-blue": "no", "kf-shop-main-green": "unless-stopped"}


def test_stop_first_stops_the_old_behind_the_maintenance_page_and_says_for_how_long(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    host.target.calls.clear()
    second = order(V2, strategy=Strategy.STOP_FIRST)
    outcome = deployer.deploy(second)
    assert outcome.outcome == Phase.DONE
    acts = [act for act, _ in host.target.calls]
    assert acts.index("stop") < acts.index("start")
    assert outcome.receipt["maintenance"] > 0
    assert host.told.names(second.id).index("stopping") == host.told.names(second.id).index("starting") - 1
    assert host.state() == Traffic("green")


def test_an_image_by_digest_is_pulled_once_with_the_hosts_login_and_kept(host: Host) -> None:
    reference = f"registry.test:5000/shop@{V3}"
    host.target.remote[reference] = ImageFacts("sha256:" + "9" * 64, (reference,))
    host.policy = replace(host.policy, login=RegistryLogin("registry.test:5000", "pull", "x"))
    deployer = host.deployer()
    assert deployer.deploy(from_registry(V3)).receipt["pulled"]
    assert not deployer.deploy(from_registry(V3)).receipt["pulled"]
    assert [call for call in host.target.calls if call[0] == "pull"] == [("pull", V3)]
    assert names.keep_tag("shop", "main", V3) in host.target.tags


def test_only_images_of_the_last_releases_stay(host: Host) -> None:
    deployer = host.deployer(keep=2)
    for image in (V1, V2, V3):
        deployer.deploy(order(image))
    assert sorted(host.target.tags.values()) == [V2, V3]
    assert [one.identity for one in deployer.history("shop").previous] == [V2]


def test_a_hot_slot_is_kept_running_taken_by_a_rollback_and_stopped_when_its_time_is_over(host: Host) -> None:
    deployer = host.deployer(hot=60.0)
    deployer.deploy(order(V1))
    first = deployer.serving("shop").container_id
    deployer.deploy(order(V2))
    assert host.running() == {"blue": V1, "green": V2}
    rollback = deployer.deploy(order(V1, action="rollback"))
    assert rollback.receipt["hot_start"]
    assert deployer.serving("shop").container_id == first
    deployer.tend()
    assert host.running() == {"blue": V1, "green": V2}
    history = deployer.history("shop")
    deployer.places.instance("shop", "main").save_history(replace(history, retired_until=0))
    deployer.tend()
    assert host.running() == {"blue": V1}


def test_another_port_goes_into_the_idle_slot_only(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    assert deployer.deploy(order(V2, port=8100)).outcome == Phase.DONE
    front = deployer.places.instance("shop", "main").front()
    assert (front.blue_port, front.green_port) == (8099, 8100)
    assert deployer.serving("shop").healthy


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "code"), [("exit", "exited"), ("sick", "unhealthy"), ("no-start", "start-failed")])
def test_a_new_one_that_does_not_serve_never_gets_a_request(host: Host, mode: str, code: str) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    kept = set(host.target.tags)
    outcome = deployer.deploy(order(V2, env={"MODE": mode}))
    assert (outcome.outcome, outcome.code, outcome.serving) == (Phase.FAILED, code, V1)
    assert outcome.log_tail.startswith("last words")
    assert "not touched" in outcome.sentence
    assert host.running() == {"blue": V1}
    assert list(host.target.containers) == ["kf-shop-main-blue"]
    assert set(host.target.tags) == kept
    assert deployer.deploy(order(V3)).outcome == Phase.DONE


@pytest.mark.parametrize("mode", ["exit", "sick"])
def test_stop_first_puts_the_old_one_back(host: Host, mode: str) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    outcome = deployer.deploy(order(V2, env={"MODE": mode}, strategy=Strategy.STOP_FIRST))
    assert (outcome.outcome, outcome.serving) == (Phase.REVERTED, V1)
    assert host.running() == {"blue": V1}
    assert host.state() == Traffic("blue")
    assert host.target.containers["kf-shop-main-blue"].policy == "unless-stopped"
    assert outcome.receipt["maintenance"] > 0
    assert outcome.receipt["probes"]["failed"] == 0


def test_a_new_one_that_dies_while_watched_is_put_back(host: Host) -> None:
    host.deployer().deploy(order(V1))
    deployer = host.deployer(watch=5.0)

    class DiesWhenWatched(Told):
        def phase(self, deployment: Deployment, phase: Phase, detail: str) -> None:
            if phase == Phase.WATCHING:
                host.target.crash("kf-shop-main-green")

    deployer.reporter = DiesWhenWatched()
    outcome = deployer.deploy(order(V2))
    assert (outcome.outcome, outcome.serving) == (Phase.REVERTED, V1)
    assert host.state() == Traffic("blue")
    assert host.running() == {"blue": V1}


def test_a_new_one_that_dies_as_it_is_proven_is_blamed_and_not_the_engine(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.deployer().deploy(order(V1))
    persist = FakeTarget.persist

    def too_late(target: FakeTarget, container: str) -> None:
        target.crash("kf-shop-main-green")
        persist(target, container)

    monkeypatch.setattr(FakeTarget, "persist", too_late)
    outcome = host.deployer().deploy(order(V2))
    assert (outcome.outcome, outcome.code, outcome.serving) == (Phase.REVERTED, "died-after-switch", V1)


def test_the_page_a_person_put_up_is_taken_down_by_nobody_else(host: Host) -> None:
    deployer = host.deployer()
    with pytest.raises(errors.Refused) as refused:
        deployer.maintenance("shop", up=True)
    assert refused.value.code == "nothing-behind"
    deployer.deploy(order(V1))
    changed, link = deployer.maintenance("shop", up=True)
    assert (changed, deployer.maintenance("shop", up=True)[0]) == (True, False)
    assert link.startswith("http://localhost/__keepflow/bypass/")
    outcome = deployer.deploy(order(V2))
    assert (outcome.outcome, outcome.code) == (Phase.FAILED, "maintenance-page")
    assert host.state() == Traffic("blue", maintenance=True)
    deployer.tend()
    assert host.state() == Traffic("blue", maintenance=True)
    deployer.maintenance("shop", up=False)
    assert host.state() == Traffic("blue")
    assert deployer.deploy(order(V2)).outcome == Phase.DONE


def test_the_page_waits_for_a_deployment_that_is_under_way(host: Host) -> None:
    deployer = host.deployer()
    accepted = deployer.accept(order(V1))
    with pytest.raises(errors.Refused) as refused:
        host.deployer().maintenance("shop", up=True)
    assert refused.value.code == "instance-busy"
    deployer.carry_out(accepted)


class Visited(NoProxy):
    """A proxy whose record of visitors is what the test says; `states` is every traffic it was switched to."""

    def __init__(self, root: Path, visits: list[Visit]) -> None:
        super().__init__(root)
        self.record, self.states = visits, list[Traffic]()

    def switch(self, site: Site, traffic: Traffic) -> None:
        """Remember it."""
        super().switch(site, traffic)
        self.states.append(traffic)

    def visits(self, site: Site, position: int) -> tuple[list[Visit], int]:
        """Return what the test says."""
        return self.record[position:], len(self.record)


def test_visitors_are_counted_from_before_the_new_one_starts_until_it_has_passed(host: Host) -> None:
    deployer = host.deployer()
    deployer.proxy = proxy = Visited(host.root / "sw", [])
    deployer.deploy(order(V1))
    proxy.record = [Visit(1.0, 200, "blue", "blue")] * 3 + [Visit(2.0, 500, "green", "green")]
    outcome = deployer.deploy(order(V2))
    assert proxy.states == [
        *(Traffic("blue", counted=True), Traffic("blue")),
        *(Traffic("blue", counted=True), Traffic("green", net=True, counted=True), Traffic("green")),
    ]
    assert outcome.outcome == Phase.DONE, "four requests say nothing"
    assert outcome.receipt["visitors"] == {
        "old": {"requests": 3, "errors": 0, "caught": 0},
        "new": {"requests": 1, "errors": 1, "caught": 0},
    }


def test_what_a_release_did_when_it_was_new_is_the_measure_of_the_next(host: Host) -> None:
    first, deployer = host.deployer(errors=0.5), host.deployer()
    first.proxy = deployer.proxy = proxy = Visited(host.root / "sw", [])
    usual = [Visit(1.0, 500 if number % 5 == 0 else 200, "blue", "blue") for number in range(50)]
    proxy.record = usual
    first.deploy(order(V1))
    assert (deployer.history("shop").requests, deployer.history("shop").errors) == (50, 10)
    proxy.record = [replace(visit, meant="green", by="green") for visit in usual]
    assert deployer.deploy(order(V2)).outcome == Phase.DONE, "as bad as ever is no reason to go back"


def test_a_release_in_which_visitors_fail_is_put_back_though_its_probes_are_well(host: Host) -> None:
    deployer = host.deployer(watch=10.0)
    deployer.proxy = Visited(host.root / "sw", [])
    deployer.deploy(order(V1))
    deployer.proxy.record = [Visit(1.0, 200, "blue", "blue")] * 50 + [Visit(2.0, 500, "green", "green")] * 30
    outcome = deployer.deploy(order(V2))
    assert (outcome.outcome, outcome.code, outcome.serving) == (Phase.REVERTED, "visitors-failing", V1)
    assert "30 of 30 (100 %)" in outcome.sentence
    assert outcome.receipt["visitors"]["new"]["errors"] == 30
    assert outcome.receipt["probes"]["failed"] == 0
    assert outcome.log_tail.startswith("last words")
    assert host.state() == Traffic("blue")


def test_a_dead_proxy_is_not_blamed_on_the_release(host: Host) -> None:
    host.deployer().deploy(order(V1))
    deployer = host.deployer(watch=20.0)

    class Dead(NoProxy):
        dead = False

        def probe(self, site: Site, path: str, timeout: float, slot: str | None = None) -> Answer:
            if self.dead:
                raise errors.DeployFailed("nobody listens", code="proxy-down")
            return super().probe(site, path, timeout, slot)

        def sees_flags(self, site: Site) -> bool:
            return not self.dead and super().sees_flags(site)

    class DiesWhenWatched(Told):
        def phase(self, deployment: Deployment, phase: Phase, detail: str) -> None:
            proxy.dead = proxy.dead or phase == Phase.WATCHING

    deployer.proxy = proxy = Dead(host.root / "sw")
    deployer.reporter = DiesWhenWatched()
    outcome = deployer.deploy(order(V2))
    assert (outcome.outcome, outcome.code, outcome.serving) == (Phase.REVERTED, "proxy-down", V1)


def test_a_failing_first_release_leaves_the_maintenance_page_and_nothing_else(host: Host) -> None:
    outcome = host.deployer().deploy(order(V1, env={"MODE": "exit"}))
    assert (outcome.outcome, outcome.serving) == (Phase.FAILED, None)
    assert host.state() == Traffic(None, maintenance=True)
    assert not host.target.containers


def test_when_the_old_one_does_not_come_back_either_the_outcome_is_unknown_and_settles_later(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    old = host.target.containers["kf-shop-main-blue"]
    old.spec = replace(old.spec, env={"MODE": "exit"})
    bad = order(V2, env={"MODE": "exit"}, strategy=Strategy.STOP_FIRST)
    outcome = deployer.deploy(bad)
    assert (outcome.outcome, outcome.serving) == (Phase.UNKNOWN, None)
    with pytest.raises(errors.Refused) as refused:
        deployer.accept(order(V3))
    assert refused.value.code == "unsettled"
    deployer.tend()
    assert [one.outcome for _, one in host.told.outcomes] == [Phase.DONE, Phase.UNKNOWN], "told once, not every time"
    old.spec = replace(old.spec, env={})
    assert [one.outcome for one in host.deployer().recover()] == [Phase.REVERTED]
    assert host.running() == {"blue": V1}
    assert host.deployer().deploy(order(V3)).outcome == Phase.DONE


def test_a_missing_local_image_fails_before_anything_is_touched(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    host.target.calls.clear()
    outcome = deployer.deploy(order("sha256:" + "f" * 64))
    assert (outcome.outcome, outcome.code) == (Phase.FAILED, "image-missing")
    assert host.target.calls == []


def test_an_image_that_is_not_known_by_the_ordered_digest_is_refused(host: Host) -> None:
    reference = f"registry.test:5000/shop@{V3}"
    host.target.images[reference] = ImageFacts(V1, ())
    outcome = host.deployer().deploy(from_registry(V3))
    assert (outcome.outcome, outcome.code) == (Phase.FAILED, "digest-mismatch")
    assert not host.target.containers


@pytest.mark.parametrize(
    ("container", "code"),
    [
        ({"volumes": (Volume("etc", "/etc"),)}, "volume-not-allowed"),
        ({"secrets": ("DATABASE_URL",)}, "secret-missing"),
    ],
)
def test_what_the_hosts_file_does_not_give_fails_in_preflight(host: Host, container: dict[str, Any], code: str) -> None:
    outcome = host.deployer().deploy(order(V1, **container))
    assert (outcome.outcome, outcome.code) == (Phase.FAILED, code)
    assert host.target.calls == []


def test_secrets_reach_the_container_as_files_and_the_hosts_env_file_wins(host: Host, tmp_path: Path) -> None:
    (tmp_path / "shop.env").write_text("# ours\nTZ=UTC\nEMPTY=\nTOKEN=of the host\n")
    deployer = host.deployer(env_file=tmp_path / "shop.env")
    plain = order(V1, env={"TZ": "Asia/Shanghai", "A": "1"}, secrets=("PASSWORD", "TOKEN"))
    wanted, sealed = confided(plain, {"PASSWORD": "very-secret", "TOKEN": "of-the-master"}, version=3)
    deployer.held.keep(wanted, sealed)
    outcome = deployer.deploy(wanted)
    spec = host.target.containers["kf-shop-main-blue"].spec
    assert spec.env == {"TZ": "UTC", "A": "1", "EMPTY": "", "TOKEN": "of the host"}
    assert {path.name: path.read_text() for path in Path(spec.secrets).iterdir()} == {"PASSWORD": "very-secret"}
    assert "secrets, as ordered: PASSWORD version 3" in outcome.receipt["notes"]
    holding = [path for path in tmp_path.rglob("*") if path.is_file() and b"very-secret" in path.read_bytes()]
    assert holding == [Path(spec.secrets) / "PASSWORD"], "no journal, history or report holds it"
    assert "very-secret" not in repr(outcome) + repr(spec)


def test_a_secret_as_a_variable_is_asked_for_and_the_receipt_says_who_sees_it(host: Host, tmp_path: Path) -> None:
    (tmp_path / "shop.env").write_text("TOKEN=of the host\n")
    deployer = host.deployer(env_file=tmp_path / "shop.env")
    asked = order(V1, secrets=("PASSWORD", "KEY", "TOKEN"), secrets_in_env=("KEY", "TOKEN"))
    wanted, sealed = confided(asked, {"PASSWORD": "of-a-file", "KEY": "of-a-variable", "TOKEN": "unused"}, version=2)
    deployer.held.keep(wanted, sealed)
    outcome = deployer.deploy(wanted)
    spec = host.target.containers["kf-shop-main-blue"].spec
    assert spec.env == {"KEY": "of-a-variable", "TOKEN": "of the host"}
    assert {path.name: path.read_text() for path in Path(spec.secrets).iterdir()} == {"PASSWORD": "of-a-file"}
    [note] = [one for one in outcome.receipt["notes"] if "inspect" in one]
    assert "KEY version 2" in note
    assert "of-a-variable" not in repr(outcome)


def test_files_go_with_the_last_container_that_reads_them(host: Host) -> None:
    deployer = host.deployer()
    places = []
    for image in (V1, V2, V3):
        wanted, sealed = confided(order(image, secrets=("PASSWORD",)), {"PASSWORD": image})
        deployer.held.keep(wanted, sealed)
        assert deployer.deploy(wanted).outcome == Phase.DONE
        here = {one.spec.secrets for one in host.target.containers.values()}
        places.append(here)
        assert all((Path(place) / "PASSWORD").exists() for place in here)
    gone = (places[0] | places[1]) - places[2]
    assert gone
    assert not [place for place in gone if Path(place).exists()]


def test_the_last_words_of_a_failed_one_are_told_without_the_values_of_the_host(host: Host, tmp_path: Path) -> None:
    (tmp_path / "shop.env").write_text("DATABASE_URL=postgres://last words of\nSHORT=of\n")
    deployer = host.deployer(env_file=tmp_path / "shop.env")
    host.target.words = "connecting to postgres://last words of c1, TZ Asia/Shanghai, as very-secret"
    failing = order(V1, env={"MODE": "exit", "TZ": "Asia/Shanghai"}, secrets=("PASSWORD",))
    failing, sealed = confided(failing, {"PASSWORD": "very-secret"})
    deployer.held.keep(failing, sealed)
    outcome = deployer.deploy(failing)
    assert outcome.log_tail == "connecting to [MASKED] c1, TZ Asia/Shanghai, as [MASKED]"


def test_a_container_of_somebody_else_on_a_slots_name_is_never_touched(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    green = replace(
        host.target.containers["kf-shop-main-blue"].facts, id="theirs", name="kf-shop-main-green", labels={}
    )
    other = replace(host.target.containers["kf-shop-main-blue"].spec, slot="green")
    host.target.containers["kf-shop-main-green"] = type(host.target.containers["kf-shop-main-blue"])(other, green)
    host.target.calls.clear()
    outcome = deployer.deploy(order(V2))
    assert (outcome.outcome, outcome.code) == (Phase.FAILED, "foreign-container")
    assert host.target.calls == []
    del host.target.containers["kf-shop-main-green"]


def test_an_order_that_expects_something_else_to_serve_is_not_carried_out(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    outcome = deployer.deploy(replace(order(V3), expect_current=V2))
    assert (outcome.outcome, outcome.code) == (Phase.FAILED, "not-current")


def test_flags_that_vanished_come_back_as_they_were(host: Host, tmp_path: Path) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    (tmp_path / "sw" / "kf-shop-main" / "cur").unlink()
    assert "not readable" in deployer.serving("shop").note
    assert deployer.tend() == ["shop/main: the flags were gone; blue serves again"]
    assert host.state() == Traffic("blue")
    assert deployer.tend() == []


def test_a_container_that_ended_is_said_to_be_the_reason(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    assert (deployer.serving("shop").healthy, deployer.serving("shop").note) == (True, "")
    host.target.crash("kf-shop-main-blue")
    seen = deployer.serving("shop")
    assert (seen.identity, seen.healthy, seen.note) == (V1, False, "the container of the serving slot does not run")


# --- asking twice, asking late ----------------------------------------------------------------------------------------


def test_an_old_fence_a_known_deployment_and_a_used_nonce_are_refused(host: Host) -> None:
    deployer = host.deployer()
    done = order(V1)
    deployer.deploy(done)
    with pytest.raises(errors.Refused) as known:
        deployer.accept(replace(done, fence=next(_numbers)))
    with pytest.raises(errors.Refused) as replayed:
        deployer.accept(replace(done, id="other", fence=next(_numbers)))
    with pytest.raises(errors.StaleFence):
        deployer.accept(replace(order(V2), fence=done.fence))
    assert (known.value.code, replayed.value.code) == ("known-deployment", "replayed-nonce")
    assert host.deployer().journals.highest_fence("shop", "main") == done.fence
    found = deployer.journals.find(done.id)
    assert found is not None
    assert found[2] is not None
    assert found[2].outcome == Phase.DONE


def test_a_second_deployment_while_one_is_under_way_is_refused(host: Host) -> None:
    deployer = host.deployer()
    accepted = deployer.accept(order(V1))
    with pytest.raises(errors.Refused) as busy:
        host.deployer().accept(order(V2))
    assert busy.value.code == "instance-busy"
    assert deployer.carry_out(accepted).outcome == Phase.DONE


def test_a_service_the_hosts_file_does_not_name_is_refused(host: Host) -> None:
    with pytest.raises(errors.UsageError) as refused:
        host.deployer().accept(replace(order(V1), service="other"))
    assert refused.value.code == "unknown-service"


# --- killed at any moment ---------------------------------------------------------------------------------------------

_PHASES = [f"deploy.{phase}" for phase in ("accepted", "preflight", "pulling", "preparing", "starting", "gating")]
_COUNTING = ["count.before", "count.after"]
_BEFORE = [*_COUNTING, "keep.before", "keep.after", "create.before", "create.after", "start.before", "start.after"]
_AFTER = [
    "deploy.proving",
    "deploy.watching",
    "deploy.draining",
    "drop-net.before",
    "stop-old.before",
    "stop-old.after",
]


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def kill(*_: int) -> None:
        raise Killed

    monkeypatch.setattr(failpoints.os, "kill", kill)

    def arm(name: str | None) -> None:
        if name:
            monkeypatch.setenv(failpoints.VARIABLE, f"{name}=kill")
        else:
            monkeypatch.delenv(failpoints.VARIABLE, raising=False)

    return arm  # type: ignore[return-value]  # a plain fixture: monkeypatch undoes it


def die(host: Host, deployment: Deployment) -> None:
    """Deploy until the failpoint is hit."""
    with pytest.raises(Killed):
        host.deployer().deploy(deployment)


@pytest.mark.parametrize("point", [*_PHASES, *_BEFORE, "deploy.switching", "switch.before", "flags.before-rename"])
def test_f24_killed_before_the_switch_it_failed_and_the_old_was_never_touched(
    host: Host, killed_at: Any, point: str
) -> None:
    host.deployer().deploy(order(V1))
    killed_at(point)
    lost = order(V2)
    die(host, lost)
    killed_at(None)
    (outcome,) = host.deployer().recover()
    assert (outcome.outcome, outcome.code, outcome.serving) == (Phase.FAILED, "agent-restarted", V1)
    assert host.running() == {"blue": V1}
    assert list(host.target.containers) == ["kf-shop-main-blue"]
    assert host.deployer().recover() == []
    assert host.deployer().deploy(order(V3)).outcome == Phase.DONE


@pytest.mark.parametrize("point", ["flags.after-rename", "switch.after", *_AFTER])
def test_f24_killed_after_the_switch_it_is_proven_and_completed(host: Host, killed_at: Any, point: str) -> None:
    host.deployer().deploy(order(V1))
    killed_at(point)
    lost = order(V2)
    die(host, lost)
    killed_at(None)
    (outcome,) = host.deployer().recover()
    assert (outcome.outcome, outcome.serving) == (Phase.DONE, V2)
    assert outcome.receipt["recovered"]
    assert host.running() == {"green": V2}
    assert host.state() == Traffic("green")
    order_of = [PHASE_ORDER.index(Phase(name)) for name in host.told.names(lost.id)]
    assert order_of == sorted(order_of), "phases are told forwards only"
    assert host.target.containers["kf-shop-main-green"].policy == "unless-stopped"


@pytest.mark.parametrize("point", ["flags.after-rename", "switch.after", *_AFTER])
def test_killed_after_the_switch_and_the_new_one_died_too_it_is_put_back(
    host: Host, killed_at: Any, point: str
) -> None:
    host.deployer().deploy(order(V1))
    killed_at(point)
    die(host, order(V2))
    killed_at(None)
    host.target.crash("kf-shop-main-green")
    (outcome,) = host.deployer().recover()
    assert (outcome.outcome, outcome.serving) == (Phase.REVERTED, V1)
    assert host.running() == {"blue": V1}


@pytest.mark.parametrize(
    "point", ["deploy.stopping", "pause.before", "pause.after", "stop-first.before", "stop-first.after", "start.after"]
)
def test_stop_first_killed_before_the_switch_the_old_one_serves_again(host: Host, killed_at: Any, point: str) -> None:
    host.deployer().deploy(order(V1))
    killed_at(point)
    die(host, order(V2, strategy=Strategy.STOP_FIRST))
    killed_at(None)
    (outcome,) = host.deployer().recover()
    assert outcome.outcome == (Phase.FAILED if point in ("deploy.stopping", "pause.before") else Phase.REVERTED)
    assert outcome.serving == V1
    assert host.running() == {"blue": V1}
    assert host.state() == Traffic("blue")


@pytest.mark.parametrize("point", ["switch-back.before", "switch-back.after", "remove-new.before", "remove-new.after"])
def test_killed_while_putting_back_it_goes_on_putting_back_for_the_same_reason(
    host: Host, killed_at: Any, point: str
) -> None:
    host.deployer().deploy(order(V1))
    killed_at(point)

    class DiesWhenWatched(Told):
        def phase(self, deployment: Deployment, phase: Phase, detail: str) -> None:
            if phase == Phase.WATCHING:
                host.target.crash("kf-shop-main-green")

    dying = host.deployer(watch=5.0)
    dying.reporter = DiesWhenWatched()
    with pytest.raises(Killed):
        dying.deploy(order(V2))
    killed_at(None)
    (outcome,) = host.deployer().recover()
    assert (outcome.outcome, outcome.code) == (Phase.REVERTED, "died-after-switch")
    assert host.running() == {"blue": V1}
    assert list(host.target.containers) == ["kf-shop-main-blue"]


def test_an_outcome_that_was_written_but_not_told_is_told(host: Host, killed_at: Any) -> None:
    killed_at("deploy.outcome")
    lost = order(V1)
    die(host, lost)
    killed_at(None)
    assert host.told.outcomes == []
    (outcome,) = host.deployer().recover()
    assert outcome.outcome == Phase.DONE
    assert [name for name, _ in host.told.outcomes] == [lost.id]


def test_f10_an_engine_that_is_down_while_the_old_one_is_put_away_leaves_it_for_later(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))

    class Falls(Told):
        def phase(self, deployment: Deployment, phase: Phase, detail: str) -> None:
            host.target.down = phase == Phase.DRAINING

    deployer.reporter = Falls()
    lost = order(V2)
    outcome = deployer.deploy(lost)
    assert (outcome.outcome, outcome.serving) == (Phase.UNKNOWN, V2)
    assert "the old one is not put away yet" in outcome.sentence
    host.target.down = False
    (settled,) = host.deployer().recover()
    assert (settled.outcome, settled.serving) == (Phase.DONE, V2)
    assert host.running() == {"green": V2}


def test_f07_an_engine_that_is_down_at_start_decides_nothing(host: Host, killed_at: Any) -> None:
    host.deployer().deploy(order(V1))
    killed_at("deploy.gating")
    die(host, order(V2))
    killed_at(None)
    host.target.down = True
    with pytest.raises(errors.Unavailable):
        host.deployer().recover()
    host.target.down = False
    assert [one.outcome for one in host.deployer().recover()] == [Phase.FAILED]


_POINTS = [
    *_PHASES,
    *_BEFORE,
    *_AFTER,
    "switch.before",
    "switch.after",
    "flags.after-rename",
    "pause.after",
    None,
    None,
]
_story = st.lists(
    st.tuples(
        st.sampled_from([V1, V2, V3]),
        st.sampled_from(["ok", "ok", "exit", "sick"]),
        st.sampled_from(list(Strategy)),
        st.sampled_from(_POINTS),
    ),
    min_size=1,
    max_size=4,
)


@given(story=_story)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_what_serves_is_the_last_good_release(
    tmp_path_factory: pytest.TempPathFactory, killed_at: Any, story: list[tuple[str, str, Strategy, str | None]]
) -> None:
    host = Host(tmp_path_factory.mktemp("story"))
    serving = None
    try:
        for image, mode, strategy, point in story:
            deployment = order(image, env={"MODE": mode}, strategy=strategy)
            killed_at(point)
            try:
                outcome = host.deployer().deploy(deployment)
            except Killed:
                killed_at(None)
                (outcome,) = host.deployer().recover()
            assert outcome.outcome in (Phase.DONE, Phase.FAILED, Phase.REVERTED)
            assert mode == "ok" or outcome.outcome != Phase.DONE
            serving = image if outcome.outcome == Phase.DONE else serving
            assert outcome.serving == serving
            assert set(host.running().values()) == ({serving} if serving else set())
            assert len(host.running()) <= 1
            state = host.state()
            assert state == (Traffic(next(iter(host.running()))) if serving else Traffic(None, maintenance=True))
            assert host.deployer().recover() == []
    finally:
        host.target.close()


def test_a_deployment_that_hangs_is_seen_and_one_that_waits_for_health_is_not(host: Host) -> None:
    """The watchdog's clock is the test's: within a phase it may stand still for what that phase may wait for."""
    now, seen = [0.0], []

    class Turning(Told):
        """Turns the clock whenever a phase is told, and looks at what the watchdog would see."""

        def phase(self, deployment: Deployment, phase: Phase, detail: str) -> None:
            began = now[0]
            now[0] = began + 300
            waits = deployer.pulse.hung()
            now[0] = began + 3600
            seen.append((waits, deployer.pulse.hung()))
            now[0] = began

    host.told = Turning()
    deployer = host.deployer()
    deployer.pulse = Pulse(lambda: now[0])
    assert deployer.deploy(order(V1)).outcome is Phase.DONE
    assert len(seen) > 5
    assert {tuple(waits) for waits, _ in seen} == {()}
    assert {tuple(hangs) for _, hangs in seen} == {("the deployment of shop/main",)}
    now[0] += 10**6
    assert deployer.pulse.hung() == []
