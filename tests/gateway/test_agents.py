"""Agents against a real server: who is let in, what is said once, what is repeated, and what a stranger cannot do."""

from __future__ import annotations

import base64
import itertools
import json
import secrets
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from keepflow.agent.acquaintance import meet
from keepflow.crypto import keys
from keepflow.crypto.keys import PrivateKey
from keepflow.wire import messages
from tests.gateway.conftest import Served
from tests.gateway.played import Link, Played, Turned, open_socket, token_for
from tests.processes import hook_headers, push_body
from tests.real.waiting import wait_until

_names = (f"agent-{number}" for number in itertools.count(1))


def _turned(link: Link) -> messages.Refused:
    with pytest.raises(Turned) as caught:
        link.shake_hands()
    said = caught.value.said
    assert isinstance(said, messages.Refused)
    return said


def _agent(served: Served, name: str) -> dict[str, Any]:
    return next(item for item in served.master.api("GET", "/agents").json["items"] if item["name"] == name)


def _start_run(served: Served, delivery: str) -> str:
    """Push, and return the API path of the run that was started."""
    body = push_body(sha=served.sha)
    reply = served.master.ask("POST", "/hooks/app", body, hook_headers(body, delivery))
    assert reply.status == 202
    path = f"/projects/app/deliveries/{reply.json['delivery']}"
    decision = wait_until(lambda: served.master.api("GET", path).json["decision"], 20, "the push is decided")
    assert decision["runs"], decision
    return f"/projects/app/runs/{decision['runs'][0]['run']}"


def _state(served: Served, run: str) -> str:
    return str(served.master.api("GET", run).json["state"])


# --- joining ---------------------------------------------------------------------------------------------------------


def test_p14_a_join_token_works_once_however_many_try(served: Served) -> None:
    name = next(_names)
    token = token_for(served.master, name)
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: Played(served.master, name).enrol(token), range(50)))
    assert sorted(reply.status for reply in replies)[0] == 200
    assert [reply.status for reply in replies].count(200) == 1
    assert {reply.status for reply in replies} == {200, 401}


def test_joining_needs_a_token_and_the_key_that_is_joined(served: Served) -> None:
    name = next(_names)
    assert Played(served.master, name).enrol("kf_join_made-up").status == 401
    token = token_for(served.master, name)
    honest = Played(served.master, name)
    body = {"token": token, "public_key": keys.generate().public.text, "proof": "eA==", "version": "x"}
    reply = served.master.ask("POST", "/agents/enrol", json.dumps(body).encode())
    assert reply.status == 401
    assert token not in reply.body.decode()
    assert honest.enrol(token).status == 200, "a refused try must not burn the token"


def test_the_master_shows_whoever_asks_that_it_holds_its_order_key(served: Served) -> None:
    met, again = meet(served.master.url), meet(served.master.url)
    key = PrivateKey.load(served.master.home / "order.key").public
    assert met.holds(key)
    assert met.key_id == key.key_id
    assert abs(met.ahead) < 5
    assert not replace(met, nonce=again.nonce).holds(key), "a proof is good for one question"
    assert not met.holds(keys.generate().public)


@pytest.mark.parametrize("query", ["", "?nonce=", "?nonce=abc", f"?nonce={'A' * 32}", f"?nonce={'a' * 33}", "?other=1"])
def test_the_master_signs_nothing_but_a_nonce(served: Served, query: str) -> None:
    assert served.master.get(f"/agents/proof{query}").status == 400
    assert served.master.ask("POST", "/agents/proof", b"").status == 405


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"token": 1}', b"x" * 20_000, b"[" * 9000])
def test_what_is_no_request_to_join_is_refused(served: Served, body: bytes) -> None:
    reply = served.master.ask("POST", "/agents/enrol", body)
    assert reply.status in (400, 413)


# --- the handshake ---------------------------------------------------------------------------------------------------


def test_an_agent_is_welcomed_by_the_key_it_pinned(served: Served) -> None:
    agent = Played.joined(served.master, next(_names))
    link = agent.link()
    assert link.welcome is not None
    assert link.welcome.agent == agent.name
    proof = base64.b64decode(link.welcome.proof)
    keys.PublicKey.parse(agent.order_key).verify(proof, messages.welcome_bytes(link.nonce, agent.name))
    wait_until(lambda: _agent(served, agent.name)["connected"], 10, "the agent is shown as connected")
    link.close()
    wait_until(lambda: not _agent(served, agent.name)["connected"], 10, "the agent is shown as gone")


