"""Going back on the host itself with a real engine and nginx: hot and cold, with nobody else awake."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from keepflow.agent.deployment import Deployment
from keepflow.agent.state import Identity, State
from keepflow.core.states import Phase
from keepflow.crypto import keys
from keepflow.tools.http_get import get
from tests.real.deploying import LABEL, Host, image_tag
from tests.real.engines import Engine
from tests.real.load_process import ROOT, Load
from tests.real.parts import find, need
from tests.real.waiting import free_port, wait_until

pytestmark = pytest.mark.real


@pytest.fixture
def host(engine: Engine, releases: dict[str, str]) -> Iterator[Host]:
    """A host with the file and the identity of an agent that does not run."""
    made = Host.fresh(engine, releases)
    state = State(made.root / "agent")
    state.claim()
    state.save_identity(Identity("test", "https://master.invalid", (keys.generate().public,)))
    state.release()
    (made.root / "agent.yml").write_text(
        f"master: https://master.invalid\ncapabilities: [deploy]\ndocker: {{host: '{engine.host}'}}\n"
        f"networks: {made.pool}\nnginx: {{mode: own, binary: {find('nginx')}}}\nservices:\n  {made.service}:\n"
        f"    environment: shop/test\n    images: [shop]\n    volumes: [data]\n    watch: 300ms\n    hot: 60s\n"
        f"    front: {{server_name: shop.example.org, listen: '127.0.0.1:{made.port}'}}\n"
    )
    try:
        yield made
    finally:
        for slot in ("blue", "green"):
            engine.attempt("rm", "--force", f"kf-{made.service}-main-{slot}")
        made.clean()


def typed(host: Host, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Type a verb of `keepflow agent` on the host."""
    verb, *more = arguments
    argv = [sys.executable, "-m", "keepflow.cli.main", "agent", verb, host.service, *more]
    where = ["--config", str(host.root / "agent.yml"), "--state", str(host.root / "agent")]
    return subprocess.run([*argv, *where], cwd=ROOT, capture_output=True, text=True, timeout=120)


def listed(host: Host) -> list[tuple[str, str]]:
    """Return what `keepflow agent history` says: state and identity."""
    done = typed(host, "history", "-o", "json")
    assert done.returncode == 0, done.stderr
    return [(one["state"], one["identity"]) for one in json.loads(done.stdout)]


@pytest.mark.parametrize(("hot", "state", "started"), [(60.0, "hot", 0), (0.0, "cold", 1)])
def test_a_person_goes_back_without_master_registry_and_agent(host: Host, hot: float, state: str, started: int) -> None:
    deployer = host.deployer(hot=hot)
    deployer.deploy(host.order("v1"))
    deployer.deploy(host.order("v2"))
    before = containers(host)
    assert listed(host) == [("serves", host.images["v2"]), (state, host.images["v1"])]
    done = typed(host, "rollback")
    assert done.returncode == 0, done.stderr
    assert host.get() == (200, "marker: v1\n")
    assert "the agent does not run; the master hears of this when it does" in done.stderr
    assert len(containers(host) - before) == started
    again = typed(host, "rollback")
    assert again.returncode == 7
    assert "was itself rolled back to" in again.stderr
    host.told.outcomes.clear()
    host.deployer().recover()
    assert [outcome.serving for _, outcome in host.told.outcomes] == [host.images["v1"]]


def containers(host: Host) -> set[str]:
    """Return the ids of this instance's containers."""
    return set(host.engine.docker("ps", "--all", "--quiet", "--filter", f"name=kf-{host.service}-main").split())


def test_a_person_puts_the_maintenance_page_up_and_looks_behind_it(host: Host) -> None:
    deployer = host.deployer()
    assert typed(host, "maintenance", "on").returncode == 7, "nothing to look at behind it yet"
    deployer.deploy(host.order("v1"))
    done = typed(host, "maintenance", "on")
    assert done.returncode == 0, done.stderr
    link = done.stdout.strip()
    assert link.startswith(f"http://shop.example.org:{host.port}/__keepflow/bypass/")
    assert host.get()[0] == 503
    named = {"Host": "shop.example.org"}
    answer = get("127.0.0.1", host.port, "/" + link.split("/", 3)[3], named, timeout=5)
    assert (answer.status, answer.headers["location"]) == (302, "/")
    cookie = answer.headers["set-cookie"].partition(";")[0]
    behind = get("127.0.0.1", host.port, "/", {**named, "Cookie": cookie}, timeout=5)
    assert behind.body == b"marker: v1\n"
    refused = deployer.deploy(host.order("v2"))
    assert (refused.outcome, refused.code) == (Phase.FAILED, "maintenance-page")
    assert host.get()[0] == 503, "the page a person put up stays up"
    assert typed(host, "maintenance", "off").returncode == 0
    assert host.get() == (200, "marker: v1\n")
    assert deployer.deploy(host.order("v2")).outcome == Phase.DONE


