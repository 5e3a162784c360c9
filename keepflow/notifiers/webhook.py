"""A program elsewhere: one POST of JSON, signed with HMAC-SHA256 over its bytes.

`X-Keepflow-Signature-256` is `sha256=…` as GitHub writes it; `X-Keepflow-Delivery` is the same on every try, so whoever
remembers it takes each notice once.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping

from keepflow.config.fields import FilePath, Flag, Line, Model
from keepflow.core.notices import Notice
from keepflow.errors import UsageError
from keepflow.notifiers._places import place_of, tell

_SHORTEST = 16  #: characters of a signing secret


class Settings(Model):
    """What `webhook:` says; `private` allows addresses of this machine and of private networks, and plain http."""

    url: Line
    secret_file: FilePath
    ca_file: FilePath | None = None
    private: Flag = False


class Channel:
    """One address that gets every notice."""

    def __init__(self, settings: Settings, secrets: Mapping[str, str]) -> None:
        self._place = place_of(settings.url, private=settings.private)
        self._secret = secrets.get("secret", "").encode()
        if len(self._secret) < _SHORTEST:
            raise UsageError(f"secret_file must hold at least {_SHORTEST} characters", code="secret-too-short")
        self._private, self._ca = settings.private, secrets.get("ca", "")
        self.recipients = (self._place.host,)

    def fits(self, address: str) -> bool:  # noqa: ARG002 - the port's signature
        """Say no: a flow file names such a channel by its name only."""
        return False

    def send(self, notice: Notice, recipient: str) -> None:  # noqa: ARG002 - there is one
        """POST it; anything but a 2xx is tried again."""
        told = {name: value for name, value in notice.to_json().items() if name != "excerpt"}
        body = json.dumps(told, ensure_ascii=True).encode()
        signature = hmac.new(self._secret, body, hashlib.sha256).hexdigest()
        headers = {"X-Keepflow-Event": notice.word, "X-Keepflow-Delivery": notice.delivery}
        headers["X-Keepflow-Signature-256"] = f"sha256={signature}"
        tell(self._place, body, headers, private=self._private, ca_pem=self._ca)
