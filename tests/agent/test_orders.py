"""Orders on a host: answered once, carried out once, one at a time per instance, taken up after a crash."""

from __future__ import annotations

import base64
import itertools
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from keepflow.agent.clock import Clock
from keepflow.agent.deployer import Deployer
from keepflow.agent.deployment import ServicePolicy
from keepflow.agent.held_secrets import HeldSecrets
from keepflow.agent.orders import DeployReports, Orders
from keepflow.agent.policy import Facts
from keepflow.agent.reports import Reports
from keepflow.core.flows import Container, Health
from keepflow.crypto import dsse, keys
from keepflow.errors import Unavailable
from keepflow.proxies.none import NoProxy
from keepflow.wire import messages
from keepflow.wire.deployment_receipt import PAYLOAD_TYPE, DeploymentReceipt
from keepflow.wire.messages import Deploy, DeployAnswer, DeployFinished, DeployPhase
from tests.agent.fakes import FakeTarget
from tests.agent.orders import V1, V2, V3, Court
from tests.real.waiting import wait_until

KEY = keys.generate()
Body = TypeVar("Body", DeployAnswer, DeployPhase, DeployFinished)
SICK = Container(port=8099, health=Health(within=0.3, interval=0.02), env={"MODE": "sick"}, stop_timeout=0.5)
_subnets = itertools.count(0, 16)


@dataclass
class Host:
    """A host that takes orders; `restart` is another process on the same disk."""

    root: Path
    court: Court = field(default_factory=lambda: Court(highest=0, serves=None))
    target: FakeTarget = field(default_factory=FakeTarget)
    pool: str = field(
        default_factory=lambda: f"127.{200 + os.getpid() % 50}.{(number := next(_subnets)) // 256}.{number % 256}/28"
    )
    broken: bool = False

    def __post_init__(self) -> None:
        for image in (V1, V2, V3):
            self.target.add_image(image)
        (self.root / "orders").mkdir()
        self.restart()

    def restart(self) -> None:
        self.reports = Reports(self.root / "reports")
        told = DeployReports(self.root / "adopted.json", self.reports, Clock(), "prod-1", KEY)
        self.ready, self.measured = threading.Event(), threading.Event()
        self.measured.set()
        self.deployer = Deployer(
            root=self.root / "agent",
            agent="prod-1",
            target=self.target,
            proxy=NoProxy(self.root / "sw"),
            policies={"shop": ServicePolicy("shop", "shop/production", volumes=("data",), watch=0.02, drain=0.2)},
            reporter=told,
            held=HeldSecrets(self.root / "agent/secrets", KEY.opening),
            pool=self.pool,
        )
        self.orders = Orders(
            self.root / "orders",
            self.root / "refused.log",
            deployer=self.deployer,
            reports=told,
            facts=self.facts,
            ready=self.ready,
            measured=self.measured,
        )

    def facts(self) -> Facts:
        if self.broken:
            raise Unavailable("the engine does not answer", code="engine-unreachable")
        journals = self.deployer.journals
        return replace(
            self.court.facts,
            known=lambda deployment: journals.find(deployment) is not None,
            highest_fence=journals.highest_fence,
            serving=lambda service, instance: self.deployer.serving(service, instance).identity,
        )

    def recover(self) -> None:
        self.deployer.recover()
        self.ready.set()
        self.orders.recover()

    def message(self, image: str = V1, **changes: Any) -> Deploy:
        fields = self.court.order(
            image={"origin": "local", "repository": "shop", "image_id": image, "digest": None}, **changes
        )
        return Deploy(fence=fields["fence"], deployment=fields["deployment"], envelope=self.court.sign(fields))

    def take(self, message: Deploy) -> None:
        self.orders.take(message)
        assert self.orders.wait_idle(20)

    def told(self, kind: type[Body], deployment: str) -> list[Body]:
        bodies = [messages.Report.model_validate_json(text).body for _, text in self.reports.after(0, 1000)]
        return [body for body in bodies if isinstance(body, kind) and body.deployment == deployment]

    @property
    def inbox(self) -> list[Path]:
        return list((self.root / "orders").glob("*.json"))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    made.recover()
    yield made
    made.orders.wait_idle(20)
    made.target.close()


def test_an_order_is_accepted_carried_out_and_told(host: Host) -> None:
    message = host.message()
    host.take(message)
    answers = host.told(DeployAnswer, message.deployment)
    assert [(answer.accepted, answer.fence) for answer in answers] == [(True, message.fence)]
    phases = [phase.phase for phase in host.told(DeployPhase, message.deployment)]
    assert phases[0] == "accepted"
    assert {"starting", "gating", "switching", "proving"} <= set(phases)
    ends = host.told(DeployFinished, message.deployment)
    assert [(end.outcome, end.serving) for end in ends] == [("done", V1)]
    assert host.deployer.serving("shop").identity == V1
    assert not host.inbox


