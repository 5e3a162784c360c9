"""Receipts are made when something happens, once, about the digest it happened to, and never about what stays local."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from keepflow import errors
from keepflow.core.marks import Verdict
from keepflow.core.receipts import Base, Build, Result, Subject
from keepflow.crypto import dsse, keys
from keepflow.crypto import receipts as signed
from keepflow.crypto.receipts import Trust
from keepflow.engine import apply, evidence, marks, promoting
from keepflow.engine.apply import REGISTRIES
from keepflow.engine.guarding import Presser
from keepflow.store import deployments, environments, events, people, receipts, settings, tables
from keepflow.store.deployments import Deployment
from keepflow.store.projects import Project
from keepflow.store.receipts import StoredReceipt
from keepflow.wire import messages
from keepflow.wire.desired import DesiredRegistry
from keepflow.wire.orders import PAYLOAD_TYPE, DeployOrder
from tests.engine.test_dispatch import DIGEST, IMAGE, flow, push
from tests.engine.world import PlayedAgent, World

ADDRESS = "registry.example.org:5000"
PUSHED = messages.BuiltImage(
    origin="registry",
    reference=f"{ADDRESS}/keepwork:1",
    repository=f"{ADDRESS}/keepwork",
    image_id=IMAGE,
    digest=DIGEST,
)
BUILT = messages.BuiltImage(origin="local", reference="keepwork:1", repository="keepwork", image_id=IMAGE)
SUBJECT = Subject(f"{ADDRESS}/keepwork", DIGEST)


@pytest.fixture
def place(world: World) -> tuple[Project, Path]:
    """A project that may push to a registry and reaches its test environment."""
    project, repository = world.project()
    world.environment(project, "test", ["dev"])
    sealed = {"main": apply._sealed(world.master, "main", DesiredRegistry(address=ADDRESS))}
    world.call(lambda tx: settings.put(tx.conn, REGISTRIES, sealed))
    return project, repository


def found(world: World, project: Project, digest: str = DIGEST) -> list[StoredReceipt]:
    """List the receipts of a digest."""
    with world.read() as conn:
        return receipts.of_digest(conn, project.id, digest)


def said(world: World, stored: StoredReceipt) -> Build | Result:
    """Return what a receipt says, when the master signed it."""
    return signed.read(stored.envelope, SUBJECT, Trust((world.master.order_key.public,)))


def deployed(
    world: World, place: tuple[Project, Path], outcome: Any = "done", image: messages.BuiltImage = PUSHED
) -> tuple[PlayedAgent, Deployment]:
    """Let a push be built, pushed and deployed to the test environment."""
    agent = world.agent(capabilities=("run", "deploy"))
    push(world, *place, flow(steps="[{run: make}, {deploy: test}]"))
    [order] = agent.orders()
    agent.finish(order, images=(image,))
    [deploy] = agent.orders()
    facts = {"fence": deploy.fence, "deployment": deploy.deployment}
    agent.report(messages.DeployAnswer(**facts, at=1, accepted=True))
    agent.report(messages.DeployFinished(**facts, at=2, outcome=outcome, code="x", sentence="y", serving=None))
    with world.read() as conn:
        stored = deployments.by_id(conn, deploy.deployment)
    assert stored is not None
    return agent, stored


def test_a_pushed_release_gets_a_provenance_that_names_repository_commit_flow_and_run(
    world: World, place: tuple[Project, Path]
) -> None:
    agent = world.agent()
    sha = push(world, *place, flow())
    [order] = agent.orders()
    agent.finish(order, images=(PUSHED,))
    [stored] = found(world, place[0])
    assert (stored.kind, stored.made_by, stored.by_person) == ("provenance", "keepwork#1", False)
    built = said(world, stored)
    assert isinstance(built, Build)
    assert (built.repository, built.ref, built.flow, built.sha) == (place[0].repo, "refs/heads/dev", "dev", sha)
    assert built.run == "http://127.0.0.1:8080/projects/keepwork/runs/1"
    assert built.builder == f"http://127.0.0.1:8080#{world.master.order_key.public.key_id}"
    assert world.run().created_at <= built.started_at <= built.finished_at == stored.at


def test_a_provenance_names_the_image_that_was_built_on_and_nothing_that_is_no_digest(
    world: World, place: tuple[Project, Path]
) -> None:
    agent = world.agent()
    push(world, *place, flow())
    [order] = agent.orders()
    digest = "sha256:" + "e" * 64
    told = [("node", digest), ("node", "latest"), ("", digest), ("a\nb", digest)]
    bases = tuple(messages.BaseImage(reference=reference, digest=given) for reference, given in told)
    agent.finish(order, images=(PUSHED.model_copy(update={"bases": bases}),))
    [stored] = found(world, place[0])
    built = said(world, stored)
    assert isinstance(built, Build)
    assert built.bases == (Base("node", digest), Base("a b", digest))


def test_a_release_said_twice_has_one_provenance(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent()
    push(world, *place, flow())
    [order] = agent.orders()
    agent.finish(order, images=(PUSHED, PUSHED))
    assert len(found(world, place[0])) == 1


def test_what_no_registry_holds_gets_no_receipt(world: World, place: tuple[Project, Path]) -> None:
    _agent, deployment = deployed(world, place, image=BUILT)
    assert found(world, place[0], IMAGE) == []
    judged = world.call(
        lambda tx: evidence.add_test_result(
            tx, world.master, deployment, passed=True, person="ann", note="", now=world.tick()
        )
    )
    assert judged is None


def test_a_deployment_that_served_is_a_passed_test_of_its_run(world: World, place: tuple[Project, Path]) -> None:
    _agent, deployment = deployed(world, place)
    [_provenance, tested] = found(world, place[0])
    assert (tested.kind, tested.passed, tested.made_by, tested.by_person) == ("test-result", True, "keepwork#1", False)
    result = said(world, tested)
    assert isinstance(result, Result)
    assert (result.environment, result.deployment, result.person) == ("keepwork/test", deployment.id, "")
    assert result.run == "http://127.0.0.1:8080/projects/keepwork/runs/1"


@pytest.mark.parametrize("outcome", ["failed", "reverted", "unknown"])
def test_a_deployment_that_did_not_serve_is_no_test(world: World, place: tuple[Project, Path], outcome: str) -> None:
    deployed(world, place, outcome)
    assert [stored.kind for stored in found(world, place[0])] == ["provenance"]


def test_a_persons_word_is_kept_with_the_note_and_told(world: World, place: tuple[Project, Path]) -> None:
    _agent, deployment = deployed(world, place)
    world.call(
        lambda tx: evidence.add_test_result(
            tx, world.master, deployment, passed=False, person="ann", note="the cart is empty", now=world.tick()
        )
    )
    rejected = found(world, place[0])[-1]
    assert (rejected.passed, rejected.made_by, rejected.by_person) == (False, "ann", True)
    result = said(world, rejected)
    assert isinstance(result, Result)
    assert (result.passed, result.person, result.note, result.at) == (False, "ann", "the cart is empty", rejected.at)
    with world.read() as conn:
        told = [event for event in events.since(conn, 0, 1000) if event.kind == "receipt-made"]
    assert [event.data["kind"] for event in told] == ["provenance", "test-result", "test-result"]
    assert (told[-1].actor, told[-1].deployment_id) == ("ann", deployment.id)


PRESSER = Presser("bo", True, frozenset())


def production(world: World, project: Project) -> PlayedAgent:
    """Add a production that is promoted to from test, and its agent."""
    world.environment(project, "production", [], ("prod-1",), promote_from="test")
    return world.agent("prod-1", capabilities=("deploy",))


def promote(world: World) -> str:
    """Press the button."""
    place = {"project": "keepwork", "to": "production", "source": DIGEST}
    seen = promoting.look(world.master, **place)
    return str(
        world.call(
            lambda tx: promoting.promote(
                tx, world.master, **place, presser=PRESSER, said=promoting.Said(), seen=seen, now=world.tick()
            )
        )
    )


def judge(world: World, deployment: Deployment, passed: bool, person: str = "ann") -> None:
    """Let a person say what they saw."""
    world.call(
        lambda tx: evidence.add_test_result(
            tx, world.master, deployment, passed=passed, person=person, note="the cart is empty", now=world.tick()
        )
    )


def test_the_order_of_a_promote_carries_what_proves_its_release_and_an_agent_takes_it(
    world: World, place: tuple[Project, Path]
) -> None:
    local, deployment = deployed(world, place)
    judge(world, deployment, passed=False)
    judge(world, deployment, passed=True, person="bo")
    agent = production(world, place[0])
    promote(world)
    [sent] = agent.orders()
    order = DeployOrder.model_validate_json(
        dsse.open_(sent.envelope, PAYLOAD_TYPE, world.master.order_key.public), strict=True
    )
    assert order.evidence == "tested"
    said = [signed.read(envelope, SUBJECT, Trust((world.master.order_key.public,))) for envelope in order.receipts]
    assert [type(each) for each in said] == [Build, Result]
    assert isinstance(said[1], Result)
    assert (said[1].person, said[1].passed) == ("bo", True)
    assert local.orders() == []


def test_an_order_to_an_environment_that_nothing_is_promoted_to_asks_for_no_receipts(
    world: World, place: tuple[Project, Path]
) -> None:
    _agent, deployment = deployed(world, place)
    assert deployment.order is not None
    payload = dsse.open_(deployment.order, PAYLOAD_TYPE, world.master.order_key.public)
    assert DeployOrder.model_validate_json(payload).evidence == "none"


def test_no_promote_without_a_receipt_and_none_of_what_a_person_rejected(
    world: World, place: tuple[Project, Path]
) -> None:
    _agent, deployment = deployed(world, place)
    production(world, place[0])
    judge(world, deployment, passed=False)
    with pytest.raises(errors.Refused, match="ann rejected this digest in keepwork/test: the cart is empty") as caught:
        promote(world)
    assert caught.value.code == "receipt"
    world.call(lambda tx: tx.conn.execute(delete(tables.receipts)))
    with pytest.raises(errors.Refused, match="no receipt says which run built this digest"):
        promote(world)


def test_a_receipt_that_somebody_changed_in_the_database_stops_the_promote_and_is_named(
    world: World, place: tuple[Project, Path]
) -> None:
    deployed(world, place)
    production(world, place[0])
    [provenance, tested] = found(world, place[0])
    envelope = {**tested.envelope, "payload": provenance.envelope["payload"]}
    change = update(tables.receipts).where(tables.receipts.c.id == tested.id).values(envelope=envelope)
    world.call(lambda tx: tx.conn.execute(change))
    with pytest.raises(errors.Refused, match=f"receipt {tested.id} of this digest does not fit: signatures"):
        promote(world)


def test_where_persons_verify_a_runs_word_is_not_enough(world: World, place: tuple[Project, Path]) -> None:
    deployed(world, place)
    production(world, place[0])
    project = place[0].id
    world.call(lambda tx: environments.put(tx.conn, project, "production", world.tick(), {"verified_by": ["testers"]}))
    world.call(lambda tx: people.set_group(tx.conn, "testers", ["ann"], managed=False))
    with pytest.raises(errors.Refused, match="no person tested it"):
        promote(world)
    with world.read() as conn:
        test = environments.by_name(conn, project, "test")
    assert test is not None
    world.call(
        lambda tx: marks.mark(
            tx,
            world.master,
            test,
            verdict=Verdict.TESTED,
            person="ann",
            groups=frozenset({"testers"}),
            note="all of it",
            deployment=None,
            release_id=None,
            now=world.tick(),
        )
    )
    assert found(world, place[0])[-1].made_by == "ann", "the mark is a signed receipt, too"
    assert promote(world)


def test_a_digest_of_the_same_name_in_another_repository_proves_nothing_here(
    world: World, place: tuple[Project, Path]
) -> None:
    deployed(world, place)
    production(world, place[0])
    other = update(tables.receipts).values(repository=f"{ADDRESS}/other")
    world.call(lambda tx: tx.conn.execute(other))
    with pytest.raises(errors.Refused, match="no receipt says which run built this digest"):
        promote(world)


WITNESS, STRANGER = keys.generate(), keys.generate()


def countersign(world: World, project: Project, envelope: dict[str, Any], key: keys.PrivateKey = WITNESS) -> None:
    """Bring a receipt that somebody else signed, too."""
    world.call(
        lambda tx: evidence.countersign(tx, world.master, project, DIGEST, envelope, key.public, "cy", world.tick())
    )


def test_a_build_that_a_witness_signed_goes_into_orders_instead_of_the_masters_own(
    world: World, place: tuple[Project, Path]
) -> None:
    deployed(world, place)
    agent = production(world, place[0])
    [provenance, _tested] = found(world, place[0])
    countersign(world, place[0], dsse.countersign(provenance.envelope, WITNESS))
    promote(world)
    [sent] = agent.orders()
    order = DeployOrder.model_validate_json(dsse.open_(sent.envelope, PAYLOAD_TYPE, world.master.order_key.public))
    trust = Trust((world.master.order_key.public,), (WITNESS.public,))
    assert isinstance(signed.read(order.receipts[0], SUBJECT, trust), Build)
    with pytest.raises(errors.Refused):
        countersign(world, place[0], dsse.countersign(provenance.envelope, WITNESS))


def test_nothing_is_kept_that_the_master_did_not_say_or_the_witness_did_not_sign(
    world: World, place: tuple[Project, Path]
) -> None:
    deployed(world, place)
    [provenance, tested] = found(world, place[0])
    ours = provenance.envelope
    wrong = [
        ours,
        dsse.countersign(ours, STRANGER),
        dsse.countersign(tested.envelope, WITNESS),
        {**dsse.countersign(ours, WITNESS), "signatures": dsse.countersign(ours, WITNESS)["signatures"][1:]},
        {**dsse.countersign(ours, WITNESS), "payload": tested.envelope["payload"]},
        dsse.seal(b"{}", ours["payloadType"], world.master.order_key, WITNESS),
        {},
    ]
    for envelope in wrong:
        with pytest.raises((errors.BadReceipt, errors.NotFound)):
            countersign(world, place[0], envelope)
    with pytest.raises(errors.Refused):
        countersign(world, place[0], ours, world.master.order_key)
    assert len(found(world, place[0])) == 2
