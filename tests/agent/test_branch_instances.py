"""Instances of branches on a host: as many as its file allows, each with its own name, and gone without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keepflow import errors
from keepflow.agent.deployment import Deployment, ServicePolicy
from keepflow.agent.networks import Networks
from keepflow.agent.policy import Accepted, check
from keepflow.config.agent_file import load_agent
from keepflow.core import names
from keepflow.core.states import Phase
from tests.agent.deployed import V1, V2, Host, order
from tests.agent.orders import FILE, Court
from tests.agent.test_policy import refusal

MOST = 2


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host that takes two branches, with room for more networks."""
    policy = ServicePolicy(
        "shop", "shop/dev", server_name="*.dev.example.org", instances=(), most=MOST, watch=0.05, drain=0.5
    )
    made = Host(tmp_path, policy=policy)
    made.pool = made.pool.removesuffix("/28").rpartition(".")[0] + ".0/24"
    yield made
    made.target.close()


def wanted(instance: str, image: str = V1, **changes: Any) -> Deployment:
    made: Deployment = replace(order(image), instance=instance, **changes)
    return made


def test_nothing_stands_before_the_first_branch_is_deployed(host: Host) -> None:
    deployer = host.deployer()
    assert deployer.recover() == []
    assert deployer.instances("shop") == []
    assert deployer.serving("shop", "a-123456").identity is None
    assert deployer.instances("shop") == []


def test_r46_each_branch_has_its_own_containers_network_and_host_name(host: Host) -> None:
    deployer = host.deployer()
    for instance, image in (("a-111111", V1), ("b-222222", V2)):
        assert deployer.deploy(wanted(instance, image)).outcome is Phase.DONE
    assert deployer.instances("shop") == ["a-111111", "b-222222"]
    serving = {name: deployer.serving("shop", name).identity for name in deployer.instances("shop")}
    assert serving == {"a-111111": V1, "b-222222": V2}
    assert len(set(host.target.networks.values())) == 2
    policy = deployer.policies["shop"]
    assert policy.address("a-111111") == "http://a-111111.dev.example.org"


def test_one_more_than_the_host_allows_is_refused_with_the_reason(host: Host) -> None:
    deployer = host.deployer()
    for instance in ("a-111111", "b-222222"):
        deployer.deploy(wanted(instance))
    with pytest.raises(errors.Refused, match=r"allows 2 \(instances: 2\)") as caught:
        deployer.deploy(wanted("c-333333"))
    assert caught.value.code == "instances-full"
    assert deployer.deploy(wanted("a-111111", V2)).outcome is Phase.DONE


def test_r46_a_removed_instance_leaves_nothing_and_makes_room(host: Host) -> None:
    deployer = host.deployer()
    for instance in ("a-111111", "b-222222"):
        deployer.deploy(wanted(instance))
    outcome = deployer.deploy(wanted("a-111111", action="remove"))
    assert (outcome.outcome, outcome.code, outcome.serving) == (Phase.DONE, "removed", None)
    assert deployer.instances("shop") == ["b-222222"]
    assert {one.facts.labels[names.LABEL_INSTANCE] for one in host.target.containers.values()} == {"b-222222"}
    assert list(host.target.networks) == ["kf-shop-b-222222-net"]
    assert [tag for tag in host.target.tags if "a-111111" in tag] == []
    place = deployer.root / "instances" / "kf-shop-a-111111"
    assert not place.exists()
    assert Networks(deployer.root / "networks.json", host.pool).known("shop", "a-111111") is None
    assert deployer.tend() == []
    assert deployer.serving("shop", "b-222222").identity == V1
    assert deployer.deploy(wanted("c-333333")).outcome is Phase.DONE


def test_removing_what_is_not_there_is_fine_also_when_the_host_is_full(host: Host) -> None:
    deployer = host.deployer()
    for instance in ("a-111111", "b-222222"):
        deployer.deploy(wanted(instance))
    assert deployer.deploy(wanted("c-333333", action="remove")).outcome is Phase.DONE
    assert deployer.instances("shop") == ["a-111111", "b-222222"]


def test_a_removal_that_an_engine_interrupts_says_so_and_can_be_done_again(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(wanted("a-111111"))
    accepted = deployer.accept(wanted("a-111111", action="remove"))
    host.target.down = True
    outcome = deployer.carry_out(accepted)
    assert (outcome.outcome, outcome.code) == (Phase.FAILED, "engine-unreachable")
    host.target.down = False
    assert deployer.deploy(wanted("a-111111", action="remove")).outcome is Phase.DONE
    assert host.target.containers == {}


BRANCHES = FILE.replace("    volumes: [data]\n", "    volumes: [data]\n    instances: 2\n")


def test_a_host_takes_instances_only_where_its_file_says_so() -> None:
    plain, many = Court(), Court(file=load_agent(BRANCHES))
    assert refusal(plain.sign(plain.order(instance="a-111111")), plain) == "instance"
    assert isinstance(check(many.sign(many.order(instance="a-111111")), many.facts), Accepted)
    assert refusal(many.sign(many.order(instance="../x")), many) == "instance"


def test_what_is_no_branchs_instance_is_never_removed() -> None:
    plain, many = Court(), Court(file=load_agent(BRANCHES))
    assert refusal(plain.sign(plain.order(action="remove")), plain) == "not-removable"
    removal = many.order(action="remove", instance="a-111111", image={**many.order()["image"], "repository": "other"})
    assert isinstance(check(many.sign(removal), many.facts), Accepted)
    assert refusal(many.sign({**removal, "environment": "shop/test"}), many) == "environment"


@pytest.mark.parametrize(
    ("front", "instances", "code"),
    [
        ("'*.dev.example.org'", "", "needs-instances"),
        ("dev.example.org", "    instances: 20\n", "needs-pattern"),
        ("'*'", "    instances: 20\n", "bad-host"),
        ("'a.*.org'", "    instances: 20\n", "bad-host"),
        ("'*.*.org'", "    instances: 20\n", "bad-host"),
        ("'*.dev.example.org'", "    instances: 0\n", "out-of-range"),
    ],
)
def test_the_hosts_file_says_how_many_and_under_which_names(front: str, instances: str, code: str) -> None:
    text = FILE.replace("nginx: {mode: none}\n", "").replace(
        "    volumes: [data]\n", f"    front: {{server_name: {front}}}\n{instances}"
    )
    with pytest.raises(errors.ConfigError) as caught:
        load_agent(text)
    assert [problem.code for problem in caught.value.problems] == [code]