def test_the_end_is_told_with_a_receipt_that_the_agents_key_signed(host: Host) -> None:
    message = host.message()
    host.take(message)
    (end,) = host.told(DeployFinished, message.deployment)
    assert end.envelope is not None
    payload = dsse.open_(end.envelope, PAYLOAD_TYPE, KEY.public)
    receipt = DeploymentReceipt.model_validate_json(payload, strict=True)
    assert (receipt.agent, receipt.deployment, receipt.fence) == ("prod-1", message.deployment, end.fence)
    assert (receipt.outcome, receipt.serving, receipt.evidence) == ("done", end.serving, end.receipt)
    assert receipt.approver == "ann"
    assert {"probes", "sockets", "visitors", "phases", "gate", "digest_before"} <= receipt.evidence.keys()


def test_the_same_order_again_is_answered_and_runs_once(host: Host) -> None:
    message = host.message()
    for _ in range(3):
        host.take(message)
    assert len([call for call in host.target.calls if call[0] == "start"]) == 1
    assert all(answer.accepted for answer in host.told(DeployAnswer, message.deployment))
    assert {end.outcome for end in host.told(DeployFinished, message.deployment)} == {"done"}


def test_a_deployment_asked_for_again_under_a_new_number_is_told_under_it(host: Host) -> None:
    first = host.message()
    host.take(first)
    again = host.message(deployment=first.deployment, nonce="another")
    host.take(again)
    assert [answer.fence for answer in host.told(DeployAnswer, first.deployment)] == [first.fence, again.fence]
    assert [end.fence for end in host.told(DeployFinished, first.deployment)] == [first.fence, again.fence]
    assert len([call for call in host.target.calls if call[0] == "start"]) == 1


def test_a_refused_order_is_answered_with_the_reason_and_written_down_on_the_host(host: Host) -> None:
    message = host.message(environment="shop/test")
    host.take(message)
    (answer,) = host.told(DeployAnswer, message.deployment)
    assert (answer.accepted, answer.code) == (False, "environment")
    assert "shop/production" in answer.sentence
    (line,) = (host.root / "refused.log").read_text().splitlines()
    assert json.loads(line).items() >= {"deployment": message.deployment, "code": "environment"}.items()
    assert not host.target.calls
    assert not host.inbox


def test_an_envelope_nobody_can_read_is_refused_too(host: Host) -> None:
    for number, envelope in enumerate(({}, {"payload": "!"}, {"payload": "e30="}, {"payload": 7, "signatures": "x"})):
        message = Deploy(fence=number, deployment=f"bad\x00-{number}/../..", envelope=envelope)
        host.take(message)
        assert [answer.code for answer in host.told(DeployAnswer, message.deployment)] == ["bad-signature"]


def test_an_older_order_that_comes_later_is_refused(host: Host) -> None:
    old, new = host.message(V1), host.message(V2)
    host.take(new)
    host.take(old)
    assert [answer.code for answer in host.told(DeployAnswer, old.deployment)] == ["stale-fence"]
    assert host.deployer.serving("shop").identity == V2


def test_orders_for_one_instance_run_one_after_the_other(host: Host) -> None:
    wanted = [host.message(image) for image in (V1, V2, V3)]
    for message in wanted:
        host.orders.take(message)
    assert host.orders.wait_idle(30)
    ends = [host.told(DeployFinished, message.deployment)[0].outcome for message in wanted]
    assert ends == ["done"] * 3
    assert host.deployer.serving("shop").identity == V3


def test_a_release_that_does_not_serve_is_told_with_its_last_words(host: Host) -> None:
    host.take(host.message(V1))
    bad = host.message(V2, container=SICK)
    host.take(bad)
    (end,) = host.told(DeployFinished, bad.deployment)
    assert (end.outcome, end.code, end.serving) == ("failed", "unhealthy", V1)
    assert "last words" in end.log_tail
    assert host.deployer.serving("shop").identity == V1


def test_an_order_is_kept_until_the_host_is_ready(host: Host) -> None:
    host.restart()
    message = host.message()
    host.orders.take(message)
    assert not host.orders.wait_idle(0.2)
    assert len(host.inbox) == 1
    host.ready.set()
    assert host.orders.wait_idle(20)
    assert [answer.accepted for answer in host.told(DeployAnswer, message.deployment)] == [True]


def test_an_order_that_was_not_answered_is_taken_up_by_the_next_process(host: Host) -> None:
    host.restart()
    message = host.message()
    host.orders.take(message)  # and then the process dies: nothing was ready yet
    host.restart()
    host.recover()
    assert host.orders.wait_idle(20)
    assert [answer.accepted for answer in host.told(DeployAnswer, message.deployment)] == [True]
    assert [end.outcome for end in host.told(DeployFinished, message.deployment)] == ["done"]


