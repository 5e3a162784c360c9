"""Webhooks: length, signature over the raw bytes, one fsynced insert, and only then the answer.

This is the path that decides how many pushes a second the master takes, so it does nothing else: no git, no flow file,
and a project's row is read once, until some project is changed.
"""

from __future__ import annotations

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
from keepflow.gateway.recording import Recording
from keepflow.store import projects
from keepflow.store.projects import Project

log = structlog.get_logger(__name__)

#: Forges send nothing above 25 MB.
LIMIT = 25 * MIB
#: Bodies above this are checked and read in a thread; below it the hand-over costs more than the work.
_LARGE = 256 * 1024
_CONTENT_TYPES = (b"application/json", b"application/x-www-form-urlencoded")
#: Headers worth keeping with a delivery begin like this; `intake` leaves out what proves the sender.
_KEPT = ("x-", "content-type", "user-agent")


@dataclass(frozen=True, slots=True)
class _Known:
    """A project as hooks see it: its row, its forge, its secret in the clear."""

    project: Project
    forge: ModuleType
    secret: bytes = field(repr=False)
    url: str
    generation: object  #: what was valid when it was read


class Hooks:
    """`POST /hooks/{project}`."""

    def __init__(self, master: Master, readers: Readers, room: Room) -> None:
        self._master, self._readers, self._room = master, readers, room
        self._recording = Recording(master)
        self._known: dict[str, _Known] = {}
        self._generation = object()
        master.wakes.subscribe("projects", self._forget)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one webhook; raises every KeepflowError that is its refusal."""
        allow(scope, "POST")
        known = await self._project(scope["path_params"]["project"])
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        _check_content(headers)
        declared_length(scope, LIMIT)
        async with Body(scope, receive, self._room, LIMIT) as body:
            await self._verify(known, headers, body)
            delivery, name = _names(known.forge, headers)
            parsed = await self._parsed(known, headers, body)
            call = intake.Call(
                project=known.project,
                delivery_id=delivery,
                forge=known.project.forge,
                event_name=name,
                headers={key: value for key, value in headers.items() if key.startswith(_KEPT)},
                body=body,
                parsed=parsed,
                received_at=clock.now(),
            )
            recorded = await self._recording.record(call)
        await _answer(send, known, recorded, parsed)

    def _forget(self) -> None:
        """Read every project anew: one was changed."""
        self._generation = object()

    async def _project(self, name: str) -> _Known:
        known = self._known.get(name)
        if known is not None and known.generation is self._generation:
            return known
        self._known.pop(name, None)
        if not is_name(name):
            raise _no_project()
        generation = self._generation
        project, url = await self._readers.query(lambda conn: (_find(conn, name), self._master.url()))
        sealed, place = project.hook_secret, projects.hook_secret_place(name)
        secret = self._master.vault.unseal(sealed, place) if sealed else b""
        known = self._known[name] = _Known(project, self._master.forges[project.forge], secret, url, generation)
        return known

    async def _verify(self, known: _Known, headers: Mapping[str, str], body: bytes) -> None:
        verify = partial(known.forge.verify, headers, body, known.secret)
        try:
            await self._readers.call(verify) if len(body) > _LARGE else verify()
        except errors.BadSignature as error:
            log.warning("a hook was refused", project=known.project.name, why=error.message)
            raise errors.BadSignature("the signature is missing or does not fit; compare the hook's secret") from None

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


def _first(known: _Known, recorded: intake.Recorded) -> dict[str, Any]:
    """Return what is known of a delivery that came before, so that its sender need not ask."""
    event, decision = recorded.parsed.event, recorded.decision or {}
    return {
        "event": event.to_json() if event else None,
        "word": recorded.parsed.word,
        "handled": recorded.handled,
        "runs": [f"{known.project.name}#{run['run']}" for run in decision.get("runs", ())],
    }


async def _answer(send: Send, known: _Known, recorded: intake.Recorded, parsed: Parsed) -> None:
    """Say what became of the delivery: 202 for an event, 204 for one nobody knows, else 200."""
    master, place = known.url.rstrip("/"), f"projects/{known.project.name}/deliveries/{recorded.id}"
    told: dict[str, Any] = {
        "delivery": recorded.id,
        "decision_url": f"{master}/api/v1/{place}",
        "page": f"{master}/{place}",
    }
    if not recorded.first:
        await send_json(send, 200, {**told, "duplicate": True, **_first(known, recorded)})
    elif parsed.event is not None:
        await send_json(send, 202, {**told, "event": parsed.event.to_json()})
    elif parsed.word == "unknown-event":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    else:
        await send_json(send, 200, {**told, "word": parsed.word, "sentence": parsed.sentence})
