"""A small web application for tests of deploys; what goes wrong with it is chosen by its environment.

`MODE`   ok · exit (ends at once) · sick (answers 500) · late-death (ends when the first visitor comes through nginx)
         storm (answers 500 to every path but /) · short-life (ends some seconds after the first visitor came)
`VERSION`  what it calls itself; GET answers `marker: VERSION`, POST answers what was posted
"""

import os
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODE = os.environ.get("MODE", "ok")
VERSION = os.environ.get("VERSION", "unknown")


class Handler(BaseHTTPRequestHandler):
    """Answers every path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Tell the version."""
        if MODE == "late-death" and "X-Forwarded-For" in self.headers:
            print("a visitor came: dying", flush=True)
            os._exit(3)
        if MODE == "short-life" and "X-Forwarded-For" in self.headers:
            threading.Timer(float(os.environ.get("LIFE", "5")), os._exit, (3,)).start()
        failing = MODE == "sick" or (MODE == "storm" and self.path != "/")
        self._answer(500 if failing else 200, f"marker: {VERSION}\n".encode())

    def do_POST(self) -> None:
        """Echo."""
        self._answer(200, self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing per request."""


class Server(ThreadingHTTPServer):
    """Takes as many connections at once as a load brings."""

    request_queue_size = 128
    daemon_threads = True

    def get_request(self) -> tuple[socket.socket, object]:
        """Send every piece at once: head and body are two."""
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address


print(f"version {VERSION} in mode {MODE}", flush=True)
if MODE == "exit":
    print("cannot open the database", flush=True)
    sys.exit(7)
Server(("", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
