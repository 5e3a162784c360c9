"""Joining a master: a one-time token is burnt for this agent's key, and the master's order key is pinned."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import requests
from pydantic import ValidationError

import keepflow
from keepflow import errors
from keepflow.agent.acquaintance import ask
from keepflow.agent.state import Identity, State
from keepflow.core.loopback import in_the_clear
from keepflow.core.text import one_line
from keepflow.crypto import tokens
from keepflow.crypto.keys import PublicKey
from keepflow.tools.machine import machine_id
from keepflow.wire.messages import Enrol, Enrolled


@dataclass(frozen=True, slots=True)
class JoinToken:
    """The text an admin hands over: a secret good for one joining, and the fingerprint of the master's order key."""

    text: str
    fingerprint: str

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Read `kf_join_….sha256:<hex>`; raises UsageError `bad-token`."""
        text = text.strip()
        secret, _, fingerprint = text.partition(".")
        if tokens.kind_of(secret) != "join" or not fingerprint:
            raise errors.UsageError(
                "this is not a whole join token (kf_join_….sha256:…); copy all of it, or ask for a new one: "
                "keepflow agent token NAME on the master",
                code="bad-token",
            )
        return cls(text, fingerprint.removeprefix("sha256:"))


def join(
    state: State,
    url: str,
    token: JoinToken,
    ca_pem: str = "",
    name: str | None = None,
    *,
    insecure_http: bool = False,
) -> Identity:
    """Join the master at `url` and keep who this agent is; the state must be claimed.

    Raises Refused `insecure-http`, `joined-already`, `other-master` and `other-name`, AuthError when the token is not
    taken, and Unavailable when the master cannot be reached.
    """
    if in_the_clear(url) and not insecure_http:
        raise errors.Refused(
            f"{url} is not encrypted: whoever is on the way reads the token and all that follows; give the master a "
            "certificate and use https://, or --insecure-http when the network between guards it (a VPN)",
            code="insecure-http",
        )
    if state.joined:
        identity = state.identity()
        raise errors.Refused(
            f"{state.root}: this is already agent {identity.agent} of {identity.url}; "
            "to join anew, move the directory away",
            code="joined-already",
        )
    key = state.key()
    proof = base64.b64encode(key.sign(token.text.encode())).decode()
    body = Enrol(
        token=token.text,
        public_key=key.public.text,
        proof=proof,
        version=keepflow.__version__,
        machine_id=machine_id(),
    )
    enrolled = _ask(url.rstrip("/"), body, ca_pem)
    order_key = PublicKey.parse(enrolled.order_key)
    if order_key.key_id.removeprefix("sha256:") != token.fingerprint:
        raise errors.Refused(
            f"whoever answers at {url} is not the master that made this token: its order key is {order_key.key_id}",
            code="other-master",
        )
    if name is not None and enrolled.agent != name:
        raise errors.Refused(f"the token is for agent {enrolled.agent!r}, not {name!r}", code="other-name")
    identity = Identity(enrolled.agent, url.rstrip("/"), (order_key,), ca_pem)
    state.save_identity(identity)
    return identity


def _ask(url: str, body: Enrol, ca_pem: str) -> Enrolled:
    answer = ask(ca_pem, "POST", f"{url}/agents/enrol", url, body.model_dump_json())
    if answer.status_code in (401, 403, 404, 409, 410):
        raise errors.AuthError(f"the master did not take the token: {_words(answer)}", code="token-refused")
    if answer.status_code != 200:
        raise errors.Unavailable(f"{url} answered {answer.status_code}: {_words(answer)}", code="unreachable")
    try:
        return Enrolled.model_validate_json(answer.content)
    except ValidationError:
        raise errors.RemoteError(f"{url} did not answer like a keepflow master; is the address right?") from None


def _words(answer: requests.Response) -> str:
    """Return what a problem answer says, as one line."""
    try:
        told = answer.json()
        text = told.get("detail") or told.get("title") if isinstance(told, dict) else None
    except ValueError:
        text = None
    return one_line(str(text or answer.reason))
