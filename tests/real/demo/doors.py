"""Front doors: what a visitor gets there."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.real.load import MARK


@dataclass(frozen=True, slots=True)
class Door:
    """Where visitors come in: a URL, and the host name they ask for."""

    url: str
    name: str

    def get(self, path: str = "/") -> tuple[int, dict[str, str], bytes]:
        """Ask once, as a new visitor, and return status, headers (lower case) and body; raises OSError."""
        place = urlsplit(self.url)
        visitor = http.client.HTTPConnection(place.hostname or "", place.port or 80, timeout=5)
        try:
            visitor.request("GET", path, headers={"Host": self.name})
            answer = visitor.getresponse()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
        finally:
            visitor.close()

    def marker(self) -> str:
        """Return the marker that the page shows now, "" when there is no page."""
        try:
            status, _, body = self.get()
        except (OSError, http.client.HTTPException):
            return ""
        found = re.search(MARK, body.decode(errors="replace")) if status == 200 else None
        return found[1] if found else ""

    def version(self) -> dict[str, str]:
        """Return what the application says it is: commit, build, environment."""
        told: dict[str, str] = json.loads(self.get("/version")[2])
        return told

    def shows(self, marker: str, seconds: float, hopeless: Callable[[], str] = lambda: "") -> float:
        """Wait until the page shows a marker; return when it did (`time.monotonic`).

        `hopeless` is asked twice a second; what it answers is why the marker will never come. Raises TimeoutError.
        """
        began = asked = time.monotonic()
        while (seen := self.marker()) != marker:
            now = time.monotonic()
            why = hopeless() if now - asked > 0.5 else ""
            asked = now if now - asked > 0.5 else asked
            if why or now - began > seconds:
                where = f"{self.url} shows {seen or 'no page'} and not {marker} after {now - began:.1f} s"
                raise TimeoutError(f"{where}\n{why}" if why else where)
            time.sleep(0.005)
        return time.monotonic()
