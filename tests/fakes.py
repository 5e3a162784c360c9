"""Stand-ins for the other side of a wire: real sockets, real messages, and a memory of everything that was said."""

from __future__ import annotations

import base64
import contextlib
import http.client
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from keepflow.crypto import keys, tokens
from keepflow.crypto.keys import PrivateKey, PublicKey
from keepflow.wire import messages
from tests.real.waiting import wait_until


@dataclass
class FakeMaster:
    """A master as an agent sees it: enrolment, the link, and the code of one repository.

    What it was told is in `reports` (by number), `logs` (by fence) and `heartbeats`; what it has to say is `send`.
    """

    heartbeat: float = 10.0
    code_url: str = ""  #: a git server that requests below /git/ are passed on to
    key: PrivateKey = field(default_factory=keys.generate)
    signs_with: PrivateKey | None = None  #: another key than the pinned one, to be somebody else
    rotations: tuple[dict[str, Any], ...] = ()  #: what `welcome` says of the order keys so far
    url: str = ""
    ahead: float = 0.0  #: seconds its clock, as shown to whoever asks for a proof, is ahead of this machine's
    refuses: messages.Refused | None = None
    acks_logs: bool = True
    acks_reports: bool = True
    agents: dict[str, tuple[str, PublicKey]] = field(default_factory=dict)  #: key id → name, key
    join_tokens: dict[str, str] = field(default_factory=dict)  #: token → agent name
    reports: dict[int, messages.ReportBody] = field(default_factory=dict)
    repeated_reports: int = 0
    logs: dict[int, bytearray] = field(default_factory=dict)
    log_gaps: list[tuple[int, int, int]] = field(default_factory=list)
    heartbeats: list[messages.Heartbeat] = field(default_factory=list)
    hellos: list[messages.Hello] = field(default_factory=list)
    farewells: list[messages.Farewell] = field(default_factory=list)
    outgoing: dict[int, messages.Send] = field(default_factory=dict)
    _rows: int = 0
    _session: _Session | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)

    # --- what a test does ---------------------------------------------------------------------------------------------

    def token(self, agent: str) -> str:
        """Make a join token."""
        text = f"{tokens.new('join')}.{self.key.public.key_id}"
        self.join_tokens[text] = agent
        return text

    def send(self, body: messages.Body) -> None:
        """Write one row of `outgoing` and send it, as often as it takes."""
        with self._lock:
            self._rows += 1
            row = messages.Send(id=self._rows, body=body)
            self.outgoing[row.id] = row
            if self._session:
                self._session.say(row)

    def cut(self) -> None:
        """Break the connection without a word, as a cable does."""
        with self._lock:
            if self._session:
                self._session.break_off()

    @property
    def connected(self) -> bool:
        """Whether an agent is linked now."""
        return self._session is not None

    def await_report(self, kind: type[messages.Message], fence: int | None = None, seconds: float = 20) -> Any:
        """Return the first report of a kind (and attempt), waiting for it."""

        def find() -> messages.Message | None:
            with self._lock:
                for body in self.reports.values():
                    if isinstance(body, kind) and fence in (None, body.fence):
                        return body
            return None

        return wait_until(find, seconds, f"a {kind.__name__} of {fence}", every=0.002)

    def await_log(self, fence: int, wanted: bytes, seconds: float = 20) -> bytes:
        """Return the log of an attempt once it contains these bytes."""

        def look() -> bytes | None:
            with self._lock:
                text = bytes(self.logs.get(fence, b""))
            return text if wanted in text else None

        return wait_until(look, seconds, f"{wanted!r} in the log of {fence}", every=0.002)

    def await_whole_log(self, fence: int, seconds: float = 20) -> str:
        """Return the log of an attempt that has ended, once all of it is here."""
        finished = self.await_report(messages.JobFinished, fence, seconds)

        def whole() -> bytes | None:
            with self._lock:
                text = bytes(self.logs.get(fence, b""))
            return text if len(text) >= finished.log_bytes else None

        return wait_until(whole, seconds, f"{finished.log_bytes} bytes of log of {fence}").decode()

    # --- what the agent says ------------------------------------------------------------------------------------------

    def enrol(self, body: bytes) -> tuple[int, bytes]:
        """Answer `POST /agents/enrol`."""
        request = messages.Enrol.model_validate_json(body)
        name = self.join_tokens.pop(request.token, None)
        if name is None:
            return 403, b'{"detail": "this token was used, or never existed"}'
        key = PublicKey.parse(request.public_key)
        key.verify(base64.b64decode(request.proof), request.token.encode())
        self.agents[key.key_id] = (name, key)
        answer = messages.Enrolled(agent=name, order_key=(self.signs_with or self.key).public.text, url=self.url)
        return 200, answer.model_dump_json().encode()

    def prove(self, nonce: str) -> bytes:
        """Answer `GET /agents/proof`."""
        key = self.signs_with or self.key
        proof = base64.b64encode(key.sign(messages.proof_bytes(nonce))).decode()
        time_here = time.time_ns() // 1000 + round(self.ahead * 1e6)
        answer = messages.Proven(proof=proof, key_id=key.public.key_id, master_time=time_here, version="1.2.3")
        return answer.model_dump_json().encode()

    def greet(self, session: _Session, challenge: messages.Challenge, hello: messages.Hello) -> bool:
        """Let an agent in, or not."""
        self.hellos.append(hello)
        if self.refuses or hello.key_id not in self.agents:
            session.say(self.refuses or messages.Refused(code="unknown-agent", sentence="nobody knows this key"))
            return False
        name, key = self.agents[hello.key_id]
        key.verify(base64.b64decode(hello.signature), messages.hello_bytes(challenge.nonce, hello.key_id, hello.nonce))
        proof = (self.signs_with or self.key).sign(messages.welcome_bytes(hello.nonce, name))
        with self._lock:
            session.say(
                messages.Welcome(
                    agent=name,
                    protocol=1,
                    proof=base64.b64encode(proof).decode(),
                    master_time=time.time_ns() // 1000,
                    heartbeat=self.heartbeat,
                    rotations=self.rotations,
                    acked_logs={fence: len(self.logs.get(fence, b"")) for fence in hello.running},
                )
            )
            for row in self.outgoing.values():
                session.say(row)
            self._session = session
        return True

    def hear(self, session: _Session, message: messages.FromAgent) -> None:
        """Take one message."""
        with self._lock:
            if isinstance(message, messages.Received):
                for row in message.ids:
                    self.outgoing.pop(row, None)
            elif isinstance(message, messages.Report):
                self.repeated_reports += message.number in self.reports
                self.reports.setdefault(message.number, message.body)
                if self.acks_reports:
                    session.say(messages.Reported(number=message.number))
            elif isinstance(message, messages.Heartbeat):
                self.heartbeats.append(message)
                session.say(messages.Beat(master_time=time.time_ns() // 1000))
            elif isinstance(message, messages.Farewell):
                self.farewells.append(message)

    def hear_log(self, session: _Session, frame: bytes) -> None:
        """Take log bytes where they belong; a gap is remembered and not filled."""
        fence, offset = messages.LOG_HEADER.unpack_from(frame)
        data = frame[messages.LOG_HEADER.size :]
        with self._lock:
            held = self.logs.setdefault(fence, bytearray())
            if offset > len(held):
                self.log_gaps.append((fence, len(held), offset))
                return
            assert held[offset : offset + len(data)] == data[: len(held) - offset], "bytes sent again were other bytes"
            held += data[len(held) - offset :]
            if self.acks_logs:
                session.say(messages.LogAck(fence=fence, offset=len(held)))

    def left(self, session: _Session) -> None:
        """Forget a connection."""
        with self._lock:
            if self._session is session:
                self._session = None


class _Session:
    """The master's end of one WebSocket."""

    def __init__(self, master: FakeMaster, connection: socket.socket, request: bytes) -> None:
        self._master, self._connection = master, connection
        self._protocol = ServerProtocol(max_size=4 * messages.FRAME_LIMIT)
        self._protocol.receive_data(request)
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Talk until one side goes."""
        request = self._protocol.events_received()[0]
        self._protocol.send_response(self._protocol.accept(request))  # type: ignore[arg-type]  # it is the request
        challenge = messages.Challenge(nonce=secrets.token_hex(16), master_time=time.time_ns() // 1000)
        self.say(challenge)
        greeted = False
        try:
            for frame in self._frames():
                if isinstance(frame, bytes):
                    self._master.hear_log(self, frame)
                    continue
                message = messages.from_agent.validate_json(frame)
                if not greeted:
                    assert isinstance(message, messages.Hello)
                    greeted = self._master.greet(self, challenge, message)
                    if not greeted:
                        return
                else:
                    self._master.hear(self, message)
        finally:
            self._master.left(self)

    def say(self, message: messages.Message) -> None:
        """Send one message; a connection that is gone takes it too."""
        with self._lock, contextlib.suppress(OSError):
            if self._protocol.state is State.OPEN:
                self._protocol.send_text(message.model_dump_json().encode())
            self._flush()

    def break_off(self) -> None:
        """End the connection without a word."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _frames(self) -> Iterator[str | bytes]:
        while True:
            try:
                data = self._connection.recv(65536)
            except OSError:
                return
            with self._lock:
                self._protocol.receive_data(data) if data else self._protocol.receive_eof()
                events = self._protocol.events_received()
                with contextlib.suppress(OSError):
                    self._flush()
            for event in events:
                if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY):
                    yield event.data.decode() if event.opcode is Opcode.TEXT else bytes(event.data)
            if not data:
                return

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._connection.sendall(data)


@contextlib.contextmanager
def serve_master(*, tls: tuple[Path, Path] | None = None, **settings: Any) -> Iterator[FakeMaster]:
    """Run a fake master on a free loopback port; `tls` are the files of a certificate and its key."""
    master = FakeMaster(**settings)
    server = _Server(("127.0.0.1", 0), _handler(master))
    if tls:
        server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.tls.load_cert_chain(*tls)
    master.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield master
    finally:
        server.shutdown()
        master.cut()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands in the thread of the connection; whoever does not trust us is no error of ours."""
        try:
            connection = self.tls.wrap_socket(request, server_side=True) if self.tls else request
        except (ssl.SSLError, OSError):
            return
        with contextlib.closing(connection):
            super().finish_request(connection, client_address)


def _handler(master: FakeMaster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/agents/link":
                head = f"GET {self.path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in self.headers.items())
                self.close_connection = True
                _Session(master, self.connection, f"{head}\r\n".encode()).serve()
            elif self.path.startswith("/agents/proof?nonce="):
                self._answer(200, master.prove(self.path.partition("=")[2]), "application/json")
            else:
                self._pass_on(None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/agents/enrol":
                self._answer(*master.enrol(body), "application/json")
            else:
                self._pass_on(body)

        def _pass_on(self, body: bytes | None) -> None:
            if not self.path.startswith("/git/") or not master.code_url:
                self._answer(404, b"", "text/plain")
                return
            code = urlsplit(master.code_url)
            there = http.client.HTTPConnection(code.hostname or "", code.port or 80)
            try:
                rest = self.path.split("/", 3)[3]
                there.request(self.command, f"{code.path}/{rest}", body, dict(self.headers.items()))
                answer = there.getresponse()
                self._answer(answer.status, answer.read(), answer.headers.get("Content-Type", ""))
            finally:
                there.close()

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
