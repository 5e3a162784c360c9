"""Calls to the API of a forge: one connection each, checked before it is made, and its refusal in words that help."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from keepflow import errors
from keepflow.core.text import one_line
from keepflow.core.webhooks import FoundHook, HookPlace
from keepflow.tools.http_post import Place, ask

_TIMEOUT = 15  #: seconds for each call
_PAGES = 40  #: of hooks that are read; no forge lets a repository have so many
_SAID = 300  #: characters of a forge's own words that are shown


class HookRefused(errors.RemoteError):
    """The forge answered, and it was no; another try with the same token would not help."""

    default_code = "hook-refused"


class Caller:
    """Whoever calls the API of a forge. `rights` is what the token in the headers must be allowed, in words.

    No word of a forge that holds one of the `hidden` texts is passed on with it.
    """

    def __init__(
        self,
        headers: Mapping[str, str],
        rights: str,
        hidden: Sequence[str],
        *,
        private: bool = False,
        ca_pem: str = "",
    ) -> None:
        self._headers, self._rights, self._hidden = headers, rights, tuple(filter(None, hidden))
        self._send = partial(ask, timeout=_TIMEOUT, private=private, ca_pem=ca_pem)
        self._private = private

    def call(self, method: str, url: str, body: Mapping[str, Any] | None = None, *, gone_is_fine: bool = False) -> Any:
        """Return the JSON of the answer; raises RemoteError, HookRefused or Undeliverable `egress`."""
        try:
            place = Place.parse(url)
        except ValueError as error:
            raise HookRefused(f"the address of the forge's API {error}") from None
        if not place.tls and not self._private:
            raise HookRefused("the forge's API is asked over https only; `private: true` allows http")
        answer = self._send(method, place, json.dumps(body).encode() if body is not None else b"", self._headers)
        if 200 <= answer.status < 300:
            return _read(answer.body)
        if answer.status == 404 and gone_is_fine:
            return None
        said = _words(answer.body)
        for text in self._hidden:
            said = said.replace(text, "***")
        said = one_line(said, _SAID)
        sentence = f"{place.host} answered {answer.status}{f': {said}' if said else ''}; {self._help(answer.status)}"
        if answer.status == 429 or answer.status >= 500:
            raise errors.RemoteError(sentence)
        raise HookRefused(sentence)

    def _help(self, status: int) -> str:
        if 300 <= status < 400:
            return "no redirect is followed with the token; write the address of the API it leads to, with `api`"
        if status in (401, 403, 404):
            return f"it needs {self._rights}, and the repository to be there"
        if status == 429 or status >= 500:
            return "it is asked again"
        return "the forge may not be let call this server: look at its settings for webhooks in local networks"


class HookApi:
    """The webhooks of one repository. Every method raises what `Caller.call` raises, and UsageError for odd answers."""

    def __init__(self, place: HookPlace, caller: Caller) -> None:
        self.place, self._call = place, caller.call

    def all(self) -> list[FoundHook]:
        """Read every webhook that there is, page by page until one is empty."""
        return [self.place.read(hook) for page in self._pages() for hook in page]

    def make(self, address: str, secret: str) -> str:
        """Make one and return the forge's id of it."""
        answer = self._call("POST", self.place.url, self.place.body(address, secret))
        if not isinstance(answer, Mapping):
            raise errors.RemoteError("the forge made a hook and did not say which")
        return self.place.read(answer).id

    def change(self, hook: str, address: str, secret: str) -> None:
        """Make one what it should be."""
        self._call(self.place.change, f"{self.place.url}/{hook}", self.place.body(address, secret))

    def remove(self, hook: str) -> None:
        """Remove one; gone already is fine."""
        self._call("DELETE", f"{self.place.url}/{hook}", gone_is_fine=True)

    def _pages(self) -> Iterator[list[Mapping[str, Any]]]:
        for number in range(1, _PAGES + 1):
            page = self._call("GET", f"{self.place.url}?{self.place.paging}{number}")
            if not isinstance(page, list) or not all(isinstance(hook, Mapping) for hook in page):
                raise errors.RemoteError("the forge answered with something that is no list of hooks; see `api`")
            if not page:
                return
            yield page


def _read(body: bytes) -> Any:
    if not body.strip():
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise errors.RemoteError("the forge answered with something that is no JSON; see `api`") from None


def _words(body: bytes) -> str:
    """Return what a forge says of its refusal, from wherever it writes it: `message`, `error`, `errors`."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(said, Mapping):
        return ""
    parts = [_text(said[name]) for name in ("message", "error", "errors") if said.get(name)]
    return ": ".join(dict.fromkeys(part for part in parts if part))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        known = value.get("message")
        return known if isinstance(known, str) else ", ".join(f"{key} {_text(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(filter(None, map(_text, value[:10])))
    return ""
