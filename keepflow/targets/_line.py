"""The line to a Docker engine: made when it first answers, and what its errors mean."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from keepflow.errors import DeployFailed, Unavailable

if TYPE_CHECKING:
    from docker import APIClient
    from docker.errors import APIError


class Line:
    """A line to one engine; may be used from every thread. `timeout` is for one answer, in seconds."""

    def __init__(self, base_url: str = "unix:///var/run/docker.sock", timeout: float = 60.0) -> None:
        self._base_url = base_url
        self._timeout = timeout
        self._client: APIClient | None = None
        self._making = threading.Lock()

    def close(self) -> None:
        """Give the connections back; the next call makes new ones."""
        with self._making:
            if self._client is not None:
                self._client.close()
                self._client = None

    @contextmanager
    def _engine(self) -> Iterator[APIClient]:
        """Give the client; what the caller does not catch becomes Unavailable or `engine-refused`."""
        from docker.errors import APIError, DockerException
        from requests.exceptions import RequestException

        try:
            yield self._connection()
        except APIError as error:
            raise DeployFailed(f"the engine refused: {words(error)}", code="engine-refused") from error
        except (RequestException, DockerException, OSError) as error:
            raise Unavailable(
                f"the Docker engine at {self._base_url} does not answer ({type(error).__name__}); is it running?",
                code="engine-unreachable",
            ) from error

    def _connection(self) -> APIClient:
        """Return the client, made when the engine first answers: making one asks for the engine's version."""
        with self._making:
            if self._client is None:
                from docker import APIClient

                _knock(self._base_url)
                self._client = APIClient(base_url=self._base_url, timeout=self._timeout)  # type: ignore[arg-type]  # floats work
            return self._client


def _knock(base_url: str) -> None:
    """Raise OSError when nobody listens on a unix socket; the SDK would leave its own failed socket open."""
    if base_url.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(base_url.removeprefix("unix://"))


def unless_missing(act: Callable[[], Any]) -> Any:
    """Do something, and return None when the thing is not there, True when there was no answer."""
    from docker.errors import NotFound

    try:
        done = act()
    except NotFound:
        return None
    return True if done is None else done


def unless_refused(act: Callable[[], Any]) -> bool:
    """Do something that may be refused because somebody still uses the thing; say whether it was done."""
    from docker.errors import APIError

    try:
        act()
    except APIError as error:
        if error.status_code not in (404, 409):
            raise
        return False
    return True


def words(error: APIError) -> str:
    """Return what the engine said, for people; never to be decided upon."""
    return str(error.explanation or error).strip()
