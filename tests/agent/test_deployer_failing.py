"""The deployer's rules: what becomes of a release, and of the old one, when something goes wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keepflow import errors
from keepflow.agent.deployment import Deployment
from keepflow.core.flows import Strategy, Volume
from keepflow.core.states import Phase
from keepflow.ports import Answer, ImageFacts, Site, Traffic, Visit
from keepflow.proxies.none import NoProxy
from tests.agent.confided import confided
from tests.agent.deployed import V1, V2, V3, Host, Visited, from_registry, host, order
from tests.agent.fakes import FakeTarget, Told

__all__ = ["host"]


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
