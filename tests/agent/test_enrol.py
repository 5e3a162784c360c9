"""Joining: a token works once, at the master that made it, and what is pinned then is never widened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.agent import enrol
from keepflow.agent.enrol import JoinToken
from keepflow.agent.state import State
from keepflow.crypto import keys, tokens
from tests.fakes import FakeMaster, serve_master
from tests.real.waiting import free_port


@pytest.fixture
def master() -> Iterator[FakeMaster]:
    with serve_master() as found:
        yield found


@pytest.fixture
def state(tmp_path: Path) -> State:
    found = State(tmp_path / "agent")
    found.claim()
    return found


def test_joining_pins_the_masters_key_and_keeps_the_name(master: FakeMaster, state: State) -> None:
    identity = enrol.join(state, master.url + "/", JoinToken.parse(master.token("prod-1") + "\n"))
    assert (identity.agent, identity.url, identity.order_keys) == ("prod-1", master.url, (master.key.public,))
    assert state.identity() == identity
    assert master.agents[state.key().public.key_id][0] == "prod-1"


def test_a_token_works_once(master: FakeMaster, state: State, tmp_path: Path) -> None:
    token = JoinToken.parse(master.token("prod-1"))
    enrol.join(state, master.url, token)
    with pytest.raises(errors.AuthError, match="was used") as caught:
        enrol.join(State(tmp_path), master.url, token)
    assert caught.value.exit_code == 4


def test_a_master_that_did_not_make_the_token_is_refused(master: FakeMaster, state: State) -> None:
    master.signs_with = keys.generate()
    with pytest.raises(errors.Refused, match="not the master that made this token") as caught:
        enrol.join(state, master.url, JoinToken.parse(master.token("prod-1")))
    assert caught.value.code == "other-master"
    assert not state.joined


def test_a_token_for_another_name_is_refused(master: FakeMaster, state: State) -> None:
    with pytest.raises(errors.Refused, match="'prod-1', not 'prod-2'"):
        enrol.join(state, master.url, JoinToken.parse(master.token("prod-1")), name="prod-2")
    assert not state.joined


def test_an_agent_does_not_join_twice(master: FakeMaster, state: State) -> None:
    enrol.join(state, master.url, JoinToken.parse(master.token("prod-1")))
    before = state.identity()
    with pytest.raises(errors.Refused, match="already agent prod-1"):
        enrol.join(state, master.url, JoinToken.parse(master.token("prod-2")))
    assert state.identity() == before


def test_a_try_that_failed_can_be_repeated(master: FakeMaster, state: State) -> None:
    with pytest.raises(errors.Unavailable, match="cannot be reached"):
        enrol.join(state, f"http://127.0.0.1:{free_port()}", JoinToken.parse(master.token("prod-1")))
    key = state.key().public
    enrol.join(state, master.url, JoinToken.parse(master.token("prod-1")))
    assert state.key().public == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        tokens.new("join"),
        tokens.new("join") + ".",
        tokens.new("job") + ".sha256:" + "a" * 64,
        "kf_join_" + "a" * 30 + "_aaaaaa.sha256:" + "a" * 64,
    ],
    ids=["empty", "a word", "no fingerprint", "empty fingerprint", "of another kind", "wrong sum"],
)
def test_what_is_no_whole_token_is_told_before_anybody_is_asked(text: str) -> None:
    with pytest.raises(errors.UsageError, match="not a whole join token"):
        JoinToken.parse(text)


def test_an_address_that_is_no_master_is_told(master: FakeMaster, state: State) -> None:
    with pytest.raises(errors.AuthError):
        enrol.join(state, f"{master.url}/some/path", JoinToken.parse(master.token("prod-1")))
