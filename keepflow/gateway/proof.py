"""The master shows whoever asks that it holds its order key: hosts look before they join, or later."""

from __future__ import annotations

import base64
import re
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from keepflow import __version__, errors
from keepflow.crypto.keys import PrivateKey
from keepflow.engine import clock
from keepflow.gateway.answers import allow, send_json
from keepflow.wire import messages

_NONCE = re.compile(r"[0-9a-f]{32}")


class Proof:
    """`GET /agents/proof?nonce=…`. What is signed begins with words that no order, welcome or receipt begins with."""

    def __init__(self, order_key: PrivateKey) -> None:
        self._order_key = order_key

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Sign the asker's nonce, and say what time it is here."""
        allow(scope, "GET")
        nonce = parse_qs(scope["query_string"].decode("latin-1")).get("nonce", [""])[0]
        if _NONCE.fullmatch(nonce) is None:
            raise errors.UsageError("give nonce=, 32 hexadecimal digits in small letters", code="bad-nonce")
        proven = messages.Proven(
            proof=base64.b64encode(self._order_key.sign(messages.proof_bytes(nonce))).decode(),
            key_id=self._order_key.public.key_id,
            master_time=clock.now(),
            version=__version__,
        )
        await send_json(send, 200, proven.model_dump())
