"""How a session begins, stays alive and ends; how an agent joins, and knows its master."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from keepflow.wire.messages.base import HEARTBEAT_SECONDS, PROTOCOL, Message, Whole

#: Among an agent's step kinds: it gives some flows containers (`image:`, `services:`).
CONTAINERS = "containers"
#: Before the name of a host, likewise: it takes steps of some flows there (`ssh:`).
SSH = "ssh:"


class Challenge(Message):
    """Master: prove your key on this nonce."""

    type: Literal["challenge"] = "challenge"
    nonce: str
    master_time: Whole
    protocol: tuple[int, int] = PROTOCOL


class Hello(Message):
    """Agent: who I am is my key alone; `signature` covers `hello_bytes(nonce, …)`."""

    type: Literal["hello"] = "hello"
    key_id: str
    signature: str  #: base64 over hello_bytes()
    nonce: str  #: the agent's own, for the master to sign in `welcome`
    protocol: tuple[int, int] = PROTOCOL
    version: str
    capabilities: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    slots: Whole = 1  #: script jobs it runs at once
    step_kinds: tuple[str, ...] = ()
    highest_fence: Whole = 0
    running: tuple[Whole, ...] = ()  #: fences of jobs and deployments it holds
    machine_id: str = ""
    warnings: tuple[str, ...] = ()  #: what this host knows to be weak, for people
    sealing_key: str = ""  #: base64 of the X25519 key that secrets are sealed to; "" = this agent takes none
    sealing_proof: str = ""  #: base64 over sealing_bytes(), by the agent's own key


class Welcome(Message):
    """Master: taken; `proof` is the master's order key over `welcome_bytes(agent nonce)`."""

    type: Literal["welcome"] = "welcome"
    agent: str
    protocol: Whole
    proof: str
    master_time: Whole
    heartbeat: float = HEARTBEAT_SECONDS
    acked_logs: dict[int, int] = Field(default_factory=dict)  #: fence → bytes the master holds safely
    rotations: tuple[dict[str, Any], ...] = ()  #: every new order key so far, oldest first (`crypto.rotation`)


class Refused(Message):
    """Master: not taken, and why; the agent keeps its identity and tries again later."""

    type: Literal["refused"] = "refused"
    code: str
    sentence: str


class Farewell(Message):
    """Either side: closing on purpose; come back after `retry` seconds."""

    type: Literal["farewell"] = "farewell"
    sentence: str = ""
    retry: float = 0.5


def hello_bytes(challenge_nonce: str, key_id: str, own_nonce: str) -> bytes:
    """Return what an agent signs: bound to the challenge, the key and the agent's own nonce."""
    return f"keepflow-agent-hello-v1\n{challenge_nonce}\n{key_id}\n{own_nonce}".encode()


def sealing_bytes(key_id: str, sealing_key: str) -> bytes:
    """Return what an agent signs to say which key secrets are to be sealed to."""
    return f"keepflow-agent-sealing-v1\n{key_id}\n{sealing_key}".encode()


def welcome_bytes(agent_nonce: str, agent: str) -> bytes:
    """Return what the master signs in `welcome`."""
    return f"keepflow-master-welcome-v1\n{agent_nonce}\n{agent}".encode()


class Reported(Message):
    """Master: reports up to this number are committed."""

    type: Literal["reported"] = "reported"
    number: Whole


class LogAck(Message):
    """Master: log bytes of this attempt up to `offset` are masked and fsynced."""

    type: Literal["log-ack"] = "log-ack"
    fence: Whole
    offset: Whole


class Received(Message):
    """Agent: these `send` ids are on my disk."""

    type: Literal["received"] = "received"
    ids: tuple[Whole, ...]


class Beat(Message):
    """Master: answer to a heartbeat, with its own clock."""

    type: Literal["beat"] = "beat"
    master_time: Whole


class KeyRotated(Message):
    """The order key has changed; the envelope inside says to which, under the old key's signature and the new one's."""

    type: Literal["key-rotated"] = "key-rotated"
    fence: Whole = 0
    envelope: dict[str, Any]


class Enrol(Message):
    """`POST /agents/enrol`: a join token is burnt for a key; its text ends with the master's key fingerprint."""

    token: str = Field(repr=False)
    public_key: str
    proof: str  #: base64 signature of the token by the new key
    version: str
    machine_id: str = ""


class Enrolled(Message):
    """Answer to `Enrol`: the agent's name and the master's public order key, to be pinned."""

    agent: str
    order_key: str
    url: str


class Proven(Message):
    """Answer to `GET /agents/proof?nonce=…`: the master's order key signed `proof_bytes(nonce)`."""

    proof: str  #: base64
    key_id: str
    master_time: Whole
    version: str


def proof_bytes(nonce: str) -> bytes:
    """Return what the master signs to show that it holds its order key; good for nothing else."""
    return f"keepflow-master-proof-v1\n{nonce}".encode()
