"""Asking a master who it is, without joining it and without a session: its order key, its clock, its version."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from tempfile import NamedTemporaryFile

import requests
from pydantic import ValidationError

from keepflow import errors
from keepflow.agent.clock import Clock
from keepflow.core.text import innermost_words
from keepflow.crypto.keys import PublicKey
from keepflow.wire import messages

_TIMEOUT = (5, 30)


@dataclass(frozen=True, slots=True)
class Acquaintance:
    """What a master said of itself; `ahead` is how many seconds this host's clock is ahead of its clock."""

    version: str
    key_id: str
    ahead: float
    nonce: str
    proof: bytes

    def holds(self, key: PublicKey) -> bool:
        """Say whether the master showed that it holds this very key."""
        try:
            key.verify(self.proof, messages.proof_bytes(self.nonce))
        except errors.BadSignature:
            return False
        return True


def meet(url: str, ca_pem: str = "") -> Acquaintance:
    """Ask the master at `url`; raises Unavailable `unreachable`, and RemoteError when it is no keepflow master."""
    nonce, clock, asked = secrets.token_hex(16), Clock(), Clock.mark()
    answer = ask(ca_pem, "GET", f"{url}/agents/proof?nonce={nonce}", url)
    try:
        proven = messages.Proven.model_validate_json(answer.content)
    except ValidationError:
        raise errors.RemoteError(
            f"{url} answers {answer.status_code}, but not as a keepflow master of this version does; is the address "
            "right, and does the proxy before it pass /agents/ on?",
            code="no-master",
        ) from None
    clock.heard(proven.master_time, asked)
    return Acquaintance(proven.version, proven.key_id, clock.skew, nonce, _unbase64(proven.proof))


def ask(ca_pem: str, method: str, address: str, master: str, body: str | None = None) -> requests.Response:
    """Send one request to a master: no proxy, no .netrc, no redirect, and only `ca_pem` trusted when it is given.

    Raises Unavailable `unreachable`, in which the master is called `master`.
    """
    with NamedTemporaryFile("w", suffix=".pem") as authority, requests.Session() as session:
        authority.write(ca_pem)
        authority.flush()
        session.trust_env = False  # what is sent goes to the master and nowhere else
        try:
            return session.request(
                method,
                address,
                data=body,
                headers={"Content-Type": "application/json"} if body is not None else {},
                timeout=_TIMEOUT,
                verify=authority.name if ca_pem else True,
                allow_redirects=False,
            )
        except (requests.RequestException, OSError) as error:
            why = innermost_words(error)
            raise errors.Unavailable(f"{master} cannot be reached: {why}", code="unreachable") from None


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