def test_r40_an_unknown_key_is_turned_away_with_a_sentence(served: Served) -> None:
    refused = _turned(Link(Played(served.master, "stranger")))
    assert refused.code == "unknown-agent"
    assert refused.sentence


def test_a_signature_of_another_key_or_of_an_old_challenge_is_turned_away(served: Served) -> None:
    agent = Played.joined(served.master, next(_names))
    liar = Link(agent, signature="AAAA")
    assert _turned(liar).code == "bad-signature"
    first = Link(agent)
    challenge = first.hear()
    assert isinstance(challenge, messages.Challenge)
    hello = first.hello(challenge.nonce)
    replay = open_socket(served.master)
    replay.recv(10)
    replay.send(hello.model_dump_json())
    answer = messages.from_master.validate_json(replay.recv(10))
    assert isinstance(answer, messages.Refused)
    first.close()


@pytest.mark.parametrize("protocol", [(0, 0), (2, 9), (99, 99)])
def test_f28_an_agent_of_another_age_is_turned_away_and_told_so(served: Served, protocol: tuple[int, int]) -> None:
    refused = _turned(Link(Played.joined(served.master, next(_names)), protocol=protocol))
    assert refused.code == "protocol"
    assert "update" in refused.sentence


@pytest.mark.parametrize("first", ["", "{}", "[", '{"type": "heartbeat", "at": 1}', "x" * 100_000, '{"type": "no"}'])
def test_who_does_not_say_hello_first_is_turned_away(served: Served, first: str) -> None:
    opened = open_socket(served.master)
    opened.recv(10)
    opened.send(first)
    answer = messages.from_master.validate_json(opened.recv(10))
    assert isinstance(answer, messages.Refused)
    with pytest.raises(ConnectionClosed):
        opened.recv(10)


def test_t06_no_page_of_any_origin_may_open_the_link(served: Served) -> None:
    for origin in ("http://evil.example", served.master.url, "null", "http://127.0.0.1", "https://localhost"):
        with pytest.raises(InvalidStatus) as caught:
            open_socket(served.master, additional_headers={"Origin": origin})
        assert caught.value.response.status_code == 403


def test_a_revoked_agent_is_told_at_once_and_not_let_in_again(served: Served) -> None:
    agent = Played.joined(served.master, next(_names))
    link = agent.link()
    assert served.master.api("POST", f"/agents/{agent.name}/revoke").status == 200
    said = link.hear_end()
    assert isinstance(said[-1], messages.Refused)
    assert said[-1].code == "revoked"
    assert _turned(Link(agent)).code == "revoked"


def test_p15_a_second_live_session_of_one_key_blocks_both(served: Served) -> None:
    agent = Played.joined(served.master, next(_names))
    first = agent.link()
    stop = threading.Event()

    def lives() -> list[messages.FromMaster]:
        while not stop.wait(0.2):
            first.beat()
        return first.hear_end()

    with ThreadPoolExecutor(1) as pool:
        living = pool.submit(lives)
        refused = _turned(Link(agent))
        stop.set()
        said = living.result(20)
    assert refused.code == "cloned"
    assert isinstance(said[-1], messages.Refused)
    assert _turned(Link(agent)).code == "revoked"
    kinds = _event_kinds(served)
    assert "agent-cloned" in kinds


def test_an_agent_whose_earlier_link_died_in_silence_is_no_copy(served: Served) -> None:
    agent = Played.joined(served.master, next(_names))
    silent = agent.link()
    refused = _turned(Link(agent))
    assert refused.code == "busy"
    silent.socket.socket.shutdown(socket.SHUT_RDWR)
    silent.socket.socket.close()

    def again() -> Link:
        return agent.link()

    wait_until(again, 20, "the agent gets in once its dead link is gone").close()
    assert _agent(served, agent.name)["offline_why"] != "cloned"