def test_a_process_that_dies_between_accepting_and_answering_answers_later(host: Host) -> None:
    message = host.message()
    host.ready.clear()
    host.restart()
    host.orders.take(message)
    verdict = host.deployer.accept(_deployment(host, message))  # the journal is written, and then the process dies
    verdict.instance.release()
    host.restart()
    host.recover()
    assert host.orders.wait_idle(20)
    assert all(answer.accepted for answer in host.told(DeployAnswer, message.deployment))
    ends = host.told(DeployFinished, message.deployment)
    assert {(end.outcome, end.code) for end in ends} == {("failed", "agent-restarted")}
    assert len([call for call in host.target.calls if call[0] == "start"]) == 0


def _deployment(host: Host, message: Deploy) -> Any:
    from keepflow.agent import policy

    verdict = policy.check(message.envelope, host.facts())
    assert isinstance(verdict, policy.Accepted)
    return verdict.deployment


def test_a_host_that_cannot_be_looked_at_begins_nothing(host: Host) -> None:
    host.broken = True
    message = host.message()
    host.take(message)
    (answer,) = host.told(DeployAnswer, message.deployment)
    assert (answer.accepted, answer.code) == (False, "engine-unreachable")
    assert not host.target.calls


def test_what_the_deployer_will_not_take_is_a_refusal(host: Host) -> None:
    message = host.message(deployment="../../etc/passwd")
    host.take(message)
    (answer,) = host.told(DeployAnswer, message.deployment)
    assert not answer.accepted
    assert not host.inbox


def test_reports_are_on_the_disk_when_the_deployer_goes_on(host: Host) -> None:
    message = host.message()
    host.take(message)
    again = Reports(host.root / "reports")
    assert len(again.after(0, 1000)) == len(host.reports.after(0, 1000))
    wait_until(lambda: not host.inbox, 5, "an empty inbox")


def test_an_order_left_from_before_waits_until_the_masters_hour_is_known(host: Host) -> None:
    host.restart()
    host.measured.clear()
    message = host.message()
    host.orders.take(message)
    host.recover()
    assert not host.orders.wait_idle(0.3)
    assert not host.told(DeployAnswer, message.deployment)
    host.measured.set()
    assert host.orders.wait_idle(20)
    assert [answer.accepted for answer in host.told(DeployAnswer, message.deployment)] == [True]


def test_deploy_f03_asked_again_after_a_lost_answer_it_tells_how_it_stands_and_runs_nothing_twice(host: Host) -> None:
    message = host.message()
    host.take(message)
    before = [container.id for container in host.target.mine({})]
    told = len(host.told(DeployPhase, message.deployment))
    host.restart()  # what was answered is lost on the way, and the agent is another process by now
    host.recover()
    host.take(message)
    answers = host.told(DeployAnswer, message.deployment)
    assert [(answer.accepted, answer.fence) for answer in answers] == [(True, message.fence)] * 2
    assert answers[1].sentence == "accepted before, now done"
    assert [end.outcome for end in host.told(DeployFinished, message.deployment)] == ["done", "done"]
    assert len(host.told(DeployPhase, message.deployment)) == told
    assert [container.id for container in host.target.mine({})] == before


def test_deploy_f03_asked_again_long_after_the_order_was_void_it_still_tells_how_it_stands(host: Host) -> None:
    message = host.message()
    host.take(message)
    host.court.now += 3600 * 1_000_000
    host.take(message)
    assert [answer.accepted for answer in host.told(DeployAnswer, message.deployment)] == [True, True]


def test_a_rollback_typed_on_the_host_is_reported_whole_with_who_typed_it(host: Host) -> None:
    first = host.message()
    host.take(first)
    host.take(host.message(V2))
    host.deployer.tells = False  # what the person's own process cannot do
    host.deployer.carry_out(host.deployer.accept_rollback("shop", "main", "", "host:ann"))
    host.deployer.tells = True
    assert host.deployer.settle_open() != []
    bodies = [messages.Report.model_validate_json(text).body for _, text in host.reports.after(0, 1000)]
    [told] = [body for body in bodies if isinstance(body, messages.HostRollback)]
    assert (told.by, told.service, told.image_id, told.outcome, told.serving) == ("host:ann", "shop", V1, "done", V1)
    assert told.description == first_description(first)
    assert set(told.receipt["phases"]) >= {"accepted", "gating", "switching"}
    assert told.asked_at <= told.at
    assert not [body for body in bodies if isinstance(body, DeployPhase) and body.deployment == told.deployment]


def first_description(message: Deploy) -> object:
    """Return the description inside an order."""
    return json.loads(base64.b64decode(message.envelope["payload"]))["description"]
