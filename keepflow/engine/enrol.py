"""Agents join, prove who they are, come and go. Who an agent is follows from its key, never from what it says."""

from __future__ import annotations

import base64
import binascii
from functools import partial

from sqlalchemy import Connection

from keepflow import errors
from keepflow.core.flows import JobKind
from keepflow.core.names import is_name
from keepflow.core.states import State
from keepflow.core.text import one_line
from keepflow.crypto import tokens
from keepflow.crypto.keys import PublicKey
from keepflow.engine import deploying, dispatch, job_reports, observing, preparing
from keepflow.engine.context import Master
from keepflow.store import agents, counters, events, jobs, outgoing
from keepflow.store.agents import Agent
from keepflow.store.jobs import Attempt
from keepflow.store.writer import Tx
from keepflow.wire import messages

JOIN_LIFE = 15 * 60 * 1_000_000  #: microseconds a join token may be used
_SECOND = 1_000_000
_MOST_BEHIND = 10_000_000  #: numbers by which an agent may be ahead; a restored master skips a tenth of that
_HEARD_EVERY = 5 * _SECOND  #: a heartbeat that says nothing new is written down this often at most


# --- joining ---------------------------------------------------------------------------------------------------------


def make_join_token(tx: Tx, master: Master, agent_name: str, by: str, now: int) -> str:
    """Make the text a machine joins with once, under this name: `kf_join_….sha256:<fingerprint of the order key>`."""
    if not is_name(agent_name):
        raise errors.UsageError("an agent name has 1 to 40 of a-z 0-9 -", code="bad-name")
    secret = tokens.new("join")
    agents.drop_old_join_tokens(tx.conn, now - 24 * 3600 * _SECOND)
    agents.add_join_token(tx.conn, tokens.digest(secret), agent_name, by, now, now + JOIN_LIFE)
    events.add(tx, now, "join-token-made", actor=by, data={"agent": agent_name})
    return f"{secret}.{master.order_key.public.key_id}"


def enrol(tx: Tx, master: Master, asked: messages.Enrol, now: int) -> messages.Enrolled:
    """Burn a join token for a key and return what the agent pins; raises AuthError, BadSignature, UsageError.

    A name that was known gets the new key: its old one opens nothing from then on.
    """
    key = PublicKey.parse(asked.public_key)
    key.verify(_unbase64(asked.proof), asked.token.encode())
    secret = asked.token.partition(".")[0]
    burnt = agents.burn_join_token(tx.conn, tokens.digest(secret), now)
    if burnt is None:
        raise errors.AuthError(
            "this join token is unknown, used, or older than 15 minutes; make a new one", code="bad-token"
        )
    other = agents.by_key(tx.conn, key.key_id)
    if other is not None and other.name != burnt.agent:
        raise errors.Refused(f"this machine's key belongs to agent {other.name} already", code="key-in-use")
    agent_id = agents.enrol(tx.conn, burnt.agent, key.text, key.key_id, now)
    data = {"agent": burnt.agent, "key": key.key_id, "version": one_line(asked.version, 40)}
    events.add(tx, now, "agent-joined", actor=burnt.created_by, agent_id=agent_id, data=data)
    _wake(tx, master, agent_id)
    return messages.Enrolled(agent=burnt.agent, order_key=master.order_key.public.text, url=master.url())


def revoke(tx: Tx, master: Master, agent_id: int, by: str, now: int) -> None:
    """Take an agent's identity away for good; what it deploys now it finishes by itself."""
    _block(tx, master, agent_id, f"revoked by {by}", now)
    events.add(tx, now, "agent-revoked", actor=by, agent_id=agent_id)


def drain(tx: Tx, master: Master, agent_id: int, by: str, now: int) -> None:
    """Give an agent no new work; what it holds it ends, and runs that began on it go on there."""
    _set_drained(tx, master, agent_id, by, now)
    events.add(tx, now, "agent-drained", actor=by, agent_id=agent_id)


def undrain(tx: Tx, master: Master, agent_id: int, by: str, now: int) -> None:
    """Give an agent work again."""
    _set_drained(tx, master, agent_id, "", now)
    events.add(tx, now, "agent-undrained", actor=by, agent_id=agent_id)