def test_an_agent_that_was_restarted_is_in_again_at_once(served: Served) -> None:
    agent = Played.joined(served.master, next(_names))
    for _ in range(5):
        link = agent.link()
        link.beat()
        link.socket.socket.shutdown(socket.SHUT_RDWR)
    agent.link().close()


# --- a session -------------------------------------------------------------------------------------------------------


def test_an_order_is_repeated_on_every_session_until_it_is_received(served: Served) -> None:
    agent = Played.joined(served.master, next(_names))
    link = agent.link()
    run = _start_run(served, secrets.token_hex(6))
    first = link.hear_until(messages.Send)
    link.close()
    link = agent.link()
    assert link.take_order() == first
    assert isinstance(first.body, messages.RunJob)
    assert (first.body.sha, first.body.project) == (served.sha, "app")
    link.close()
    link = agent.link(running=(first.body.fence,))
    link.beat()
    assert isinstance(link.hear(), messages.Beat), "a received order must not come again"
    _finish(link, first.body.fence)
    wait_until(lambda: _state(served, run) == "succeeded", 10, "the run ends")
    link.close()


def test_reports_are_taken_once_and_in_order_however_often_they_are_said(served: Served) -> None:
    agent = Played.joined(served.master, next(_names))
    link = agent.link()
    run = _start_run(served, secrets.token_hex(6))
    fence = link.take_order().body.fence
    bodies: list[Any] = [messages.JobStarted(fence=fence, at=1)]
    for index in range(20):
        bodies.append(messages.StepStarted(fence=fence, index=index, name=f"step {index}", at=2, offset=0))
        bodies.append(messages.StepFinished(fence=fence, index=index, at=3, exit_code=0, offset=0))
    for _ in range(3):
        for number, body in enumerate(bodies, 1):
            link.report(body, number)
    agent.number = len(bodies)
    while link.hear_until(messages.Reported).number < len(bodies):
        continue
    steps = served.master.api("GET", run).json["jobs"][0]["attempts"][0]["steps"]
    assert [step["name"] for step in steps] == [f"step {index}" for index in range(20)]
    _finish(link, fence)
    wait_until(lambda: _state(served, run) == "succeeded", 10, "the run ends")
    link.close()


def test_p06_a_foreign_fence_changes_nothing(served: Served) -> None:
    owner = Played.joined(served.master, next(_names))
    held = owner.link()
    run = _start_run(served, secrets.token_hex(6))
    fence = held.take_order().body.fence
    held.report(messages.JobStarted(fence=fence, at=1))
    held.send_log(fence, 0, b"mine\n")
    assert held.hear_until(messages.LogAck).offset == 5
    before = served.master.api("GET", run).body
    stranger = Played.joined(served.master, next(_names))
    link = stranger.link()
    link.report(messages.StepStarted(fence=fence, index=0, name="stolen", at=1, offset=0))
    link.report(messages.JobFinished(fence=fence, at=1, state="failed", code="x", sentence="x"))
    link.report(messages.DeployFinished(fence=fence, deployment="x", at=1, outcome="done"))
    link.send_log(fence, 0, b"forged\n")
    link.send_log(fence, 5, b"forged\n")
    link.send_log(2**63 - 1, 0, b"forged\n")
    last = link.report(messages.JobStarted(fence=2**62, at=1))
    while link.hear_until(messages.Reported).number < last:
        continue
    assert served.master.api("GET", run).body == before
    assert served.master.api("GET", f"{run}/log").body == b"mine\n"
    wait_until(lambda: "stale-report" in _event_kinds(served), 10, "the attempt is written down")
    link.close()
    _finish(held, fence, log_bytes=5)
    held.close()


def test_log_bytes_are_acknowledged_when_stored_and_repeats_and_gaps_do_no_harm(served: Served) -> None:
    agent = Played.joined(served.master, next(_names))
    link = agent.link()
    run = _start_run(served, secrets.token_hex(6))
    fence = link.take_order().body.fence
    text = b"".join(b"line %d\n" % number for number in range(5000))
    pieces = [(start, text[start : start + 1000]) for start in range(0, len(text), 1000)]
    for start, piece in pieces[:20]:
        link.send_log(fence, start, piece)
    link.send_log(fence, 0, text[:3000])
    link.send_log(fence, 40_000, text[40_000:41_000])
    assert _acknowledged(link, 20_000) == 20_000
    link.close()
    link = agent.link(running=(fence,))
    assert link.welcome is not None
    assert link.welcome.acked_logs == {fence: 20_000}
    for start, piece in pieces[19:]:
        link.send_log(fence, start, piece)
    _acknowledged(link, len(text))
    assert served.master.api("GET", f"{run}/log").body == text
    _finish(link, fence, log_bytes=len(text))
    link.close()


