"""The live log of one run: every byte of every attempt once, from line one, and what the run is doing meanwhile."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection

from keepflow.core.states import FINAL
from keepflow.engine.context import Master
from keepflow.gateway.readers import Readers
from keepflow.gateway.sse import Sse
from keepflow.store import deployments, jobs, runs, steps
from keepflow.store.jobs import Attempt, Job
from keepflow.store.runs import Run
from keepflow.store.steps import Step

#: Bytes of log in one event.
PIECE = 256 * 1024
_EVENT_ID = re.compile(r"(\d{1,18}):(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where a reader has the log: all attempts before `fence`, and `offset` bytes of its file."""

    fence: int = 0
    offset: int = 0

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read a `Last-Event-ID`; anything else begins at the beginning."""
        match = _EVENT_ID.fullmatch(text)
        return cls(int(match[1]), int(match[2])) if match else cls()

    def __str__(self) -> str:
        return f"{self.fence}:{self.offset}"


@dataclass(frozen=True, slots=True)
class _View:
    """A run at one moment; attempts in the order they were begun."""

    run: Run
    jobs: list[Job]
    attempts: list[Attempt]
    steps: list[tuple[Attempt, Step]]
    phases: dict[int, str]  #: by job id: the phase of its deployment

    def job_of(self, attempt: Attempt) -> Job:
        return next(job for job in self.jobs if job.id == attempt.job_id)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes of one attempt's log, and where they begin in its file."""

    attempt: Attempt
    start: int
    data: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.data)


class RunLog:
    """Writes one run to one stream."""

    def __init__(self, master: Master, readers: Readers, stream: Sse, run_id: int, position: Position) -> None:
        self._master, self._readers, self._stream, self._run_id = master, readers, stream, run_id
        self._position = position
        self._changed = True
        self._told: dict[object, dict[str, Any]] = {}

    async def follow(self) -> None:
        """Send everything there is and everything that comes, until the run and its log have ended."""
        with ExitStack() as subscriptions:
            subscriptions.callback(self._master.wakes.subscribe(f"run:{self._run_id}", self._ring_changed))
            heard: set[int] = set()
            view = await self._look()
            while not self._stream.over:
                if self._changed:
                    view = await self._look()
                # Heard first, read afterwards: bytes that come in between ring.
                for attempt in view.attempts:
                    if attempt.fence not in heard:
                        heard.add(attempt.fence)
                        ring = self._stream.bell.ring
                        subscriptions.callback(self._master.wakes.subscribe(f"log:{attempt.fence}", ring))
                piece, complete = await self._readers.call(partial(self._next_piece, view))
                if piece is not None:
                    await self._send(view, piece)
                elif complete and view.run.state in FINAL and not self._changed:
                    await self._stream.event("end", _outcome(view.run))
                    return
                elif not await self._stream.wait():
                    return

    def _ring_changed(self) -> None:
        self._changed = True
        self._stream.bell.ring()

    async def _look(self) -> _View:
        """Read the run anew and tell what is new about it."""
        self._changed = False
        view = await self._readers.query(partial(_view, run_id=self._run_id))
        await self._tell("state", "state", _state(view))
        for attempt, step in view.steps:
            places = await self._readers.call(partial(self._places, attempt, step))
            await self._tell((step.attempt_id, step.ordinal), "step", _step(attempt, step, *places))
        return view

    async def _tell(self, key: object, name: str, data: dict[str, Any]) -> None:
        if self._told.get(key) != data:
            self._told[key] = data
            await self._stream.event(name, data)

    def _places(self, attempt: Attempt, step: Step) -> tuple[int, int | None]:
        """Return where a step's part of the log begins and ends in the file; the agent counts before masking."""
        place = partial(self._master.logs.place_of, attempt.log_path)
        return place(step.log_from), None if step.log_to is None else place(step.log_to)

    def _next_piece(self, view: _View) -> tuple[_Piece | None, bool]:
        """Return what comes next, or None and whether nothing of these attempts can come any more."""
        for attempt in view.attempts:
            if attempt.fence < self._position.fence:
                continue
            start = self._position.offset if attempt.fence == self._position.fence else 0
            # Asked before reading: a log that is whole now has all its bytes in the file.
            there = self._master.logs.length(attempt.log_path) >= attempt.log_bytes or not attempt.log_path
            whole = attempt.state in FINAL and there
            data = self._master.logs.read(attempt.log_path, start, PIECE)
            if len(data) == PIECE or not whole:
                data = data[: whole_characters(data)]
            if data:
                return _Piece(attempt, start, data), False
            if not whole:
                return None, False
        return None, True

    async def _send(self, view: _View, piece: _Piece) -> None:
        self._position = Position(piece.attempt.fence, piece.end)
        data = {
            "fence": piece.attempt.fence,
            "job": view.job_of(piece.attempt).key,
            "attempt": piece.attempt.n,
            "from": piece.start,
            "to": piece.end,
            "text": piece.data.decode(errors="replace"),
        }
        await self._stream.event("log", data, str(self._position))


def whole_characters(data: bytes) -> int:
    """Return how many bytes to take so that no UTF-8 character is cut in two at the end."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 == 0x80:  # in the middle of a character
            continue
        wanted = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return len(data) - back if wanted > back else len(data)
    return len(data)


def _view(conn: Connection, run_id: int) -> _View:
    attempts = sorted(jobs.attempts_of_run(conn, run_id), key=lambda attempt: attempt.fence)
    return _View(
        run=runs.by_id(conn, run_id),
        jobs=jobs.of_run(conn, run_id),
        attempts=attempts,
        steps=[(attempt, step) for attempt in attempts for step in steps.of_attempt(conn, attempt.id)],
        phases={found.job_id: found.phase.value for found in deployments.of_run(conn, run_id)},
    )


def _outcome(of: Run | Job) -> dict[str, Any]:
    return {"state": of.state.value, "code": of.reason_code, "sentence": of.reason}


def _times(of: Run | Job | Step) -> dict[str, Any]:
    return {"started_at": of.started_at, "finished_at": of.finished_at}


def _state(view: _View) -> dict[str, Any]:
    listed = [
        {"key": job.key, "kind": job.kind.value, "phase": view.phases.get(job.id), **_outcome(job), **_times(job)}
        for job in view.jobs
    ]
    return {**_outcome(view.run), **_times(view.run), "jobs": listed}


def _step(attempt: Attempt, step: Step, start: int, end: int | None) -> dict[str, Any]:
    told = {"name": step.name, "state": step.state.value, "exit_code": step.exit_code}
    return {"fence": attempt.fence, "index": step.ordinal, **told, "from": start, "to": end, **_times(step)}
