"""Webhooks: length, signature over the raw bytes, one fsynced insert, and only then the answer.

This is the path that decides how many pushes a second the master takes, so it does nothing else: no git, no flow file,
and a project's row is read once a second at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import structlog
from sqlalchemy import Connection
from starlette.types import Receive, Scope, Send

from keepflow import errors
from keepflow.core.events import Parsed
from keepflow.core.names import is_name
from keepflow.core.text import one_line
from keepflow.engine import clock, intake
from keepflow.engine.context import Master
from keepflow.gateway.answers import allow, send_json
from keepflow.gateway.limits import MIB, Body, Room, declared_length
from keepflow.gateway.readers import Readers
from keepflow.store import projects
from keepflow.store.projects import Project

log = structlog.get_logger(__name__)

#: Forges send nothing above 25 MB.
LIMIT = 25 * MIB
#: Bodies above this are checked and read in a thread; below it the hand-over costs more than the work.
_LARGE = 256 * 1024
#: How long, in seconds, a project's row is trusted. A secret that does not fit is looked up again at once.
_TRUST = 1.0
_CONTENT_TYPES = (b"application/json", b"application/x-www-form-urlencoded")
#: Headers worth keeping with a delivery begin like this; `intake.record` leaves out what proves the sender.
_KEPT = ("x-", "content-type", "user-agent")


@dataclass(frozen=True, slots=True)
class _Known:
    """A project as hooks see it: its row, its forge, its secret in the clear, and when that was read."""

    project: Project
    forge: ModuleType
    secret: bytes = field(repr=False)
    url: str
    read_at: float


class Hooks:
    """`POST /hooks/{project}`."""

    def __init__(self, master: Master, readers: Readers, room: Room) -> None:
        self._master, self._readers, self._room = master, readers, room
        self._known: dict[str, _Known] = {}
        self._reading: dict[str, asyncio.Task[_Known]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one webhook; raises every KeepflowError that is its refusal."""
        allow(scope, "POST")
        known = await self._project(scope["path_params"]["project"], time.monotonic() - _TRUST)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        _check_content(headers)
        declared_length(scope, LIMIT)
        async with Body(scope, receive, self._room, LIMIT) as body:
            known = await self._verified(known, headers, body)
            delivery, name = _names(known.forge, headers)
            parsed = await self._parsed(known, headers, body)
            work = partial(
                intake.record,
                master=self._master,
                project=known.project,
                delivery_id=delivery,
                forge=known.project.forge,
                event_name=name,
                headers={key: value for key, value in headers.items() if key.startswith(_KEPT)},
                body=body,
                parsed=parsed,
                now=clock.now(),
            )
            recorded = await asyncio.wrap_future(self._master.writer.submit(work))
        await _answer(send, known, recorded, parsed)

    async def _project(self, name: str, not_before: float) -> _Known:
        known = self._known.get(name)
        if known is not None and known.read_at >= not_before:
            return known
        if not is_name(name):
            raise _no_project()
        task = self._reading.get(name)
        if task is None:
            task = self._reading[name] = asyncio.create_task(self._read(name))
            task.add_done_callback(lambda _: self._reading.pop(name, None))
        return await asyncio.shield(task)

    async def _read(self, name: str) -> _Known:
        self._known.pop(name, None)
        read_at = time.monotonic()
        project, url = await self._readers.query(lambda conn: (_find(conn, name), self._master.url()))
        forge = self._master.forges[project.forge]
        sealed, place = project.hook_secret, projects.hook_secret_place(name)
        secret = self._master.vault.unseal(sealed, place) if sealed else b""
        self._known[name] = _Known(project, forge, secret, url, read_at)
        return self._known[name]

    async def _verified(self, known: _Known, headers: Mapping[str, str], body: bytes) -> _Known:
        """Return the project whose secret fits; a secret that was changed a moment ago is looked up once more."""
        try:
            await self._check(known, headers, body)
        except errors.BadSignature:
            fresh = await self._project(known.project.name, time.monotonic() - _TRUST / 4)
            if fresh.secret == known.secret:
                raise _unsigned(known) from None
            known = fresh
            try:
                await self._check(known, headers, body)
            except errors.BadSignature:
                raise _unsigned(known) from None
        return known

    async def _check(self, known: _Known, headers: Mapping[str, str], body: bytes) -> None:
        verify = partial(known.forge.verify, headers, body, known.secret)
        if len(body) > _LARGE:
            await self._readers.call(verify)
        else:
            verify()

    async def _parsed(self, known: _Known, headers: Mapping[str, str], body: bytes) -> Parsed:
        parse = partial(known.forge.parse, headers, body)
        try:
            parsed: Parsed = await self._readers.call(parse) if len(body) > _LARGE else parse()
        except errors.UsageError as error:
            log.info("a delivery cannot be read", project=known.project.name, why=one_line(error.message))
            raise errors.UsageError(
                "the body cannot be read as a delivery of this project's forge; the log says why", code="bad-body"
            ) from None
        return parsed


def _check_content(headers: Mapping[str, str]) -> None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower().encode("latin-1")
    if kind not in _CONTENT_TYPES:
        raise errors.UnsupportedMedia("send application/json or a form with the field payload")
    if headers.get("content-encoding", "identity") != "identity":
        raise errors.UnsupportedMedia("a signed body cannot be compressed")


def _names(forge: ModuleType, headers: Mapping[str, str]) -> tuple[str, str]:
    delivery: str | None = forge.delivery_id(headers)
    if not delivery:
        raise errors.UsageError("the header with the delivery's id is missing or unusable", code="no-delivery-id")
    return delivery, one_line(forge.event_name(headers), 60)


def _find(conn: Connection, name: str) -> Project:
    project = projects.by_name(conn, name)
    if project is None:
        raise _no_project()
    return project


def _no_project() -> errors.NotFound:
    return errors.NotFound("there is no such project", code="no-project")


def _unsigned(known: _Known) -> errors.BadSignature:
    log.warning("a hook was refused: its signature does not fit", project=known.project.name)
    return errors.BadSignature("the signature is missing or does not fit; compare the hook's secret")


def _first(recorded: intake.Recorded) -> dict[str, Any]:
    """Return what is known of a delivery that came before, so that its sender need not ask."""
    event, decision = recorded.parsed.event, recorded.decision or {}
    return {
        "event": event.to_json() if event else None,
        "word": recorded.parsed.word,
        "handled": recorded.handled,
        "runs": [run["name"] for run in decision.get("runs", ())],
    }


async def _answer(send: Send, known: _Known, recorded: intake.Recorded, parsed: Parsed) -> None:
    """Say what became of the delivery: 202 for an event, 204 for one nobody knows, else 200."""
    where = f"{known.url.rstrip('/')}/api/v1/projects/{known.project.name}/deliveries/{recorded.id}"
    told: dict[str, Any] = {"delivery": recorded.id, "decision_url": where}
    if not recorded.first:
        await send_json(send, 200, {**told, "duplicate": True, **_first(recorded)})
    elif parsed.event is not None:
        await send_json(send, 202, {**told, "event": parsed.event.to_json()})
    elif parsed.word == "unknown-event":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    else:
        await send_json(send, 200, {**told, "word": parsed.word, "sentence": parsed.sentence})
