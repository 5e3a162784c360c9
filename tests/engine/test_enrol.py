"""Agents join, prove themselves, go silent, come back, are copied (P8, P14, P15, R74)."""

from __future__ import annotations

import base64
import threading
from dataclasses import replace
from typing import Any

import pytest

from keepflow import errors
from keepflow.core.states import State
from keepflow.crypto import keys
from keepflow.crypto.keys import PrivateKey
from keepflow.engine import enrol, sending
from keepflow.engine.enrol import JOIN_LIFE
from keepflow.engine.schedule import LOST_AFTER, SILENT_AFTER
from keepflow.store import agents, environments, events, jobs
from keepflow.wire import messages
from tests.engine.test_dispatch import flow, push
from tests.engine.world import PlayedAgent, World

SECOND = 1_000_000


def _asked(token: str, key: PrivateKey) -> messages.Enrol:
    proof = base64.b64encode(key.sign(token.encode())).decode()
    return messages.Enrol(token=token, public_key=key.public.text, proof=proof, version="1")


def _token(world: World, name: str = "prod-1") -> str:
    return str(world.call(lambda tx: enrol.make_join_token(tx, world.master, name, "ann", world.tick())))


def _enrol(world: World, asked: messages.Enrol) -> messages.Enrolled:
    return world.call(lambda tx: enrol.enrol(tx, world.master, asked, world.tick()))


def _hello(key: PrivateKey, challenge: str, **more: Any) -> messages.Hello:
    signature = base64.b64encode(key.sign(messages.hello_bytes(challenge, key.public.key_id, "own"))).decode()
    values = {"key_id": key.public.key_id, "signature": signature, "nonce": "own", "version": "1", **more}
    return messages.Hello(**values)


def test_p14_an_agent_joins_once_with_its_token_and_pins_the_masters_order_key(world: World) -> None:
    key, token = keys.generate(), _token(world)
    enrolled = _enrol(world, _asked(token, key))
    assert enrolled.agent == "prod-1"
    assert enrolled.order_key == world.master.order_key.public.text
    assert token.endswith(f".{world.master.order_key.public.key_id}")
    with pytest.raises(errors.AuthError) as caught:
        _enrol(world, _asked(token, keys.generate()))
    assert caught.value.code == "bad-token"


def test_p14_of_many_who_use_one_token_at_once_one_gets_in(world: World) -> None:
    token, won = _token(world), []

    def use() -> None:
        try:
            won.append(_enrol(world, _asked(token, keys.generate())))
        except errors.AuthError:
            return

    threads = [threading.Thread(target=use) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(won) == 1


def test_p14_an_old_token_a_wrong_proof_and_a_strange_key_do_not_get_in(world: World) -> None:
    key, token = keys.generate(), _token(world)
    with pytest.raises(errors.BadSignature):
        _enrol(world, _asked(token, key).model_copy(update={"public_key": keys.generate().public.text}))
    with pytest.raises(errors.UsageError):
        _enrol(world, _asked(token, key).model_copy(update={"public_key": "ssh-rsa AAAA"}))
    with pytest.raises(errors.AuthError):
        _enrol(world, _asked("kf_join_x.y", key))
    world.tick(JOIN_LIFE)
    with pytest.raises(errors.AuthError):
        _enrol(world, _asked(token, key))


def test_one_key_is_one_agent(world: World) -> None:
    key = keys.generate()
    _enrol(world, _asked(_token(world, "one"), key))
    with pytest.raises(errors.Refused) as caught:
        _enrol(world, _asked(_token(world, "two"), key))
    assert caught.value.code == "key-in-use"


def test_joining_anew_under_a_name_shuts_the_old_key_out(world: World) -> None:
    old, new = keys.generate(), keys.generate()
    _enrol(world, _asked(_token(world), old))
    _enrol(world, _asked(_token(world), new))
    with pytest.raises(errors.AuthError):
        enrol.greet(world.master, "c", _hello(old, "c"), world.tick())
    agent, _ = enrol.greet(world.master, "c", _hello(new, "c"), world.tick())
    assert agent.name == "prod-1"


def test_the_handshake_proves_both_sides(world: World) -> None:
    key = keys.generate()
    _enrol(world, _asked(_token(world), key))
    agent, welcome = enrol.greet(world.master, "nonce", _hello(key, "nonce"), world.tick())
    covered = messages.welcome_bytes("own", "prod-1")
    world.master.order_key.public.verify(base64.b64decode(welcome.proof), covered)
    assert (agent.name, welcome.agent, welcome.protocol) == ("prod-1", "prod-1", 1)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"signature": base64.b64encode(bytes(64)).decode()}, "bad-signature"),
        ({"signature": "not base64"}, "bad-signature"),
        ({"nonce": "other"}, "bad-signature"),
        ({"key_id": "sha256:" + "0" * 64}, "unknown-agent"),
        ({"protocol": (7, 9)}, "protocol"),
    ],
)
def test_cve_2026_50141_who_does_not_prove_its_key_is_nobody(world: World, change: dict[str, Any], code: str) -> None:
    key = keys.generate()
    _enrol(world, _asked(_token(world), key))
    with pytest.raises(errors.KeepflowError) as caught:
        enrol.greet(world.master, "nonce", _hello(key, "nonce").model_copy(update=change), world.tick())
    assert caught.value.code == code


def test_an_answer_to_another_challenge_is_a_replay(world: World) -> None:
    key = keys.generate()
    _enrol(world, _asked(_token(world), key))
    with pytest.raises(errors.BadSignature):
        enrol.greet(world.master, "today", _hello(key, "yesterday"), world.tick())


