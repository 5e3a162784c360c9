"""Deploys with a real engine and a real nginx: good ones, bad ones, and ones whose process is killed."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from keepflow.agent.canary import Wish
from keepflow.agent.deployment import Deployment, Outcome
from keepflow.core.flows import Health, Strategy, Volume
from keepflow.core.states import Phase
from keepflow.tools.http_get import get
from tests.agent.confided import confided
from tests.agent.fakes import Told
from tests.real.deploying import Host, image_tag
from tests.real.engines import Engine
from tests.real.load_process import Load
from tests.real.waiting import wait_until

pytestmark = pytest.mark.real

_hosts = count()


@pytest.fixture
def host(engine: Engine, releases: dict[str, str]) -> Iterator[Host]:
    """A host with one service and an own nginx, and nothing deployed."""
    made = Host.fresh(engine, releases)
    yield made
    made.clean()


@pytest.fixture
def serving(host: Host) -> Host:
    """A host that serves v1 in blue."""
    assert host.deployer().deploy(host.order("v1")).outcome == Phase.DONE
    assert host.get() == (200, "marker: v1\n")
    return host


def test_a_container_reads_its_secrets_as_files_and_the_engine_tells_no_value(host: Host, engine: Engine) -> None:
    deployer = host.deployer()
    wanted, sealed = confided(host.order("v1", secrets=("PASSWORD",)), {"PASSWORD": "c4nary\nof two lines"})
    deployer.held.check(wanted, sealed)
    deployer.held.keep(wanted, sealed)
    assert deployer.deploy(wanted).outcome == Phase.DONE
    container = deployer.serving(host.service).container_id or ""
    engine.docker("restart", container)  # as the engine does by itself after a reboot
    copied = host.root / "copied"
    engine.docker("cp", f"{container}:/run/secrets/PASSWORD", str(copied))
    assert copied.read_text() == "c4nary\nof two lines"
    seen = engine.docker("inspect", container)
    assert "c4nary" not in seen
    [mount] = json.loads(seen)[0]["Mounts"]
    assert (mount["Destination"], mount["RW"]) == ("/run/secrets", False)


# --- good -------------------------------------------------------------------------------------------------------------


def test_a_release_follows_another_and_the_old_one_is_stopped_and_kept(serving: Host) -> None:
    second = serving.order("v2")
    outcome = serving.deployer().deploy(second)
    assert (outcome.outcome, outcome.serving) == (Phase.DONE, serving.images["v2"])
    assert serving.get() == (200, "marker: v2\n")
    assert serving.containers() == {"blue": "exited", "green": "running"}
    receipt = outcome.receipt
    assert receipt["probes"]["sent"] > 5
    assert receipt["probes"]["failed"] == 0
    assert receipt["sockets"]["left"] == 0
    assert receipt["digest_before"] == serving.images["v1"]
    seen = serving.deployer().serving(serving.service)
    assert (seen.identity, seen.slot, seen.healthy, seen.deployment) == (
        serving.images["v2"], "green", True, second.id,
    )  # fmt: skip


def test_a_rollback_to_a_hot_slot_starts_nothing(host: Host) -> None:
    deployer = host.deployer(hot=60.0)
    deployer.deploy(host.order("v1"))
    deployer.deploy(host.order("v2"))
    assert host.containers() == {"blue": "running", "green": "running"}
    outcome = deployer.deploy(host.order("v1", action="rollback"))
    assert outcome.receipt["hot_start"]
    assert outcome.receipt["serving_after"] < 1.0
    assert host.get() == (200, "marker: v1\n")


def test_a_rollback_needs_no_tag_but_keepflows_own(serving: Host) -> None:
    """The tags of builds move and vanish; `docker image prune` of others must not matter."""
    deployer = serving.deployer()
    deployer.deploy(serving.order("v2"))
    serving.engine.docker("image", "rm", image_tag("v1"))
    try:
        outcome = deployer.deploy(serving.order("v1", action="rollback"))
    finally:
        serving.engine.docker("tag", serving.images["v1"], image_tag("v1"))
    assert outcome.outcome == Phase.DONE
    assert serving.get() == (200, "marker: v1\n")


def test_a_release_may_change_its_port(serving: Host) -> None:
    outcome = serving.deployer().deploy(serving.order("v2", port=9000, env={"PORT": "9000"}))
    assert outcome.outcome == Phase.DONE
    assert serving.get() == (200, "marker: v2\n")


def test_stop_first_never_has_two_and_counts_its_maintenance(serving: Host) -> None:
    volumes = (Volume("data", "/data"),)
    outcome = serving.deployer().deploy(serving.order("v2", strategy=Strategy.STOP_FIRST, volumes=volumes))
    assert outcome.outcome == Phase.DONE
    assert serving.get() == (200, "marker: v2\n")
    assert serving.containers() == {"blue": "exited", "green": "running"}
    assert 0 < outcome.receipt["maintenance"] < 10
    assert outcome.receipt["probes"]["failed"] == 0
    assert outcome.receipt["probes"]["maintenance"] > 0


def test_a_deploy_never_reloads_nginx(serving: Host) -> None:
    def workers() -> str:
        pid = serving.nginx().pid()
        return Path(f"/proc/{pid}/task/{pid}/children").read_text()

    before = workers()
    serving.deployer().deploy(serving.order("v2"))
    assert workers() == before != ""


# --- bad --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"env": {"MODE": "exit"}}, "exited", "cannot open the database"),
        ({"env": {"MODE": "sick"}, "health": Health(within=1.0)}, "unhealthy", "mode sick"),
        ({"args": ("/no/such/program",)}, "exited", "/no/such/program"),
        ({"env": {"PORT": "9000"}, "health": Health(within=1.0)}, "unhealthy", "version v2"),
    ],
)
def test_a_new_one_that_does_not_serve_leaves_the_old_one_alone(
    serving: Host, settings: dict[str, Any], code: str, words: str
) -> None:
    before = serving.deployer().serving(serving.service)
    outcome = serving.deployer().deploy(serving.order("v2", **settings))
    assert (outcome.outcome, outcome.code, outcome.serving) == (Phase.FAILED, code, serving.images["v1"])
    assert words in outcome.log_tail
    assert outcome.receipt["probes"]["failed"] == 0
    assert serving.containers() == {"blue": "running"}
    assert serving.deployer().serving(serving.service) == before


def test_a_release_command_runs_once_beside_the_old_release_with_the_settings_of_the_new_one(serving: Host) -> None:
    script = (
        "import os, socket; token = open('/run/secrets/TOKEN').read()"
        "; address = socket.gethostbyname(socket.gethostname())"
        "; open('/data/said', 'w').write(f'{token} {os.environ[\"VERSION\"]} {address}')"
    )
    volume = Volume("data", "/data", shared=True)
    plain = serving.order("v2", release_command=("python3", "-c", script), volumes=(volume,), secrets=("TOKEN",))
    wanted, sealed = confided(plain, {"TOKEN": "a-secret-value"})
    serving.deployer().held.keep(wanted, sealed)
    outcome = serving.deployer().deploy(wanted)
    assert outcome.outcome == Phase.DONE, outcome.sentence
    assert outcome.receipt["release_command"]["exit_code"] == 0
    assert serving.containers() == {"blue": "exited", "green": "running"}
    said = serving.engine.docker("exec", f"kf-{serving.service}-main-green", "cat", "/data/said").split()
    network = serving.deployer().networks.of(serving.service, "main")
    assert said == ["a-secret-value", "v2", network.beside]


@pytest.mark.parametrize(
    ("script", "limit", "code"),
    [
        ("print('no such table', flush=True); raise SystemExit(4)", 20.0, "release-command"),
        ("print('no such table', flush=True); import time; time.sleep(600)", 5.0, "release-command-timeout"),
    ],
)
def test_a_release_command_that_does_not_succeed_leaves_the_old_release_alone(
    serving: Host, script: str, limit: float, code: str
) -> None:
    before = serving.deployer().serving(serving.service)
    wanted = serving.order("v2", release_command=("python3", "-c", script), release_timeout=limit)
    outcome = serving.deployer().deploy(wanted)
    assert (outcome.outcome, outcome.code, outcome.serving) == (Phase.FAILED, code, serving.images["v1"])
    assert "no such table" in outcome.log_tail
    assert serving.containers() == {"blue": "running"}
    assert serving.deployer().serving(serving.service) == before
    assert serving.get() == (200, "marker: v1\n")


def test_a_missing_image_touches_nothing(serving: Host) -> None:
    outcome = serving.deployer().deploy(serving.order("sha256:" + "0" * 64))
    assert (outcome.outcome, outcome.code) == (Phase.FAILED, "image-missing")
    assert serving.containers() == {"blue": "running"}


def test_an_image_known_by_another_digest_is_refused(serving: Host) -> None:
    digest = "sha256:" + "d" * 64
    wanted = dataclasses.replace(serving.order("v2"), origin="registry", digest=digest, repository="localhost:1/shop")
    outcome = serving.deployer().deploy(wanted)
    assert (outcome.outcome, outcome.code) == (Phase.FAILED, "pull-failed")
    assert serving.get() == (200, "marker: v1\n")
    assert serving.containers() == {"blue": "running"}


def test_one_that_dies_when_the_first_visitor_comes_is_reverted_and_visitors_see_200(serving: Host) -> None:
    outcome = serving.deployer(watch=3.0).deploy(serving.order("v2", env={"MODE": "late-death"}))
    assert (outcome.outcome, outcome.serving) == (Phase.REVERTED, serving.images["v1"])
    assert "a visitor came: dying" in outcome.log_tail
    assert serving.containers() == {"blue": "running"}
    assert serving.get() == (200, "marker: v1\n")


def test_a_storm_of_500_after_the_switch_is_reverted_though_the_probes_are_well(serving: Host, log_dir: Path) -> None:
    with Load(f"http://127.0.0.1:{serving.port}/basket", log_dir, host_header="shop.example.org", clients=10):
        outcome = serving.deployer(watch=60.0).deploy(serving.order("v2", env={"MODE": "storm"}))
    assert (outcome.outcome, outcome.code, outcome.serving) == (
        Phase.REVERTED, "visitors-failing", serving.images["v1"],
    )  # fmt: skip
    assert "requests of visitors failed in the new release" in outcome.sentence
    receipt = outcome.receipt
    assert receipt["visitors"]["old"]["requests"] > 0
    assert receipt["visitors"]["new"]["errors"] > 1
    assert receipt["probes"]["failed"] == 0
    assert receipt["phases"]["watching"] < 30
    assert "version v2 in mode storm" in outcome.log_tail
    assert serving.get() == (200, "marker: v1\n")


def test_one_that_dies_seconds_after_the_switch_is_reverted_and_the_old_one_answers_for_it(
    serving: Host, log_dir: Path
) -> None:
    url = f"http://127.0.0.1:{serving.port}/"
    with Load(url, log_dir, "--rate", "200", host_header="shop.example.org", clients=10) as load:
        outcome = serving.deployer(watch=60.0).deploy(serving.order("v2", env={"MODE": "short-life", "LIFE": "5"}))
        summary = load.finish()
    assert (outcome.outcome, outcome.serving) == (Phase.REVERTED, serving.images["v1"])
    assert outcome.receipt["phases"]["watching"] > 3
    assert outcome.receipt["visitors"]["new"]["caught"] > 0, "the net caught what the dead one could not answer"
    assert [failure for failure in summary["failures"] if failure["method"] == "GET"] == []
    assert serving.get() == (200, "marker: v1\n")
    assert serving.containers() == {"blue": "running"}


def test_one_that_dies_while_it_is_watched_is_reverted(serving: Host) -> None:
    deployer = serving.deployer(watch=20.0)

    class Kills:
        def phase(self, deployment: Deployment, phase: Phase, detail: str) -> None:
            if phase == Phase.WATCHING:
                serving.engine.docker("kill", f"kf-{serving.service}-main-green")

        def finished(self, deployment: Deployment, outcome: Outcome) -> None:
            pass

    deployer.reporter = Kills()
    outcome = deployer.deploy(serving.order("v2"))
    assert (outcome.outcome, outcome.code) == (Phase.REVERTED, "died-after-switch")
    assert outcome.receipt["probes"]["failed"] == 0
    assert serving.get() == (200, "marker: v1\n")


def test_stop_first_with_a_new_one_that_fails_brings_the_old_one_back(serving: Host) -> None:
    settings = {"strategy": Strategy.STOP_FIRST, "env": {"MODE": "exit"}}
    outcome = serving.deployer().deploy(serving.order("v2", **settings))
    assert (outcome.outcome, outcome.code, outcome.serving) == (Phase.REVERTED, "exited", serving.images["v1"])
    assert serving.containers() == {"blue": "running"}
    assert serving.get() == (200, "marker: v1\n")
    assert outcome.receipt["maintenance"] > 0
    policy = serving.engine.docker(
        "container", "inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", f"kf-{serving.service}-main-blue"
    )
    assert policy == "unless-stopped"


def test_a_dead_nginx_fails_the_deploy_in_preflight_only_if_it_cannot_be_started(serving: Host) -> None:
    serving.nginx().stop()
    outcome = serving.deployer().deploy(serving.order("v2"))
    assert outcome.outcome == Phase.DONE
    assert serving.get() == (200, "marker: v2\n")


# --- canary -----------------------------------------------------------------------------------------------------------


class Steered(Told):
    """A reporter that does something when a step of a canary begins."""

    def __init__(self, then: Callable[[Deployment], None]) -> None:
        super().__init__()
        self.then = then
        self._threads: list[threading.Thread] = []

    def join(self) -> None:
        """Wait until everything is done."""
        for thread in self._threads:
            thread.join()

    def phase(self, deployment: Deployment, phase: Phase, detail: str) -> None:
        """Wait for nothing: a thread of its own asks, as visitors would, while the deployment goes on."""
        super().phase(deployment, phase, detail)
        if phase == Phase.CANARY:
            self._threads.append(threading.Thread(target=self.then, args=(deployment,)))
            self._threads[-1].start()


@pytest.mark.parametrize("word", ["continue", "abort"])
def test_a_canary_splits_visitors_by_its_percent_and_ends_as_people_say(serving: Host, word: str) -> None:
    deployer = serving.deployer()
    seen: list[str] = []

    def visit(deployment: Deployment) -> None:
        site = deployer.places.site(deployer.places.instance(serving.service, "main"))
        wait_until(lambda: (state := deployer.proxy.state(site)) is not None and state.canary == 25, 10, "the canary")
        for number in range(400):
            headers = {"Host": "shop.example.org", "User-Agent": f"visitor {number}"}
            seen.append(get("127.0.0.1", serving.port, "/", headers, timeout=5).body.decode())
        deployer.wishes.put(deployment.id, Wish(word, 25, "bo"))

    deployer.reporter = reporter = Steered(visit)
    outcome = deployer.deploy(serving.order("v2", canary=(25,), canary_hold=60))
    reporter.join()
    share = seen.count("marker: v2\n") / len(seen)
    assert set(seen) == {"marker: v1\n", "marker: v2\n"}
    assert 0.15 < share < 0.35
    counted = outcome.receipt["visitors"]
    assert counted["new"] == {"requests": seen.count("marker: v2\n"), "errors": 0, "caught": 0}
    assert counted["old"]["requests"] == seen.count("marker: v1\n")
    assert outcome.receipt["probes"]["failed"] == 0
    if word == "continue":
        assert (outcome.outcome, serving.get()) == (Phase.DONE, (200, "marker: v2\n"))
    else:
        assert (outcome.outcome, outcome.code) == (Phase.REVERTED, "canary-aborted")
        assert serving.get() == (200, "marker: v1\n")
        assert serving.containers() == {"blue": "running"}


def test_a_storm_in_the_canarys_share_is_put_back_before_the_others_meet_it(serving: Host) -> None:
    deployer = serving.deployer()
    site = deployer.places.site(deployer.places.instance(serving.service, "main"))

    def visit(_: Deployment) -> None:
        wait_until(lambda: (state := deployer.proxy.state(site)) is not None and state.canary == 50, 10, "the canary")
        for number in range(200):
            headers = {"Host": "shop.example.org", "User-Agent": f"visitor {number}"}
            get("127.0.0.1", serving.port, "/basket", headers, timeout=5)

    deployer.reporter = reporter = Steered(visit)
    outcome = deployer.deploy(serving.order("v2", canary=(50,), canary_hold=60, env={"MODE": "storm"}))
    reporter.join()
    assert (outcome.outcome, outcome.code) == (Phase.REVERTED, "visitors-failing")
    assert "switching" not in outcome.receipt["phases"]
    assert serving.get() == (200, "marker: v1\n")


# --- under load -------------------------------------------------------------------------------------------------------


def test_no_request_is_lost_in_deploys_under_keep_alive_clients_with_get_and_post(serving: Host, log_dir: Path) -> None:
    deployer = serving.deployer(watch=0.2)
    with Load(f"http://127.0.0.1:{serving.port}/", log_dir, host_header="shop.example.org") as load:
        for version in ("v2", "v3", "v1", "v2"):
            outcome = deployer.deploy(serving.order(version))
            assert outcome.outcome == Phase.DONE
            assert outcome.receipt["probes"]["failed"] == 0
        summary = load.finish()
    assert summary["failed"] == 0, summary["failures"]
    assert {mark["mark"] for mark in summary["marks"]} == {"v1", "v2", "v3"}
    assert summary["sent"] > 500


def test_no_request_is_lost_when_the_new_release_fails_under_load(serving: Host, log_dir: Path) -> None:
    deployer = serving.deployer(watch=1.0)
    with Load(f"http://127.0.0.1:{serving.port}/", log_dir, host_header="shop.example.org", clients=20) as load:
        for mode in ("exit", "sick"):
            settings = {"env": {"MODE": mode}, "health": Health(within=1.0)}
            assert deployer.deploy(serving.order("v2", **settings)).outcome == Phase.FAILED
        summary = load.finish()
    assert summary["failed"] == 0, summary["failures"]
    assert [mark["mark"] for mark in summary["marks"]] == ["v1"]


def test_a_slow_upload_across_a_deploy_reaches_an_application(serving: Host) -> None:
    """nginx chooses the slot when a request's head arrives; the upload may end long after that slot was retired."""
    import socket

    with socket.create_connection(("127.0.0.1", serving.port), 30) as visitor:
        visitor.sendall(
            b"POST / HTTP/1.1\r\nHost: shop.example.org\r\nContent-Length: 6\r\nConnection: close\r\n\r\nabc"
        )
        assert serving.deployer().deploy(serving.order("v2")).outcome == Phase.DONE
        wait_until(lambda: serving.containers()["blue"] == "exited", 5, "the old one's end")
        began = time.monotonic()
        visitor.sendall(b"def")
        answer = visitor.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert answer.endswith(b"abcdef")
    assert time.monotonic() - began < 4
