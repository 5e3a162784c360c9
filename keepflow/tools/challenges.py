"""How a registry asks who we are (`WWW-Authenticate`), and which token services may be shown the credential."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from keepflow import errors

_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\]"
_ADDRESS = re.compile(rf"(?P<host>{_HOST})(?::(?P<port>[0-9]{{1,5}}))?")
#: Strict on purpose: parsers disagree about addresses with user parts, backslashes or odd characters.
_REALM = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{_HOST})(?::(?P<port>[0-9]{{1,5}}))?(?P<path>/[A-Za-z0-9._~/-]*)?(?:\?[^#]*)?"
)
_PARAMETER = re.compile(r'([a-zA-Z]+)="([^"\\]*)"')
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")


@dataclass(frozen=True, slots=True)
class Address:
    """The place of a registry: scheme, host in lower case, port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str, scheme: str) -> Address:
        """Read `host` or `host:port`; raises UsageError."""
        match = _ADDRESS.fullmatch(text)
        if match is None or _port(scheme, match["port"]) > 65535:
            raise errors.UsageError(f"not the address of a registry (host or host:port): {text[:80]!r}")
        return cls(scheme, match["host"].lower(), _port(scheme, match["port"]))


class TokenServices:
    """The token services that may be asked: the registry's own host, and those a person named."""

    def __init__(self, registry: Address, hosts: Iterable[str] = ()) -> None:
        self._registry = registry
        named = (Address.parse(host, "https") for host in hosts)
        self._allowed = {registry, Address("https", registry.host, 443), *named}

    def url(self, challenge: dict[str, str]) -> str:
        """Return the address of the token service a challenge names; raises RegistryError `unauthorised`."""
        realm = challenge.get("realm", "")
        match = _REALM.fullmatch(realm)
        if match is not None:
            service = Address(match["scheme"], match["host"].lower(), _port(match["scheme"], match["port"]))
            if service in self._allowed:
                return f"{service.scheme}://{service.host}:{service.port}{match['path'] or '/'}"
        raise errors.RegistryError(
            f"{self._registry.host} wants a login at {realm[:120]!r}, which nobody allowed; "
            "if that is the right place, name its host in token_hosts",
            code="unauthorised",
        )


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """Split a `WWW-Authenticate` header into its lower-case scheme and its parameters."""
    return header.partition(" ")[0].lower(), dict(_PARAMETER.findall(header))


def basic(username: str, password: str) -> str:
    """Return the Authorization header of a Basic login."""
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


def token_in(body: bytes) -> str | None:
    """Return the token in the answer of a token service, or None when there is no usable one."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
    return token if isinstance(token, str) and _TOKEN.fullmatch(token) else None


def _port(scheme: str, port: str | None) -> int:
    return int(port) if port else 443 if scheme == "https" else 80
