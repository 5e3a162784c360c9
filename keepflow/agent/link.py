"""The agent's one link to its master: outbound, proven on both sides, taken up again after every break.

Downwards, a message is on this host's disk before it is confirmed. Upwards, reports and log bytes are sent from the
disk, and again until they are confirmed. All of it happens in one thread; others write to the disk and wake it.
"""

from __future__ import annotations

import base64
import itertools
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import ValidationError

import keepflow
from keepflow import errors
from keepflow.agent.attempts import Attempts
from keepflow.agent.channel import Channel, Wake, dial
from keepflow.agent.clock import Clock
from keepflow.agent.logs import Log
from keepflow.agent.pins import Pins
from keepflow.agent.reports import Reports
from keepflow.agent.waits import Waits
from keepflow.crypto.keys import PrivateKey
from keepflow.tools.failpoints import fail
from keepflow.wire import messages
from keepflow.wire.messages import Body, Heartbeat, Hello

log = Log(__name__)
Expected = TypeVar("Expected", messages.Challenge, messages.Welcome)

WINDOW = 8 * 1024 * 1024  #: bytes of one attempt's log that may be on their way without being confirmed
_CONGESTED = 512 * 1024  #: bytes waiting for the network above which no more log is added
_REPORTS_AT_ONCE = 256
_FAREWELL = 0.5  #: seconds to send what is left before leaving
_HANDSHAKE = 10.0  #: seconds for the master to answer in the handshake
_STEP = 5.0  #: seconds
_REST = 0.003  #: seconds between two rounds of sending while there is much to say; the first word never waits
_SILENT_BEATS = 2.0  #: heartbeats without a word from the master after which the link is dead


@dataclass(slots=True)
class _Session:
    """What is known of one connection."""

    channel: Channel
    heartbeat: float
    heard: float = field(default_factory=time.monotonic)
    beat_due: float = 0.0
    beat_sent: int = 0
    sent_at: float = 0.0  #: when something was last sent
    reported: int = 0
    sent: dict[int, int] = field(default_factory=dict)  #: fence → offset up to which its log was sent
    heard_of: list[messages.Send] = field(default_factory=list)  #: messages that are still to be put on the disk
    received: list[int] = field(default_factory=list)  #: ids of messages that are on the disk
    settled: bool = False  #: whether the master holds more than before, so that attempts may have become its alone