def _set_drained(tx: Tx, master: Master, agent_id: int, by: str, now: int) -> None:
    agents.change(tx.conn, agent_id, drained_by=by)
    dispatch.assign(tx, master, now)
    _wake(tx, master, agent_id)


# --- the handshake ---------------------------------------------------------------------------------------------------


def greet(master: Master, challenge: str, hello: messages.Hello, now: int) -> tuple[Agent, messages.Welcome]:
    """Check who says hello in answer to a challenge nonce, and return what to answer.

    Raises AuthError `unknown-agent`, BadSignature, Denied `revoked` and Refused `protocol`. Not for the event loop: it
    reads the database and the logs.
    """
    with master.database.read() as conn:
        agent = agents.by_key(conn, hello.key_id)
    if agent is None:
        raise errors.AuthError("no agent has this key; join with a new token", code="unknown-agent")
    covered = messages.hello_bytes(challenge, hello.key_id, hello.nonce)
    key = PublicKey.parse(agent.public_key)
    key.verify(_unbase64(hello.signature), covered)
    if hello.sealing_key:  # whoever can seal to an agent's key can read nothing; whoever can name it reads everything
        key.verify(_unbase64(hello.sealing_proof), messages.sealing_bytes(hello.key_id, hello.sealing_key))
    if agent.revoked_at is not None:
        raise errors.Denied(f"agent {agent.name} may not connect: {agent.offline_why}", code="revoked")
    protocol = min(hello.protocol[1], messages.PROTOCOL[1])
    if protocol < max(hello.protocol[0], messages.PROTOCOL[0]):
        ours = "-".join(map(str, messages.PROTOCOL))
        raise errors.Refused(f"this master speaks protocol {ours}, update the older of the two", code="protocol")
    proof = master.order_key.sign(messages.welcome_bytes(hello.nonce, agent.name))
    welcome = messages.Welcome(
        agent=agent.name,
        protocol=protocol,
        proof=base64.b64encode(proof).decode(),
        master_time=now,
        rotations=master.keys.chain,
        acked_logs=master.logs.acked(hello.running, agent_id=agent.id).result(10),
    )
    return agent, welcome


# --- coming and going ------------------------------------------------------------------------------------------------


def connected(tx: Tx, master: Master, agent_id: int, hello: messages.Hello, now: int) -> None:
    """Write down that an agent is here and what it says of itself, and give it what waits for it."""
    agent = agents.by_id(tx.conn, agent_id)
    said = hello.model_dump(mode="json", exclude={"type", "signature", "nonce", "key_id", "running", "sealing_proof"})
    agents.change(
        tx.conn,
        agent_id,
        connected=True,
        offline_why="",
        last_seen_at=now,
        hello=said,
        capabilities=list(hello.capabilities),
        labels=list(hello.labels),
        slots=max(0, hello.slots),
    )
    if not agent.connected:
        events.add(
            tx, now, "agent-connected", agent_id=agent_id, data={"agent": agent.name, "version": hello.version[:40]}
        )
    _catch_up(tx, agent, hello.highest_fence, now)
    _check_held(tx, master, agent, hello.running, now)
    deploying.ask_again(tx, master, agent_id, hello.running, now)
    _explain_silence(tx.conn, agent_id, None)
    deploying.offer_waiting(tx, master, now)
    preparing.offer(tx, master, agents.by_id(tx.conn, agent_id), now)
    dispatch.assign(tx, master, now)
    _wake(tx, master, agent_id)


def disconnected(tx: Tx, master: Master, agent_id: int, why: str, now: int) -> None:
    """Write down that an agent's last session ended; its jobs go on, nobody is told otherwise."""
    agent = agents.by_id(tx.conn, agent_id)
    if not agent.connected:
        return
    agents.change(tx.conn, agent_id, connected=False, offline_why=one_line(why, 300), last_seen_at=now)
    data = {"agent": agent.name, "why": one_line(why, 300)}
    events.add(tx, now, "agent-disconnected", agent_id=agent_id, data=data)
    deploying.offer_waiting(tx, master, now)
    dispatch.assign(tx, master, now)
    _wake(tx, master, agent_id)


def all_disconnected(tx: Tx) -> None:
    """Begin with nobody connected: the master has just started."""
    for agent in agents.every(tx.conn):
        if agent.connected:
            agents.change(tx.conn, agent.id, connected=False, offline_why="the master was restarted")


