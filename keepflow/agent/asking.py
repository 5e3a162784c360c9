"""What an agent asks its master over HTTP for a job, with the token of that job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import requests

from keepflow import errors
from keepflow.core.text import one_line

DID_NOT = "the master did not take part: "
_PIECE = 1024 * 1024
_REDIRECTS = 300
_TIMEOUT = (10.0, 300.0)  #: seconds to connect, and without a byte
_AWAY = (502, 503, 504)  #: what a master that stops says, and a proxy before one that is not there


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, and the token it is asked with."""

    method: str
    url: str
    token: str = field(repr=False)
    ca_file: Path | None = None


def ask(asked: Asked, *, code: str, headers: dict[str, str] | None = None, **more: Any) -> requests.Response:
    """Return a good answer. Raises Unavailable, and RemoteError with this code when the master says no."""
    with requests.Session() as session:
        session.trust_env = False  # what is sent goes to the master and nowhere else
        try:
            answer = session.request(
                asked.method,
                asked.url,
                headers={"Authorization": f"Bearer {asked.token}", **(headers or {})},
                timeout=_TIMEOUT,
                verify=str(asked.ca_file) if asked.ca_file else True,
                allow_redirects=False,
                **more,
            )
        except requests.RequestException as error:
            raise errors.Unavailable(f"the master cannot be reached: {one_line(str(error), 200)}") from None
    if answer.status_code < _REDIRECTS:  # requests calls a redirect ok, too
        return answer
    said = _said(answer)
    if answer.status_code in _AWAY:
        raise errors.Unavailable(f"the master cannot do it now: {said}")
    raise errors.RemoteError(f"{DID_NOT}{said}", code=code)


def pieces(answer: requests.Response) -> Iterator[bytes]:
    """Yield the bytes of an answer that was asked for as a stream; raises Unavailable when they break off."""
    try:
        yield from answer.iter_content(_PIECE)
    except requests.RequestException as error:
        raise errors.Unavailable(f"the master broke off: {one_line(str(error), 200)}") from None


def _said(answer: requests.Response) -> str:
    try:
        return one_line(str(answer.json()["detail"]), 600)
    except (ValueError, KeyError, TypeError):
        return f"it answered {answer.status_code}"


class Body:
    """A file as the body of a request, from its beginning; `stop` ends the request from another thread."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        file.seek(0)
        self._file, self._size = file, size
        self._stopped = False

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        if self._stopped:
            raise requests.RequestException("it was stopped on the way")
        return self._file.read(size)

    def stop(self) -> None:
        """Let the request fail at its next piece."""
        self._stopped = True
