"""Visitors of a front door and what they saw, by their own log: the oracle outside the program."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.real.load_process import Load
from tests.real.waiting import wait_until


@dataclass(frozen=True, slots=True)
class Saw:
    """One request and its end; `error` is "" for a good answer, `mark` the release that gave it."""

    at: float  #: when it ended, seconds since 1970
    method: str
    error: str
    mark: str


class Visitors:
    """A load from `with` to the end of the block, which can be asked at any time what was seen since then."""

    def __init__(self, url: str, name: str, directory: Path, *, clients: int, rate: float) -> None:
        self._load = Load(url, directory, "--rate", str(rate), host_header=name, clients=clients)
        self._read = 0  #: bytes of the log that were read already

    def seen(self) -> list[Saw]:
        """Return what ended since the last call, everything up to this moment included."""
        now = time.time()
        found: list[Saw] = []

        def caught_up() -> bool:
            found.extend(self._news())
            return bool(found) and found[-1].at >= now

        wait_until(caught_up, 15, "a visitor's next answer")
        return found

    def finish(self) -> dict[str, Any]:
        """End the visits and return the summary of all of them."""
        return self._load.finish()

    def _news(self) -> list[Saw]:
        with self._load.log.open("rb") as log:
            log.seek(self._read)
            whole, newline, _ = log.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        lines = [json.loads(line) for line in whole.splitlines()]
        return [Saw(line["at"], line["method"], line.get("error", ""), line.get("mark", "")) for line in lines]

    def __enter__(self) -> Visitors:
        self._load.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._load.__exit__(kind, error, trace)