def heartbeat(tx: Tx, master: Master, agent_id: int, beat: messages.Heartbeat, now: int) -> None:
    """Write down that an agent lives and what its services serve."""
    agent = agents.by_id(tx.conn, agent_id)
    silent = agent.last_seen_at is None or now - agent.last_seen_at >= _HEARD_EVERY
    if silent:
        agents.change(tx.conn, agent_id, last_seen_at=now)
        _explain_silence(tx.conn, agent_id, None)
    changed = [state for state in beat.services if observing.observe(tx, agent, state, now)]
    if changed:
        tx.after_commit(partial(master.wakes.fire, "events"))


def cloned(tx: Tx, master: Master, agent_id: int, now: int) -> None:
    """Two live sessions proved the same key: block both until a person lets the machine join anew."""
    agent = agents.by_id(tx.conn, agent_id)
    sentence = "two machines used its key at once; find out which is the right one and let that one join again"
    _block(tx, master, agent_id, sentence, now)
    events.add(tx, now, "agent-cloned", agent_id=agent_id, data={"agent": agent.name, "key": agent.key_id})


def silent(tx: Tx, master: Master, now: int, after: int, lost_after: int) -> None:
    """Say of every agent's script jobs how long it was silent, and give up on what was silent too long.

    `after` and `lost_after` are microseconds.
    """
    for agent in agents.every(tx.conn):
        quiet = now - (agent.last_seen_at or agent.created_at)
        if quiet < after:
            continue
        _explain_silence(tx.conn, agent.id, f"agent {agent.name} silent for {quiet // _SECOND} s")
        if quiet >= lost_after:
            for attempt in _script_attempts(tx.conn, agent.id):
                sentence = (
                    f"agent {agent.name} was silent for {quiet // _SECOND} s, and nobody knows what became of the job"
                )
                job_reports.lose(tx, master, attempt, sentence, now)


def _catch_up(tx: Tx, agent: Agent, highest: int, now: int) -> None:
    """Give out no number that an agent has seen already: this master may have been put back to an older state.

    A host that claims to be farther ahead than a restored master can be behind is told about and not believed.
    """
    ours = counters.current(tx.conn, counters.FENCE)
    if highest <= ours:
        return
    believed = highest <= ours + _MOST_BEHIND
    if believed:
        counters.raise_to(tx.conn, counters.FENCE, highest)
    data = {"agent": agent.name, "theirs": highest, "ours": ours, "believed": believed}
    events.add(tx, now, "fence-behind", agent_id=agent.id, data=data)


def _check_held(tx: Tx, master: Master, agent: Agent, running: tuple[int, ...], now: int) -> None:
    """Give up on script jobs the agent once had on disk and does not know any more.

    An agent holds an attempt until the master has confirmed its end, so one that is missing here ended unreported.
    """
    for attempt in _script_attempts(tx.conn, agent.id):
        if attempt.fence not in running and not outgoing.is_waiting(tx.conn, attempt.fence):
            sentence = f"agent {agent.name} came back without it: its state was lost or replaced"
            job_reports.lose(tx, master, attempt, sentence, now)


def _script_attempts(conn: Connection, agent_id: int) -> list[Attempt]:
    held = jobs.running_attempts(conn, agent_id)
    return [attempt for attempt in held if jobs.by_id(conn, attempt.job_id).kind == JobKind.SCRIPT]


def _explain_silence(conn: Connection, agent_id: int, sentence: str | None) -> None:
    for attempt in jobs.running_attempts(conn, agent_id):
        job = jobs.by_id(conn, attempt.job_id)
        if job.state == State.RUNNING and job.kind == JobKind.SCRIPT and job.reason != (sentence or ""):
            jobs.explain(conn, job.id, "silent" if sentence else "", sentence or "")


def _block(tx: Tx, master: Master, agent_id: int, why: str, now: int) -> None:
    agents.change(tx.conn, agent_id, revoked_at=now, connected=False, offline_why=why)
    deploying.offer_waiting(tx, master, now)
    dispatch.assign(tx, master, now)
    _wake(tx, master, agent_id)


def _wake(tx: Tx, master: Master, agent_id: int) -> None:
    tx.after_commit(partial(master.wakes.fire, f"agent:{agent_id}"))
    tx.after_commit(partial(master.wakes.fire, "events"))


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise errors.BadSignature("the signature is not base64") from None
