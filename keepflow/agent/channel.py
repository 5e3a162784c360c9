"""One WebSocket to the master, driven by one thread: nothing blocks but `receive`, and that only as long as it is told.

The protocol is the websockets library's; the socket is ours. Its threaded client would read and write one TLS
connection from two threads, which OpenSSL does not allow, and could hang in `send` on a link that is dead but open.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import time
from collections import deque
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from keepflow import errors
from keepflow.wire.messages import FRAME_LIMIT

_DIAL = 10.0  #: seconds to connect and to be let in
_DEAD_LINK = 20_000  #: milliseconds that sent bytes may stay unconfirmed before the kernel gives the connection up
_PIECE = 64 * 1024


class Wake:
    """Ends a `receive` from another thread."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __call__(self) -> None:
        os.eventfd_write(self.descriptor, 1)

    def clear(self) -> None:
        """Forget the calls so far."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)


class Channel:
    """An open connection. Text and bytes go out in the order they were sent; `backlog` bytes have not left yet."""

    def __init__(self, connection: socket.socket, protocol: ClientProtocol, wake: Wake) -> None:
        self._socket = connection
        self._protocol = protocol
        self._wake = wake
        self._out = bytearray()
        self._parts: list[Frame] = []
        self._messages: deque[str | bytes] = deque()
        self._response: Response | None = None
        self._may_write = True
        self._ended = False

    @property
    def backlog(self) -> int:
        """Bytes that wait for the network."""
        return len(self._out)

    def send(self, message: str | bytes) -> None:
        """Queue one message; raises Unavailable when the connection has ended."""
        if self._protocol.state is not State.OPEN:
            raise _ended()
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        self._flush()

    def receive(self, timeout: float, *, wakes: bool = True) -> str | bytes | None:
        """Return the next message, None after the timeout or a wake; raises Unavailable when the link has ended."""
        if not self._messages:
            self._exchange(timeout, wakes=wakes)
        if self._messages:
            return self._messages.popleft()
        if self._ended or self._protocol.state is State.CLOSED:
            raise _ended()
        return None

    @property
    def has_more(self) -> bool:
        """Whether `receive` has a message at hand."""
        return bool(self._messages)

    def close(self, timeout: float = 0.3) -> None:
        """Say goodbye, wait shortly for the answer, and let go."""
        with contextlib.suppress(OSError, errors.KeepflowError):
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(1000)
            deadline = time.monotonic() + timeout
            while not self._ended and time.monotonic() < deadline:
                self._exchange(deadline - time.monotonic())
        self._socket.close()

    def _exchange(self, timeout: float, *, wakes: bool = True) -> None:
        self._flush()
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN | (select.POLLOUT if self._out and self._may_write else 0))
        if wakes:
            waiting.register(self._wake.descriptor, select.POLLIN)
        for descriptor, _ in waiting.poll(max(0.0, timeout) * 1000):
            if descriptor == self._wake.descriptor:
                self._wake.clear()
            else:
                self._read()
        self._flush()

    def _read(self) -> None:
        try:
            while data := self._socket.recv(_PIECE):
                self._protocol.receive_data(data)
                self._take_events()
            self._protocol.receive_eof()
            self._ended = True
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._may_write = True
        except OSError:
            self._ended = True
        self._take_events()

    def _take_events(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._response = event
            elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._parts.append(event)
                if event.fin:
                    data = b"".join(part.data for part in self._parts)
                    text = self._parts[0].opcode is Opcode.TEXT
                    self._messages.append(data.decode(errors="replace") if text else data)
                    self._parts = []

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            self._out += data
        try:
            while self._out:
                del self._out[: self._socket.send(self._out[:_PIECE])]
        except (BlockingIOError, ssl.SSLWantWriteError):
            self._may_write = True
        except ssl.SSLWantReadError:  # TLS wants to hear from the other side before it says more
            self._may_write = False
        except OSError:
            self._ended = True
            self._out.clear()

    def open(self) -> None:
        """Ask to be let in; raises Unavailable when the answer is no, or none."""
        self._protocol.send_request(self._protocol.connect())
        deadline = time.monotonic() + _DIAL
        while self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None:
            if time.monotonic() > deadline or self._ended:
                raise errors.Unavailable("the master took the connection but did not answer in time", code="silent")
            self._exchange(deadline - time.monotonic())
        if self._protocol.handshake_exc is not None:
            status = self._response.status_code if self._response else 0
            detail = f"it answered {status}" if status else str(self._protocol.handshake_exc)
            raise errors.Unavailable(f"the master did not open the agents' link: {detail}", code="no-link")


def dial(url: str, ca_pem: str, wake: Wake) -> Channel:
    """Connect to `URL/agents/link`. `url` is http(s); no proxy is ever asked. Raises Unavailable with the reason."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    try:
        connection = socket.create_connection((host, port), timeout=_DIAL)
        try:
            _tune(connection)
            if secure:
                connection = tls_context(ca_pem).wrap_socket(connection, server_hostname=host)
            connection.setblocking(False)
        except BaseException:
            connection.close()
            raise
    except (OSError, ssl.SSLError) as error:
        raise errors.Unavailable(f"{url} cannot be reached: {error}", code="unreachable") from error
    address = f"{'wss' if secure else 'ws'}://{parts.netloc}{parts.path}/agents/link"
    channel = Channel(connection, ClientProtocol(parse_uri(address), max_size=4 * FRAME_LIMIT), wake)
    try:
        channel.open()
    except BaseException:
        connection.close()
        raise
    return channel


def tls_context(ca_pem: str) -> ssl.SSLContext:
    """Return how the master's certificate is checked: against one authority when it was given at joining."""
    context = ssl.create_default_context(cadata=ca_pem or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _tune(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_LINK)


def _ended() -> errors.Unavailable:
    return errors.Unavailable("the link to the master has ended", code="link-ended")