def test_p15_a_copied_agent_is_blocked_until_it_joins_anew(world: World) -> None:
    agent = world.agent("prod-1")
    world.call(lambda tx: enrol.cloned(tx, world.master, agent.id, world.tick()))
    with pytest.raises(errors.Denied) as caught:
        enrol.greet(world.master, "c", _hello(agent.key, "c"), world.tick())
    assert caught.value.code == "revoked"
    assert "two machines" in caught.value.message
    with world.read() as conn:
        assert "agent-cloned" in [found.kind for found in events.since(conn, 0, 100)]
    _enrol(world, _asked(_token(world), keys.generate()))
    with world.read() as conn:
        found = agents.by_name(conn, "prod-1")
    assert found is not None
    assert found.revoked_at is None


def test_a_revoked_agent_gets_no_job(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    world.call(lambda tx: enrol.revoke(tx, world.master, agent.id, "ann", world.tick()))
    push(world, project, repository, flow())
    assert agent.orders() == []
    assert world.run().state is State.WAITING


# --- silence ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def holder(world: World) -> tuple[PlayedAgent, messages.RunJob]:
    """An agent that runs the job of keepwork#1."""
    project, repository = world.project()
    agent = world.agent()
    push(world, project, repository, flow())
    [order] = agent.orders()
    agent.report(messages.JobStarted(fence=order.fence, at=1))
    return agent, order


def _look_around(world: World) -> None:
    world.call(lambda tx: enrol.silent(tx, world.master, world.now, SILENT_AFTER, LOST_AFTER))


def test_p08_a_silent_agents_job_says_so_and_is_lost_only_after_a_long_time(
    world: World, holder: tuple[PlayedAgent, messages.RunJob]
) -> None:
    agent, order = holder
    agent.leave()
    world.tick(61 * SECOND)
    _look_around(world)
    job = world.jobs()["steps"]
    assert (job.state, job.reason) == (State.RUNNING, "agent local silent for 61 s")
    agent.connect(running=(order.fence,))
    assert world.jobs()["steps"].reason == ""
    agent.leave()
    world.tick(601 * SECOND)
    _look_around(world)
    assert (world.run().state, world.run().reason_code) == (State.LOST, "lost")
    assert "601 s" in world.run().reason
    agent.connect(running=(order.fence,))
    agent.report(messages.StepStarted(fence=order.fence, index=0, name="x", at=1, offset=0))
    assert [body.code for body in agent.orders()] == ["stale-fence"]
    assert world.run().state is State.LOST


def test_p07_coming_and_going_changes_nothing_about_a_job_that_the_agent_still_holds(
    world: World, holder: tuple[PlayedAgent, messages.RunJob]
) -> None:
    agent, order = holder
    for _ in range(3):
        agent.leave()
        world.tick(30 * SECOND)
        _look_around(world)
        agent.connect(running=(order.fence,))
        assert (world.run().state, world.jobs()["steps"].reason) == (State.RUNNING, "")
    agent.finish(order)
    assert world.run().state is State.SUCCEEDED


def test_a_job_its_agent_does_not_know_any_more_is_lost(
    world: World, holder: tuple[PlayedAgent, messages.RunJob]
) -> None:
    agent, _ = holder
    agent.connect(running=())
    assert world.run().state is State.LOST
    assert "came back without it" in world.run().reason


def test_a_job_that_the_agent_never_got_is_sent_again(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    push(world, project, repository, flow())
    agent.connect(running=())
    assert world.run().state is State.RUNNING
    [order] = agent.orders()
    assert order.run == 1


def test_what_waits_is_repeated_until_it_is_on_the_agents_disk(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    push(world, project, repository, flow())
    with world.read() as conn:
        first = sending.waiting(conn, world.master, agent.id)
        again = sending.waiting(conn, world.master, agent.id)
        assert sending.waiting(conn, world.master, agent.id, after=first[-1].id) == []
    assert first == again
    other = world.agent("other", capabilities=())
    world.call(lambda tx: sending.received(tx, other.id, [first[0].id], world.tick()))
    assert agent.orders() == [first[0].body]
    assert agent.orders() == []


def test_heartbeats_show_what_serves_on_the_environment_bound_to_it(world: World) -> None:
    project, _ = world.project()
    agent = world.agent("prod-1", capabilities=("deploy",))
    world.environment(project, "production", [], hosts=("prod-1",))
    state = messages.ServiceState(service="keepwork-production", instance="main", environment="x", identity="sha256:1")
    beat = messages.Heartbeat(at=1, services=(state, state.model_copy(update={"service": "not-mine"})))
    stranger = world.agent("stranger")
    for who in (stranger, agent):
        world.call(lambda tx, who=who: enrol.heartbeat(tx, world.master, who.id, beat, world.tick(10 * SECOND)))
        with world.read() as conn:
            found = environments.by_name(conn, project.id, "production")
        assert found is not None
        assert (found.hosts[0].observed is not None) == (who is agent)
    with world.read() as conn:
        assert agents.by_id(conn, agent.id).last_seen_at == world.now
        assert jobs.holdings(conn) == []


def test_what_an_agent_says_of_itself_is_kept_without_its_proof(world: World) -> None:
    agent = world.agent("local", labels=("linux",), slots=3, warnings=("jobs run as the agent's own user",))
    with world.read() as conn:
        found = agents.by_id(conn, agent.id)
    assert (found.labels, found.slots, found.connected) == (("linux",), 3, True)
    assert found.hello is not None
    assert found.hello["warnings"] == ["jobs run as the agent's own user"]
    assert not {"signature", "nonce"} & set(found.hello)
    assert replace(found, hello=None).step_kinds == frozenset()
