"""Agents at the door: enrolment, and the handshake that proves who an agent is before anything else is said.

An agent is who its key says it is. Two live sessions of one key mean that the key was copied: both are turned away
until a person has looked. A session whose network died without a word is no copy: it must show life to count.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from functools import partial

import structlog
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from keepflow import errors
from keepflow.core.text import one_line
from keepflow.engine import clock, enrol
from keepflow.engine.context import Master
from keepflow.gateway.answers import allow, header, send_bytes
from keepflow.gateway.bell import Closing
from keepflow.gateway.limits import Body, Room, declared_length
from keepflow.gateway.presence import Presence
from keepflow.gateway.readers import Readers
from keepflow.gateway.sessions import Pressure, Session
from keepflow.store.agents import Agent
from keepflow.wire import messages

log = structlog.get_logger(__name__)

_HANDSHAKE = 10.0  #: seconds for an agent to answer the challenge
_MOST_STRANGERS = 4096  #: connections that have not proved yet who they are
_ENROL_LIMIT, _ENROL_ROOM = 16 * 1024, 4 * 1024 * 1024
#: Seconds in which an earlier session must show life, and in which a dying one may still be heard.
_CONTEST, _LAST_WORDS = 7.0, 0.5


class Agents:
    """`POST /agents/enrol` and the WebSocket `/agents/link`."""

    def __init__(self, master: Master, readers: Readers, closing: Closing) -> None:
        self._master, self._readers, self._closing = master, readers, closing
        self._sessions: dict[int, Session] = {}
        self._contested: set[int] = set()
        self._strangers = 0
        self._presence, self._pressure = Presence(master), Pressure()
        self._room = Room(_ENROL_ROOM, senders=64, per_address=16)

    # --- enrolment ---

    async def enrol(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Burn a join token for a key."""
        allow(scope, "POST")
        declared_length(scope, _ENROL_LIMIT)
        async with Body(scope, receive, self._room, _ENROL_LIMIT) as body:
            try:
                asked = messages.Enrol.model_validate_json(body)
            except ValidationError:
                raise errors.UsageError("this is no request to join", code="bad-body") from None
        work = partial(enrol.enrol, master=self._master, asked=asked, now=clock.now())
        enrolled = await asyncio.wrap_future(self._master.writer.submit(work))
        await send_bytes(send, 200, enrolled.model_dump_json().encode(), ((b"content-type", b"application/json"),))

    # --- the link ---

    async def link(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket from its handshake to its end."""
        await receive()
        # Browsers always send an Origin, agents never do: no page may speak here.
        if header(scope, b"origin") is not None or self._closing.begun or self._strangers >= _MOST_STRANGERS:
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "websocket.accept"})
        self._strangers += 1
        try:
            session = await self._admit(receive, send)
        except (errors.AuthError, errors.Refused, errors.UsageError) as error:
            log.warning("an agent was turned away", code=error.code, reason=one_line(error.message))
            await _leave_at(send, messages.Refused(code=error.code, sentence=error.message))
            return
        except (TimeoutError, errors.Unavailable) as error:
            await _leave_at(send, messages.Farewell(sentence=str(error) or "the handshake took too long", retry=5.0))
            return
        except OSError:
            return  # it went away in the middle
        finally:
            self._strangers -= 1
        await self._serve(session, receive)

    async def _serve(self, session: Session, receive: Receive) -> None:
        agent = session.agent
        log.info("an agent is linked", agent=agent.name)
        why = "the link to it broke"
        try:
            why = await session.run(receive)
        finally:
            # In this order and without a pause: whoever comes next finds the place free and is written down later.
            del self._sessions[agent.id]
            self._presence.forget(agent.id)
            log.info("an agent's link ended", agent=agent.name, why=why)
            self._leave(agent.id, why)

    def _leave(self, agent_id: int, why: str) -> None:
        work = partial(enrol.disconnected, master=self._master, agent_id=agent_id, why=why, now=clock.now())
        try:
            self._master.writer.submit(work)
        except errors.Unavailable:
            return  # the store is closed: the next start finds nobody connected anyway

    async def _admit(self, receive: Receive, send: Send) -> Session:
        nonce = secrets.token_hex(16)
        await _say(send, messages.Challenge(nonce=nonce, master_time=clock.now()))
        async with asyncio.timeout(_HANDSHAKE):
            hello = await _hello(receive)
        agent, welcome = await self._readers.call(partial(enrol.greet, self._master, nonce, hello, clock.now()))
        await self._settle_contest(agent)
        session = Session(
            self._master, self._readers, self._closing, self._presence, self._pressure, agent=agent, send=send
        )
        self._sessions[agent.id] = session
        try:
            work = partial(enrol.connected, master=self._master, agent_id=agent.id, hello=hello, now=clock.now())
            await asyncio.wrap_future(self._master.writer.submit(work))
            await session.say(welcome)
        except BaseException:
            del self._sessions[agent.id]
            self._leave(agent.id, "the handshake broke off")
            raise
        return session

    async def _settle_contest(self, agent: Agent) -> None:
        """Return when the place of this agent is free; raises Refused when an earlier session is, or may be, alive."""
        earlier = self._sessions.get(agent.id)
        if earlier is None:
            return
        if agent.id in self._contested:
            raise errors.Refused("another session with this key is being checked; come again", code="busy")
        self._contested.add(agent.id)
        try:
            if await earlier.shows_life(_CONTEST, _LAST_WORDS):
                work = partial(enrol.cloned, master=self._master, agent_id=agent.id, now=clock.now())
                await asyncio.wrap_future(self._master.writer.submit(work))
                raise errors.Refused("two machines use this agent's key; both are blocked, ask an admin", code="cloned")
            if agent.id in self._sessions:
                raise errors.Refused("an earlier link of this agent is not given up yet; come again", code="busy")
        finally:
            self._contested.discard(agent.id)


async def _hello(receive: Receive) -> messages.Hello:
    message = await receive()
    if message["type"] != "websocket.receive":
        raise OSError("the agent went away")
    try:
        hello = messages.from_agent.validate_json(message.get("text") or "")
    except ValidationError:
        raise errors.UsageError("this is no hello of an agent", code="bad-hello") from None
    if not isinstance(hello, messages.Hello):
        raise errors.UsageError("an agent says hello first", code="bad-hello")
    return hello


async def _say(send: Send, message: messages.Message) -> None:
    await send({"type": "websocket.send", "text": message.model_dump_json()})


async def _leave_at(send: Send, last: messages.Message) -> None:
    """Close a link with a last word; the agent may be gone already."""
    with contextlib.suppress(OSError):
        await _say(send, last)
        await send({"type": "websocket.close", "code": 1000})