def test_a_flood_of_log_is_taken_as_fast_as_the_disk_with_bounded_memory(served: Served) -> None:
    agent = Played.joined(served.master, next(_names))
    link = agent.link()
    _start_run(served, secrets.token_hex(6))
    fence = link.take_order().body.fence
    before, piece = served.master.rss(), b"x" * 199 + b"\n"
    frame = piece * 1300
    total = 400 * len(frame)

    def send() -> None:
        for number in range(400):
            link.send_log(fence, number * len(frame), frame)

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        _acknowledged(link, total, timeout=60)
        sending.result(60)
    assert served.master.rss() - before < 60 * 1024 * 1024
    _finish(link, fence, log_bytes=total)
    link.close()


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"short",
        messages.LOG_HEADER.pack(1, 0) + b"x" * (messages.LOG_FRAME_LIMIT + 1),
        messages.LOG_HEADER.pack(2**64 - 1, 0) + b"x",
        "{",
        '{"type": "report"}',
        '{"type": "report", "number": "x", "body": {}}',
        '{"type": "hello"}',
        "\u0000",
    ],
)
def test_a_frame_that_makes_no_sense_ends_the_session_and_nothing_else(served: Served, frame: bytes | str) -> None:
    agent = Played.joined(served.master, next(_names))
    link = agent.link()
    link.socket.send(frame)
    said = link.hear_end()
    assert isinstance(said[-1], messages.Farewell)
    assert served.master.get("/readyz").status == 200
    agent.link().close()


def test_a_message_only_newer_agents_know_is_passed_over(served: Served) -> None:
    link = Played.joined(served.master, next(_names)).link()
    link.socket.send('{"type": "of-the-future", "data": 1}')
    link.socket.send('{"type": "heartbeat", "at": 1, "of_the_future": 2}')
    assert isinstance(link.hear(), messages.Beat)
    link.close()


def test_a_frame_above_the_limit_closes_the_link(served: Served) -> None:
    link = Played.joined(served.master, next(_names)).link()
    link.socket.send("x" * (messages.FRAME_LIMIT + 1))
    with pytest.raises(ConnectionClosed):
        link.hear()


def test_p08_what_services_serve_reaches_the_database_by_heartbeat(served: Served) -> None:
    agent = Played.joined(served.master, next(_names))
    link = agent.link()
    for _ in range(3):
        link.beat(running=(), free_bytes=5)
        assert isinstance(link.hear(), messages.Beat)
    assert _agent(served, agent.name)["connected"]
    link.close()


def test_a_farewell_is_believed_and_remembered(served: Served) -> None:
    agent = Played.joined(served.master, next(_names))
    link = agent.link()
    link.say(messages.Farewell(sentence="the machine restarts"))
    wait_until(lambda: "restarts" in _agent(served, agent.name)["offline_why"], 10, "the farewell is remembered")


# --- helpers ---------------------------------------------------------------------------------------------------------


def _finish(link: Link, fence: int, log_bytes: int = 0) -> None:
    number = link.report(messages.JobFinished(fence=fence, at=9, state="succeeded", exit_code=0, log_bytes=log_bytes))
    while link.hear_until(messages.Reported).number < number:
        continue


def _acknowledged(link: Link, wanted: int, timeout: float = 20) -> int:
    offset = 0
    while offset < wanted:
        offset = link.hear_until(messages.LogAck, timeout).offset
    return offset


def _event_kinds(served: Served) -> set[str]:
    import sqlite3

    with sqlite3.connect(f"file:{served.master.home}/keepflow.db?mode=ro", uri=True) as conn:
        return {row[0] for row in conn.execute("SELECT kind FROM events")}