def test_a_rollback_typed_in_the_middle_of_a_deploy_waits_for_its_end(host: Host) -> None:
    deployer = host.deployer(hot=60.0, watch=3.0)
    deployer.deploy(host.order("v1"))
    under_way = deployer.accept(host.order("v2"))
    argv = [sys.executable, "-m", "keepflow.cli.main", "agent", "rollback", host.service]
    where = ["--config", str(host.root / "agent.yml"), "--state", str(host.root / "agent")]
    with subprocess.Popen([*argv, *where], cwd=ROOT, stderr=subprocess.PIPE, text=True) as person:
        assert person.stderr is not None
        assert "this one waits up to" in person.stderr.readline()
        assert deployer.carry_out(under_way).outcome == Phase.DONE
        person.stderr.read()
    assert person.returncode == 0
    assert host.get() == (200, "marker: v1\n")


# --- from a registry --------------------------------------------------------------------------------------------------


@pytest.fixture
def pulled(host: Host, tmp_path: Path) -> Iterator[dict[str, Deployment]]:
    """Orders for v1 and v2 by digest, with a registry that is gone when both have served."""
    need("docker-registry")
    port = free_port()
    address = f"127.0.0.1:{port}"
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/data}}}}\n"
        f"http: {{addr: '{address}'}}\n"
    )
    registry = subprocess.Popen(
        [find("docker-registry") or "", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    made: dict[str, Deployment] = {}
    try:
        wait_until(
            lambda: get("127.0.0.1", port, "/v2/", {"Host": address}, timeout=2).status == 200, 10, "the registry"
        )
        for version in ("v1", "v2"):
            name = f"{address}/shop:{version}"
            host.engine.docker("tag", image_tag(version), name)
            host.engine.docker("push", name)
            digest = host.engine.docker("image", "inspect", "--format", "{{index .RepoDigests 0}}", name).partition(
                "@"
            )[2]
            host.engine.docker("image", "rm", name, image_tag(version))
            order = replace(host.order(version), origin="registry", repository=f"{address}/shop", digest=digest)
            made[version] = order
            assert host.deployer().deploy(order).outcome == Phase.DONE
    finally:
        registry.terminate()
        registry.wait()
    try:
        yield made
    finally:
        for version in made:
            host.engine.docker("tag", host.images[version], image_tag(version))


def test_after_docker_image_prune_and_without_the_registry_a_rollback_works(
    host: Host, pulled: dict[str, Deployment]
) -> None:
    host.engine.docker("image", "prune", "--force", "--filter", f"label={LABEL}.image")
    assert listed(host)[1] == ("cold", pulled["v1"].digest)
    done = typed(host, "rollback")
    assert done.returncode == 0, done.stderr
    assert host.get() == (200, "marker: v1\n")


# --- by hand, behind the back of keepflow ----------------------------------------------------------------------------


def test_a_container_replaced_by_hand_is_seen_at_the_next_look_and_restored(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(host.order("v1"))
    name, network = f"kf-{host.service}-main-blue", f"kf-{host.service}-main-net"
    where = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
    address = host.engine.docker("inspect", "--format", where, name)
    assert deployer.serving(host.service).differences == ()
    host.engine.docker("rm", "--force", name)
    argv = ("run", "--detach", "--name", f"{name}-mine", "--label", f"{LABEL}={host.service}", "--network", network)
    host.engine.docker(*argv, "--ip", address, host.images["v2"])
    wait_until(lambda: host.get() == (200, "marker: v2\n"), 10, "the stranger answering")
    seen = deployer.serving(host.service)
    assert (seen.ours, seen.image_id) == (False, host.images["v2"])
    assert {one.what for one in seen.differences} == {"container", "image"}
    assert deployer.deploy(host.order("v1")).outcome == Phase.DONE
    assert host.get() == (200, "marker: v1\n")
    assert deployer.serving(host.service).differences == ()


def test_a_rehearsal_is_seen_by_no_visitor_and_the_promote_after_it_is_as_ever(host: Host, tmp_path: Path) -> None:
    deployer = host.deployer()
    deployer.deploy(host.order("v1"))
    with Load(f"http://127.0.0.1:{host.port}/", tmp_path, host_header="shop.example.org") as load:
        rehearsed = deployer.deploy(host.order("v2", action="rehearse"))
        visitors = load.finish()
    assert (rehearsed.outcome, rehearsed.serving) == (Phase.DONE, host.images["v1"])
    assert (visitors["failed"], [mark["mark"] for mark in visitors["marks"]]) == (0, ["v1"])
    assert host.containers() == {"blue": "running"}
    assert deployer.deploy(host.order("v2")).outcome == Phase.DONE
    assert host.get() == (200, "marker: v2\n")
