"""The Docker engine as target, for real: what the engine would do by itself and keepflow must not let happen."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from keepflow.core import names
from keepflow.core.flows import Container, Volume
from keepflow.errors import DeployFailed, Unavailable
from keepflow.ports import RegistryLogin, SlotSpec
from keepflow.targets.docker import Docker
from keepflow.tools.failpoints import VARIABLE, Injected
from tests.real.engines import Engine
from tests.real.hosts import free_port, wait_until
from tests.real.parts import find, need
from tests.real.scripted import get

pytestmark = pytest.mark.real

SERVICE = f"dt{os.getpid()}"
MARK = {"keepflow.test": str(os.getpid())}
SUBNET = f"10.213.{100 + os.getpid() % 64}.0/28"
ADDRESS = SUBNET.replace(".0/28", ".2")


@pytest.fixture(scope="module")
def target(engine: Engine) -> Iterator[Docker]:
    """The engine, with the slot network of one instance."""
    docker = Docker(engine.host)
    docker.network(names.network(SERVICE, "main"), SUBNET, MARK)
    yield docker
    docker.close()
    engine.remove_labelled(f"keepflow.test={os.getpid()}")
    for volume in engine.docker("volume", "ls", "--quiet", "--filter", f"name=kf-{SERVICE}-").split():
        engine.docker("volume", "rm", volume)


@pytest.fixture(autouse=True)
def no_containers(target: Docker) -> Iterator[None]:
    """Leave no container behind."""
    yield
    for facts in target.mine(MARK):
        target.remove(facts.id)


@pytest.fixture
def spec(engine: Engine, base_images: dict[str, str]) -> SlotSpec:
    """A container that sleeps."""
    return SlotSpec(
        service=SERVICE,
        instance="main",
        slot="blue",
        address=ADDRESS,
        subnet=SUBNET,
        image_id=engine.docker("image", "inspect", "--format", "{{.Id}}", base_images["busybox"]),
        container=Container(args=("sleep", "600")),
        env={"PLAIN": "1", "ODD": "a=b 'c' \"d\" $HOME ${X} `id`\nsecond line ä", "EMPTY": ""},
        labels={
            **MARK,
            names.LABEL_SERVICE: SERVICE,
            names.LABEL_INSTANCE: "main",
            names.LABEL_SLOT: "blue",
            names.LABEL_DEPLOYMENT: "d1",
        },
    )


def inspected(engine: Engine, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(engine.docker("container", "inspect", name))
    return found[0]


def test_a_container_is_exactly_what_its_description_says(engine: Engine, target: Docker, spec: SlotSpec) -> None:
    volumes = (Volume("data", "/project/data"), Volume("log", "/project/log", shared=True))
    created = target.create(replace(spec, container=replace(spec.container, volumes=volumes)))
    target.start(created)
    seen = inspected(engine, created)
    host = seen["HostConfig"]
    assert seen["Name"] == f"/kf-{SERVICE}-main-blue"
    assert [line for line in seen["Config"]["Env"] if not line.startswith("PATH=")] == [
        f"{key}={value}" for key, value in spec.env.items()
    ]
    assert seen["Config"]["Cmd"] == ["sleep", "600"]
    assert host["Init"] is True
    assert host["RestartPolicy"]["Name"] == "no"
    assert {(mount["Name"], mount["Destination"]) for mount in seen["Mounts"]} == {
        (f"kf-{SERVICE}-main-data", "/project/data"),
        (f"kf-{SERVICE}-main-log", "/project/log"),
    }
    assert list(seen["NetworkSettings"]["Networks"]) == [f"kf-{SERVICE}-main-net"]
    assert seen["NetworkSettings"]["Networks"][f"kf-{SERVICE}-main-net"]["IPAddress"] == ADDRESS
    forbidden = (
        "Privileged",
        "Binds",
        "CapAdd",
        "Devices",
        "PidMode",
        "PortBindings",
        "PublishAllPorts",
        "SecurityOpt",
    )
    assert not any(host[key] for key in forbidden)
    assert host["IpcMode"] == "private"


def test_the_restart_policy_comes_with_persist_and_goes_with_stop(
    engine: Engine, target: Docker, spec: SlotSpec
) -> None:
    created = target.create(spec)
    target.start(created)
    target.persist(created)
    assert inspected(engine, created)["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    target.stop(created, 3)
    assert inspected(engine, created)["HostConfig"]["RestartPolicy"]["Name"] == "no"
    target.start(created)
    target.persist(created)
    assert inspected(engine, created)["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


def test_a_program_that_ignores_sigterm_is_ended_after_its_grace(target: Docker, spec: SlotSpec) -> None:
    deaf = Container(args=("sh", "-c", "trap '' TERM; echo ready; while true; do sleep 0.1; done"))
    created = target.create(replace(spec, container=deaf))
    target.start(created)
    wait_until(lambda: "ready" in target.tail(created, 5), 10, "the program's first word")
    target.stop(created, 0.5)
    facts = target.inspect(created)
    assert facts is not None
    assert (facts.running, facts.exit_code) == (False, 137)


def test_a_container_that_ends_tells_its_code_and_last_words(target: Docker, spec: SlotSpec) -> None:
    said = "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; printf '\\377 no newline'; exit 9"
    created = target.create(replace(spec, container=Container(args=("sh", "-c", said))))
    target.start(created)
    facts = wait_until(
        lambda: (seen := target.inspect(created)) and not seen.running and seen, 20, "the end of the container"
    )
    assert facts.exit_code == 9
    tail = target.tail(created, 3)
    assert tail.splitlines()[0] == "line 4998"
    assert tail.endswith("\ufffd no newline")
    assert len(target.tail(created, 5000).encode()) <= 64 * 1024


def test_a_program_that_is_not_there_is_a_start_failure_in_the_engines_words(target: Docker, spec: SlotSpec) -> None:
    created = target.create(replace(spec, container=Container(args=("/no/such/program",))))
    target.start(created)  # the init starts; the program is its child
    wait_until(lambda: (seen := target.inspect(created)) and seen.exit_code == 127, 10, "exit code 127")
    assert "/no/such/program" in target.tail(created, 5)


def test_an_address_somebody_else_has_is_said_with_the_holders_name(
    engine: Engine, target: Docker, spec: SlotSpec, base_images: dict[str, str]
) -> None:
    squatter = f"kft-squatter-{os.getpid()}"
    engine.docker(
        "run", "--detach", "--name", squatter, "--label", f"keepflow.test={os.getpid()}", "--network",
        names.network(SERVICE, "main"), "--ip", ADDRESS, base_images["busybox"], "sleep", "600",
    )  # fmt: skip
    created = target.create(spec)
    with pytest.raises(DeployFailed, match=squatter) as failed:
        target.start(created)
    assert failed.value.code == "address-in-use"


def test_a_missing_image_is_said_as_that(target: Docker, spec: SlotSpec) -> None:
    with pytest.raises(DeployFailed) as failed:
        target.create(replace(spec, image_id="sha256:" + "0" * 64))
    assert failed.value.code == "image-missing"


def test_a_container_of_a_stranger_is_left_alone(
    engine: Engine, target: Docker, spec: SlotSpec, base_images: Any
) -> None:
    name = f"kf-{SERVICE}-main-blue"
    engine.docker("create", "--name", name, "--label", f"keepflow.test={os.getpid()}", base_images["busybox"], "true")
    before = inspected(engine, name)["Id"]
    with pytest.raises(DeployFailed) as failed:
        target.create(spec)
    assert failed.value.code == "foreign-container"
    assert inspected(engine, name)["Id"] == before


def test_a_container_of_an_earlier_deployment_is_set_aside(target: Docker, spec: SlotSpec) -> None:
    first = target.create(spec)
    target.start(first)
    target.stop(first, 1)
    second = target.create(replace(spec, labels={**spec.labels, names.LABEL_DEPLOYMENT: "d2"}))
    target.start(second)
    named = {one.id: one.name for one in target.mine(MARK)}
    assert named == {first: f"kf-{SERVICE}-main-blue-aside-{first[:12]}", second: f"kf-{SERVICE}-main-blue"}


def test_f06_an_answer_that_was_lost_leaves_no_second_container(
    target: Docker, spec: SlotSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "docker.after-create=raise")
    with pytest.raises(Injected):
        target.create(spec)
    monkeypatch.delenv(VARIABLE)
    (left,) = target.mine(MARK)
    assert target.create(spec) == left.id


def test_a_subnet_that_is_taken_is_said_with_the_networks_name(target: Docker) -> None:
    with pytest.raises(DeployFailed, match=f"kf-{SERVICE}-main-net") as refused:
        target.network(f"kf-{SERVICE}-other-net", SUBNET, MARK)
    assert refused.value.code == "network-overlap"


def test_f07_an_engine_that_is_away_is_unavailable_never_an_answer(tmp_path: Path) -> None:
    away = Docker(f"unix://{tmp_path}/nobody.sock")
    for ask in (away.ping, lambda: away.inspect("x"), lambda: away.image("x"), lambda: away.stop("x", 1)):
        with pytest.raises(Unavailable) as unavailable:
            ask()
        assert unavailable.value.code == "engine-unreachable"


# --- images and a registry --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pushed:
    """An image in a registry that wants a login."""

    repository: str
    digest: str
    login: RegistryLogin

    @property
    def reference(self) -> str:
        return f"{self.repository}@{self.digest}"


@pytest.fixture
def pushed(engine: Engine, base_images: dict[str, str], tmp_path: Path) -> Iterator[Pushed]:
    """A small image, pushed and gone from the engine."""
    need("docker-registry")
    address = f"localhost:{free_port()}"
    password = "pull-password"
    (tmp_path / "users").write_text(f"pull:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4, b'2b')).decode()}\n")
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/data}}}}\n"
        f"http: {{addr: '{address.replace('localhost', '127.0.0.1')}'}}\n"
        f"auth: {{htpasswd: {{realm: test, path: {tmp_path}/users}}}}\n"
    )
    registry = subprocess.Popen(
        [find("docker-registry") or "", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        basic = "Basic " + base64.b64encode(f"pull:{password}".encode()).decode()
        wait_until(lambda: get(f"http://{address}/v2/", Authorization=basic).status == 200, 10, "the registry")
        tag = f"{address}/shop:1"
        (tmp_path / "Dockerfile").write_text(
            f"FROM {base_images['busybox']}\nLABEL test={os.getpid()}-{tmp_path.name}\n"
        )
        engine.docker("build", "--quiet", "--tag", tag, str(tmp_path))
        docker_config = tmp_path / "docker"
        docker_config.mkdir()
        env = {**engine.env, "DOCKER_CONFIG": str(docker_config)}
        subprocess.run(
            ["docker", "login", "--username", "pull", "--password-stdin", address],
            input=password, text=True, env=env, check=True, capture_output=True,
        )  # fmt: skip
        subprocess.run(["docker", "push", tag], env=env, check=True, capture_output=True)
        digest = engine.docker("image", "inspect", "--format", "{{index .RepoDigests 0}}", tag).partition("@")[2]
        engine.docker("image", "rm", tag)
        yield Pushed(f"{address}/shop", digest, RegistryLogin(address, "pull", password))
    finally:
        registry.terminate()
        registry.wait()
        for image in engine.docker("image", "ls", "--quiet", "--filter", f"reference={address}/shop").split():
            engine.attempt("image", "rm", "--force", image)


def test_a_pull_brings_exactly_the_digest_with_the_given_login(engine: Engine, target: Docker, pushed: Pushed) -> None:
    said: list[str] = []
    assert target.image(pushed.reference) is None
    facts = target.pull(pushed.repository, pushed.digest, pushed.login, said.append)
    assert pushed.reference in facts.repo_digests
    assert target.image(pushed.reference) == facts
    engine.docker("image", "rm", pushed.reference)


@pytest.mark.parametrize("login", [None, RegistryLogin("x", "pull", "wrong")])
def test_a_pull_without_the_right_login_fails_and_says_so(
    target: Docker, pushed: Pushed, login: RegistryLogin | None
) -> None:
    with pytest.raises(DeployFailed, match=r"auth|denied") as failed:
        target.pull(pushed.repository, pushed.digest, login, lambda _: None)
    assert failed.value.code == "pull-failed"
    assert target.image(pushed.reference) is None


def test_a_digest_the_registry_does_not_have_is_missing(target: Docker, pushed: Pushed) -> None:
    with pytest.raises(DeployFailed) as failed:
        target.pull(pushed.repository, "sha256:" + "0" * 64, pushed.login, lambda _: None)
    assert failed.value.code == "image-missing"


def test_a_kept_image_survives_a_prune_by_others_and_goes_when_it_is_dropped(
    engine: Engine, target: Docker, pushed: Pushed
) -> None:
    """The prune is what a host's cron runs; the filter keeps it away from the images of other tests."""
    image = target.pull(pushed.repository, pushed.digest, pushed.login, lambda _: None).image_id
    tag = names.keep_tag(SERVICE, "main", pushed.digest)
    target.keep(image, tag)
    label = engine.docker("image", "inspect", "--format", '{{index .Config.Labels "test"}}', image)
    engine.docker("image", "prune", "--force", "--filter", f"label=test={label}")
    assert target.image(pushed.reference) is not None
    target.drop(tag)
    assert target.image(image) is None
    target.drop(tag)
