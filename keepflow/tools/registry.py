"""Asks an image registry what a name stands for; pushing and pulling is the engine's work.

The login goes to the configured host and to allowed token services, never along a redirect, and never over plain HTTP
except on this machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from keepflow import errors
from keepflow.core.loopback import is_loopback
from keepflow.core.releases import is_digest
from keepflow.core.text import innermost_words
from keepflow.tools.challenges import Address, TokenServices, basic, parse_challenge, token_in

if TYPE_CHECKING:
    import requests

#: Without all four a registry may answer with the digest of a converted manifest that nobody ever pushed.
ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
TIMEOUT = (3.0, 30.0)  #: seconds to connect, seconds between two bytes
_MOST_BYTES = 4 * 1024 * 1024  #: of a manifest or a token

_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+|/)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as the registry holds it; `digest` is the hash of exactly these bytes."""

    digest: str
    media_type: str
    body: bytes = field(repr=False)


class Registry:
    """One registry by its address, `host[:port]`; not meant for use by several threads at once.

    `ca_file` replaces the system's certificates, `plain_http` leaves TLS out. `token_hosts` are hosts besides the
    registry's own that may be asked for a token, such as a GitLab. Raises UsageError for an address or login that makes
    no sense.
    """

    def __init__(
        self,
        address: str,
        username: str | None = None,
        password: str | None = None,
        ca_file: Path | None = None,
        plain_http: bool = False,
        *,
        token_hosts: Iterable[str] = (),
    ) -> None:
        self.address = address
        place = Address.parse(address, "http" if plain_http else "https")
        self._base = f"{place.scheme}://{place.host}:{place.port}"
        self._username = username if password is not None else None
        self._login = basic(username, password) if username is not None and password is not None else None
        self._is_here = is_loopback(place.host)
        if self._login and plain_http and not self._is_here:
            raise errors.UsageError(f"{address}: a password is never sent over plain HTTP to another machine")
        self._ca_file = ca_file
        self._services = TokenServices(place, token_hosts)
        self._proofs: dict[str, str] = {}  # by scope: the Authorization header that was accepted last
        self._session: requests.Session | None = None

    def ping(self) -> None:
        """Return when the registry answers and takes the login; raises RegistryError."""
        response = self._ask("GET", "/v2/", scope="")
        response.close()
        if response.status_code != 200:
            raise self._failure(response, "access")

    def digest(self, repository: str, reference: str) -> str | None:
        """Return the manifest digest a tag or digest stands for, or None when there is none; raises RegistryError."""
        response = self._manifest("HEAD", repository, reference)
        response.close()
        if response.status_code == 404:
            return None
        stated = response.headers.get("Docker-Content-Digest")
        return self._checked(stated, repository, reference) if stated else self.manifest(repository, reference).digest

    def exists(self, repository: str, reference: str) -> bool:
        """Say whether a tag or digest exists; raises RegistryError when that cannot be known."""
        return self.digest(repository, reference) is not None

    def may_push(self, repository: str) -> bool:
        """Say whether the login may push to a repository: an upload is begun and called off; raises RegistryError."""
        self._check_repository(repository)
        scope = f"repository:{repository}:pull,push"
        try:
            begun = self._ask("POST", f"/v2/{repository}/blobs/uploads/", scope=scope)
        except errors.RegistryError as error:
            if error.code == "unauthorised":  # no token for that
                return False
            raise
        begun.close()
        if begun.status_code >= 500:
            raise self._failure(begun, f"whether {repository} may be pushed")
        if begun.status_code != 202:
            return False
        upload = urlsplit(begun.headers.get("Location", ""))
        if upload.path.startswith("/v2/"):
            path = f"{upload.path}?{upload.query}" if upload.query else upload.path
            self._ask("DELETE", path, scope=scope).close()
        return True

    def manifest(self, repository: str, reference: str) -> Manifest:
        """Return a manifest, its bytes checked against their digest; raises RegistryError, code `missing` if absent."""
        response = self._manifest("GET", repository, reference)
        if response.status_code == 404:
            response.close()
            raise errors.RegistryError(f"{self.address} has no {repository}, {reference}", code="missing")
        body = self._body(response)
        digest = self._checked(f"sha256:{hashlib.sha256(body).hexdigest()}", repository, reference)
        if response.headers.get("Docker-Content-Digest", digest) != digest:
            raise errors.RegistryError(f"{self.address}: {repository}, {reference}: the bytes do not fit their digest")
        return Manifest(digest, response.headers.get("Content-Type", ""), body)

    def _manifest(self, method: str, repository: str, reference: str) -> requests.Response:
        self._check_repository(repository)
        if not is_digest(reference) and _TAG.fullmatch(reference) is None:
            raise errors.UsageError(f"not a tag or digest: {reference[:80]!r}")
        path = f"/v2/{repository}/manifests/{reference}"
        response = self._ask(method, path, scope=f"repository:{repository}:pull")
        if response.status_code in (200, 404):
            return response
        response.close()
        raise self._failure(response, f"{repository}, {reference}")

    @staticmethod
    def _check_repository(repository: str) -> None:
        if _REPOSITORY.fullmatch(repository) is None or len(repository) > 255:
            raise errors.UsageError(f"not the name of an image repository: {repository[:80]!r}")

    def _ask(self, method: str, path: str, scope: str) -> requests.Response:
        """Ask with what was accepted last; after a challenge once more, with what it asks for."""
        response = self._send(method, self._base + path, self._proofs.get(scope))
        if response.status_code == 401:
            response.close()
            self._proofs[scope] = self._proof(response.headers.get("WWW-Authenticate", ""), scope)
            response = self._send(method, self._base + path, self._proofs[scope])
        return response

    def _proof(self, header: str, scope: str) -> str:
        """Turn a challenge into an Authorization header."""
        kind, challenge = parse_challenge(header)
        if kind == "basic" and self._login:
            return self._login
        if kind != "bearer":
            raise errors.RegistryError(f"{self.address} asks for a login, and none fits", code="unauthorised")
        query = {"service": challenge.get("service", ""), **({"scope": scope} if scope else {})}
        response = self._send("GET", self._services.url(challenge), self._login, query)
        token = token_in(self._body(response)) if response.status_code == 200 else None
        if token is None:
            response.close()
            raise self._failure(response, "a token")
        return f"Bearer {token}"

    def _send(
        self, method: str, url: str, authorization: str | None, query: dict[str, str] | None = None
    ) -> requests.Response:
        import requests

        headers = {"Accept": ACCEPT, **({"Authorization": authorization} if authorization else {})}
        proxies = {} if self._is_here else requests.utils.get_environ_proxies(url)
        try:
            return self._connection().request(
                method,
                url,
                params=query,
                headers=headers,
                proxies=proxies,
                timeout=TIMEOUT,
                allow_redirects=False,
                stream=True,
            )
        except requests.exceptions.SSLError as error:
            text = f"{self.address}: its certificate is not trusted; name the CA that signed it as ca_file"
            raise errors.RegistryError(f"{text} ({innermost_words(error)})", code="certificate") from error
        except (requests.exceptions.RequestException, OSError) as error:
            raise errors.RegistryError(
                f"{self.address} does not answer: {innermost_words(error)}", code="unreachable"
            ) from error

    def _connection(self) -> requests.Session:
        if self._session is None:
            import requests

            self._session = requests.Session()
            self._session.trust_env = False  # a .netrc of the account must never answer a challenge
            self._session.verify = str(self._ca_file) if self._ca_file else True
        return self._session

    def _body(self, response: requests.Response) -> bytes:
        import requests

        body = bytearray()
        try:
            for piece in response.iter_content(65536):
                body += piece
                if len(body) > _MOST_BYTES:
                    raise errors.RegistryError(f"{self.address} sent more than {_MOST_BYTES} bytes", code="unreachable")
        except requests.exceptions.RequestException as error:
            raise errors.RegistryError(
                f"{self.address} broke off: {innermost_words(error)}", code="unreachable"
            ) from error
        finally:
            response.close()
        return bytes(body)

    def _checked(self, digest: str, repository: str, reference: str) -> str:
        if not is_digest(digest) or (is_digest(reference) and digest != reference):
            raise errors.RegistryError(f"{self.address} answered {digest[:80]!r} for {repository}, {reference}")
        return digest

    def _failure(self, response: requests.Response, what: str) -> errors.RegistryError:
        status = response.status_code
        if 300 <= status < 400:
            text = f"{self.address} redirects {what}, which is not followed; configure the final address"
            return errors.RegistryError(text, code="unreachable")
        if status in (200, 401, 403):
            who = f"user {self._username!r}" if self._login else "us, for no login is configured"
            return errors.RegistryError(f"{self.address} refuses {what} to {who}", code="unauthorised")
        return errors.RegistryError(f"{self.address} answered {status} to {what}", code="unreachable")
