"""Those who are told, for real: a mail server and an HTTP server on loopback that remember what they took."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from aiosmtpd.controller import Controller

from tests.real.waiting import free_port


class Mailbox:
    """What the mail server took. It refuses those in `refused` for good and puts those in `later` off."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, EmailMessage]] = []
        self.refused: set[str] = set()
        self.later: set[str] = set()
        self.port = 0

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        """Answer for one recipient."""
        if address in self.refused:
            return "550 no such person"
        if address in self.later:
            return "451 come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Take one message."""
        message = cast(EmailMessage, BytesParser(policy=default).parsebytes(envelope.content))
        self.taken += [(recipient, message) for recipient in envelope.rcpt_tos]
        return "250 taken"


@contextmanager
def mail_server() -> Iterator[Mailbox]:
    """Serve SMTP on a free port."""
    box = Mailbox()
    box.port = free_port()
    controller = Controller(box, hostname="127.0.0.1", port=box.port)
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


class Ear:
    """What the HTTP server was told: path, headers (lower case) and body; `answers` are statuses, the last repeats."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str]]] = [(200, {})]
        self.url = ""

    def answer(self) -> tuple[int, dict[str, str]]:
        """Return what to answer next."""
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def http_server() -> Iterator[Ear]:
    """Serve HTTP on a free port of loopback."""
    ear = Ear()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            ear.heard.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            status, headers = ear.answer()
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        ear.url = f"http://127.0.0.1:{server.server_port}/hooks/s3cret"
        yield ear
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
