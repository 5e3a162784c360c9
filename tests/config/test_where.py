"""`image:` and `services:` of flows, jobs and steps: what may be said, and every mistake at its place."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from keepflow.config.agent_file import load_agent
from keepflow.config.flow_file import load_flow
from keepflow.config.where import Where
from keepflow.core.planning import plan, plan_from_json, plan_to_json
from keepflow.errors import ConfigError
from keepflow.ports import discover
from tests.config.problems import places

KINDS: dict[str, ModuleType] = discover("keepflow.steps")


def flow(rest: str) -> str:
    return f"flows:\n  dev:\n    on: push\n{rest}"


def planned(text: str) -> list[dict[str, Any]]:
    """Return where each job of the flow runs, as it is after it was stored."""
    read = load_flow(text, KINDS)
    made = plan(read.flows["dev"], read)
    assert plan_from_json(plan_to_json(made)) == made
    return [job.where for job in made.jobs]


def test_r34_a_flow_a_job_and_a_step_say_where_they_run_and_the_nearest_counts() -> None:
    text = flow(
        "    image: node:22\n"
        "    services: {db: 'postgres:16'}\n"
        "    jobs:\n"
        "      unit: {steps: [{run: make, image: {name: golang, at: /go/src/x}}]}\n"
        "      own: {image: 'python:3.12', services: {cache: redis}, steps: [{run: make}]}\n"
        "      out: {needs: unit, deploy: dev}\n"
    )
    assert planned(text) == [
        {"image": {"name": "node:22"}, "services": {"db": {"image": "postgres:16"}}},
        {"image": {"name": "python:3.12"}, "services": {"cache": {"image": "redis"}}},
        {},
    ]
    [step] = load_flow(text, KINDS).flows["dev"].jobs[0].job.steps
    assert step.where == {"image": {"name": "golang", "at": "/go/src/x"}}


def test_what_is_said_in_full_means_the_same_when_the_agent_reads_it() -> None:
    [where] = planned(
        flow(
            "    image: {name: 'node:22', memory: 1.5GB, cpus: 0.5, pids: 50}\n"
            "    services:\n"
            "      db: {image: postgres, env: {A: b}, command: [postgres, -c, x], memory: 512MiB,\n"
            "           ready: {port: 5432, http: /up, within: 2d1500ms}}\n"
            "    steps: [{run: make}]\n"
        )
    )
    read = Where.model_validate(where)
    assert read.image is not None
    assert (read.image.memory, read.image.cpus, read.image.pids) == (1_500_000_000, 0.5, 50)
    service = read.services["db"]
    assert (service.memory, service.command, service.env) == (512 * 2**20, ("postgres", "-c", "x"), {"A": "b"})
    assert service.ready is not None
    assert (service.ready.port, service.ready.http, service.ready.within) == (5432, "/up", 172_801.5)
    assert read.plain() == where


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("    image: 'Bad Image'", (4, 12, "bad-image")),
        ("    image: '${NO}/x'", (4, 12, "unknown-variable")),
        ("    image: {name: x, memor: 2GB}", (4, 22, "unknown-key")),
        ("    image: {name: x, privileged: true}", (4, 22, "unknown-key")),
        ("    image: {name: x, network: host}", (4, 22, "unknown-key")),
        ("    image: {name: x, volumes: ['/:/host']}", (4, 22, "unknown-key")),
        ("    image: {name: x, user: root}", (4, 22, "unknown-key")),
        ("    image: {name: x, at: ../x}", (4, 26, "bad-path")),
        ("    image: {name: x, memory: 2}", (4, 30, "bad-size")),
        ("    image: {name: x, cpus: 0}", (4, 28, "out-of-range")),
        ("    services: {DB: x}", (4, 16, "bad-name")),
        ("    services: {db: {}}", (4, 20, "missing")),
        ("    services: {db: {image: x, ready: {}}}", (4, 38, "bad-ready")),
        ("    services: {db: {image: x, ready: {http: /}}}", (4, 38, "bad-ready")),
        ("    services: {db: {image: x, ready: {port: 1, command: [a]}}}", (4, 38, "bad-ready")),
        ("    services: {db: {image: x, privileged: true}}", (4, 31, "unknown-key")),
        ("    services: {db: {image: x, env: {A: {}}}}", (4, 40, "wrong-type")),
    ],
)
def test_a_mistake_is_told_at_its_place(line: str, problem: tuple[int, int, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_flow(flow(f"{line}\n    steps: [{{run: make}}]\n"), KINDS)
    assert places(caught.value.problems) == [problem]


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ("[{run: make, imag: x}]", (4, 25, "unknown-key")),
        ("[{run: make, image: 'A B'}]", (4, 32, "bad-image")),
        ("[{build: ., image: x}]", (4, 24, "conflict")),
        ("[{build: ., ssh: mac-1}]", (4, 24, "conflict")),
        ("[{run: make, ssh: mac-1, image: x}]", (4, 13, "two-places")),
        ("[{run: make, ssh: Mac.Local}]", (4, 30, "bad-name")),
        ("[{run: make, ssh: mac-1}, {artifacts: dist/*}]", (4, 39, "left-there")),
        ("[{run: make}, {deploy: dev, image: x}]", (4, 40, "unknown-key")),
        ("[{run: make}, {deploy: dev, services: {db: x}}]", (4, 40, "unknown-key")),
    ],
)
def test_a_mistake_at_a_step_is_told_at_its_place(steps: str, problem: tuple[int, int, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_flow(flow(f"    steps: {steps}\n"), KINDS)
    assert places(caught.value.problems) == [problem]


@pytest.mark.parametrize(
    "steps",
    [
        "[{artifacts: dist/*}, {run: make, ssh: mac-1}]",
        "[{run: make}, {run: make, ssh: mac-1}, {artifacts: dist/*}]",
        "[{run: make, ssh: mac-1}, {run: make}, {artifacts: dist/*}]",
        "[{run: make, ssh: mac-1}, {deploy: dev}, {artifacts: dist/*}]",
    ],
)
def test_artifacts_are_left_there_only_where_nothing_else_can_have_made_them(steps: str) -> None:
    load_flow(flow(f"    steps: {steps}\n"), KINDS)


def test_a_deploy_of_a_graph_has_no_image() -> None:
    with pytest.raises(ConfigError) as caught:
        load_flow(
            flow("    jobs:\n      a: {steps: [{run: make}]}\n      b: {needs: a, deploy: dev, image: x}\n"), KINDS
        )
    assert places(caught.value.problems) == [(6, 34, "conflict")]


def test_an_agent_holds_an_order_against_the_same_rules() -> None:
    for where in (
        {"image": {"name": "x", "privileged": True}},
        {"services": {"../x": {"image": "x"}}},
        {"network": "host"},
    ):
        with pytest.raises(ValidationError):
            Where.model_validate(where)


@pytest.mark.parametrize(
    ("flows", "allowed"),
    [("[]", ""), ("shop", "shop/dev shop/test"), ("[shop/dev]", "shop/dev"), ("'*'", "shop/dev shop/test other/dev")],
)
def test_the_hosts_file_says_which_flows_have_containers(flows: str, allowed: str) -> None:
    agent = load_agent(f"master: https://ci.example.org\ncapabilities: [run]\ncontainers: {{for: {flows}}}\n")
    asked = ("shop/dev", "shop/test", "other/dev")
    assert [one for one in asked if agent.containers.allow(*one.split("/"))] == allowed.split()


def test_a_host_for_steps_is_said_in_the_hosts_file_with_its_key() -> None:
    head = "master: https://ci.example.org\ncapabilities: [run]\nssh:\n  mac-1:\n"
    said = "    address: mac.example.org\n    user: ci\n    key_file: mac.key\n    directory: /srv/ci\n    for: shop\n"
    [host] = load_agent(f"{head}{said}    host_key: ssh-ed25519 AAAAC3Nz\n").ssh.values()
    assert (host.port, host.allow("shop", "dev"), host.allow("other", "dev")) == (22, True, False)
    with pytest.raises(ConfigError) as caught:
        load_agent(f"{head}{said}    host_key: SHA256:abc\n")
    assert places(caught.value.problems) == [(10, 15, "bad-key")]
    with pytest.raises(ConfigError) as caught:
        load_agent(head + said)
    assert [problem.code for problem in caught.value.problems] == ["missing"], "a key is never taken unseen"


def test_a_flow_that_is_no_name_is_told_in_the_hosts_file() -> None:
    with pytest.raises(ConfigError) as caught:
        load_agent("master: https://ci.example.org\ncapabilities: [run]\ncontainers: {for: [shop/*]}\n")
    assert places(caught.value.problems) == [(3, 20, "bad-name")]