class Link:
    """Keeps the connection. `take` puts messages on the disk and must not block on anything else."""

    def __init__(
        self,
        pins: Pins,
        key: PrivateKey,
        *,
        reports: Reports,
        attempts: Attempts,
        clock: Clock,
        wake: Wake,
        hello: Callable[[Hello], Hello],
        beat: Callable[[], Heartbeat],
        take: Callable[[Sequence[Body]], None],
    ) -> None:
        self._pins, self._key = pins, key
        self._reports, self._attempts, self._clock = reports, attempts, clock
        self._hello, self._beat, self._take = hello, beat, take
        self._wake = wake
        self._leaving: str | None = None
        self._gone = threading.Event()
        self._stale = False
        self._waits = Waits()
        self.connected = threading.Event()
        self.trouble = ""  #: why there is no link, "" when there is one or none was tried yet
        self.turns = 0  #: rises with every turn of the loop, so that somebody can see that it still turns

    def run(self) -> None:
        """Connect, talk, and connect again, until `leave`."""
        while self._leaving is None:
            self.turns += 1
            try:
                self._talk()
            except errors.KeepflowError as error:
                self.trouble = error.message
                log.warning("no link to the master", url=self._pins.identity.url, code=error.code, reason=error.message)
            finally:
                self.connected.clear()
            self._wait(self._waits.next())

    def leave(self, sentence: str) -> None:
        """Say farewell as soon as what is on the disk has been sent; callable from every thread."""
        self._leaving = sentence
        self._gone.set()
        self._wake()

    def renew(self) -> None:
        """Connect anew soon, because what the agent says of itself has changed; callable from every thread."""
        self._stale = True
        self._wake()

    def _wait(self, seconds: float) -> None:
        """Wait in small steps, so that it can be seen that this thread still turns."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._gone.wait(min(left, _STEP)):
            self.turns += 1

    # --- one connection -----------------------------------------------------------------------------------------------

    def _talk(self) -> None:
        channel = dial(self._pins.identity.url, self._pins.identity.ca_pem, self._wake)
        try:
            self._stale = False
            session = self._shake_hands(channel)
            self.trouble = ""
            self.connected.set()
            self._waits.reset()
            log.info("linked to the master", url=self._pins.identity.url, agent=self._pins.identity.agent)
            while self._leaving is None and not self._stale:
                self._turn(session)
            self._bid_farewell(session)
        finally:
            channel.close()

    def _shake_hands(self, channel: Channel) -> _Session:
        challenge = self._expect(channel, messages.Challenge)
        lowest, highest = challenge.protocol
        if highest < messages.PROTOCOL[0] or lowest > messages.PROTOCOL[1]:
            raise errors.Unavailable(
                f"the master speaks protocol {lowest}-{highest}, this agent {messages.PROTOCOL}: update the older one",
                code="protocol",
            )
        asked = self._clock.mark()
        nonce, key_id = secrets.token_hex(16), self._key.public.key_id
        signature = self._key.sign(messages.hello_bytes(challenge.nonce, key_id, nonce))
        sealing_key = _base64(self._key.opening.public)
        hello = Hello(
            key_id=key_id,
            signature=_base64(signature),
            nonce=nonce,
            version=keepflow.__version__,
            sealing_key=sealing_key,
            sealing_proof=_base64(self._key.sign(messages.sealing_bytes(key_id, sealing_key))),
        )
        channel.send(self._hello(hello).model_dump_json())
        welcome = self._expect(channel, messages.Welcome)
        self._pins.follow(welcome.rotations)
        self._check_master(welcome, nonce)
        self._clock.heard(welcome.master_time, asked)
        for fence, offset in welcome.acked_logs.items():
            if attempt := self._attempts.get(fence):
                attempt.log.agree(offset)
        return _Session(channel, heartbeat=max(0.05, welcome.heartbeat))

    def _expect(self, channel: Channel, kind: type[Expected]) -> Expected:
        deadline = time.monotonic() + _HANDSHAKE
        while time.monotonic() < deadline:
            frame = channel.receive(deadline - time.monotonic())
            message = _read(frame) if frame is not None else None
            if isinstance(message, kind):
                return message
            self._heed_goodbye(message)
        raise errors.Unavailable("the master did not finish the handshake in time", code="silent")

    def _check_master(self, welcome: messages.Welcome, nonce: str) -> None:
        """Make sure that it is the master this agent was joined to, before anything is believed."""
        proof = _unbase64(welcome.proof)
        text = messages.welcome_bytes(nonce, welcome.agent)
        for key in self._pins.identity.order_keys:
            try:
                key.verify(proof, text)
            except errors.BadSignature:
                continue
            if welcome.agent != self._pins.identity.agent:
                raise errors.BadSignature(
                    f"the master calls this agent {welcome.agent!r}, not {self._pins.identity.agent!r}"
                )
            return
        raise errors.BadSignature("whoever answers there does not hold the order key this agent was joined to")

    def _turn(self, session: _Session, longest: float = float("inf")) -> None:
        """Send what is due, then wait for the next thing to do, at most `longest` seconds."""
        fail("link.turn")
        self.turns += 1
        more = self._send(session)
        now = time.monotonic()
        silent_at = session.heard + _SILENT_BEATS * session.heartbeat
        wait = 0.0 if more else min(session.beat_due - now, silent_at - now, longest)
        rest = session.sent_at + _REST - now
        frame = session.channel.receive(min(wait, rest), wakes=False) if rest > 0 else session.channel.receive(wait)
        if frame is None and now >= silent_at:
            raise errors.Unavailable(f"the master was silent for {now - session.heard:.0f} s", code="silent")
        while frame is not None:
            session.heard = time.monotonic()
            self._hear(session, frame)
            frame = session.channel.receive(0) if session.channel.has_more else None
        self._put_on_disk(session)
        if session.settled:
            session.settled = False
            self._attempts.sweep(self._reports.confirmed)
            for fence in session.sent.keys() - {attempt.fence for attempt in self._attempts}:
                del session.sent[fence]

    def _send(self, session: _Session) -> bool:
        """Send one round of everything that waits; True when there is more that could go out at once."""
        if session.received:
            session.channel.send(messages.Received(ids=tuple(session.received)).model_dump_json())
            session.received.clear()
        more = self._send_logs(session)
        more |= self._send_reports(session)
        if time.monotonic() >= session.beat_due:
            session.beat_due = time.monotonic() + session.heartbeat
            session.beat_sent = self._clock.mark()
            session.channel.send(self._beat().model_dump_json())
        return more

    def _send_logs(self, session: _Session) -> bool:
        """Send at most one frame of each log; what is unconfirmed stays within the window."""
        more = False
        for attempt in self._attempts:
            sent = session.sent.setdefault(attempt.fence, attempt.log.acked)
            room = min(WINDOW - (sent - attempt.log.acked), attempt.log.size - sent)
            if room <= 0:
                continue
            if session.channel.backlog > _CONGESTED:
                return False
            data = attempt.log.read(sent, min(room, messages.LOG_FRAME_LIMIT))
            session.channel.send(messages.LOG_HEADER.pack(attempt.fence, sent) + data)
            session.sent[attempt.fence] = sent + len(data)
            session.sent_at = time.monotonic()
            more |= len(data) < room
        return more

    def _send_reports(self, session: _Session) -> bool:
        waiting = self._reports.after(session.reported, _REPORTS_AT_ONCE)
        if not waiting or session.channel.backlog > _CONGESTED:
            return False
        if not self._reports.sync():
            log.error("reports cannot be written: the disk is full")
            return False
        for number, text in waiting:
            session.channel.send(text)
            session.reported = number
        session.sent_at = time.monotonic()
        return len(waiting) == _REPORTS_AT_ONCE

    def _hear(self, session: _Session, frame: str | bytes) -> None:
        message = _read(frame)
        self._heed_goodbye(message)
        match message:
            case messages.Send():
                session.heard_of.append(message)
            case messages.Reported(number=number):
                self._reports.confirm(number)
                session.settled = True
            case messages.LogAck(fence=fence, offset=offset):
                self._log_acknowledged(session, fence, offset)
            case messages.Beat(master_time=master_time):
                self._clock.heard(master_time, session.beat_sent)
            case other:
                log.warning("the master said something unexpected", type=getattr(other, "type", "unreadable"))

    def _put_on_disk(self, session: _Session) -> None:
        """Put what came together on the disk together; only then the master hears that it is there."""
        came, session.heard_of = session.heard_of, []
        for are_keys, some in itertools.groupby(came, key=lambda sent: isinstance(sent.body, messages.KeyRotated)):
            rows = list(some)
            if not are_keys:
                self._take([sent.body for sent in rows])
            for sent in rows if are_keys else ():
                if isinstance(sent.body, messages.KeyRotated):
                    self._follow(sent.body)
            session.received += [sent.id for sent in rows]

    def _follow(self, body: messages.KeyRotated) -> None:
        try:
            self._pins.follow([body.envelope])
        except errors.BadSignature as error:
            log.warning("a new order key was refused", reason=error.message)

    def _heed_goodbye(self, message: messages.FromMaster | None) -> None:
        """Raise when the master says that this link is over, and come back when it said."""
        if isinstance(message, messages.Refused):
            self._waits.refused()
            raise errors.Refused(message.sentence, code=message.code)
        if isinstance(message, messages.Farewell):
            self._waits.asked(message.retry)
            raise errors.Unavailable(f"the master is leaving: {message.sentence}", code="farewell")

    def _log_acknowledged(self, session: _Session, fence: int, offset: int) -> None:
        attempt = self._attempts.get(fence)
        if attempt is None:
            return
        if offset < attempt.log.acked:  # a master that was restored from a backup holds less than it once did
            attempt.log.agree(offset)
            session.sent[fence] = offset
        else:
            attempt.log.acknowledge(offset)
            session.settled = True

    def _bid_farewell(self, session: _Session) -> None:
        """Send what is still on the disk, for a moment, then go."""
        deadline = time.monotonic() + _FAREWELL
        while self._unsent(session) and (left := deadline - time.monotonic()) > 0:
            self._turn(session, left)
        session.channel.send(messages.Farewell(sentence=self._leaving or "").model_dump_json())

    def _unsent(self, session: _Session) -> bool:
        logs = any(attempt.log.acked < attempt.log.size for attempt in self._attempts)
        return logs or bool(session.received or self._reports.after(0, 1))


def _read(frame: str | bytes) -> messages.FromMaster | None:
    """Return a message, or None for one this version cannot read."""
    try:
        return messages.from_master.validate_json(frame)
    except ValidationError:
        return None


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
