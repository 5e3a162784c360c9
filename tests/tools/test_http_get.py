"""One GET with one deadline, whatever the other side does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from keepflow import errors
from keepflow.tools.brake import Brake
from keepflow.tools.http_get import NoAnswer, get, split_listen


@contextmanager
def server(serve: Callable[[socket.socket, bytes], None]) -> Iterator[int]:
    """A server that hands its first connection and what was asked to `serve`."""

    def run() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):  # the other side may have left
            serve(connection, connection.recv(65536))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run)
        thread.start()
        yield int(listener.getsockname()[1])
        thread.join()


def test_an_answer_is_status_headers_and_body() -> None:
    asked = []

    def serve(connection: socket.socket, head: bytes) -> None:
        asked.append(head)
        connection.sendall(b"HTTP/1.1 404 No\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")

    with server(serve) as port:
        answer = get("127.0.0.1", port, "/a?b=c", {"Host": "shop.example.org", "X-Y": "z"}, timeout=2)
    assert (answer.status, answer.headers["x-a"], answer.body) == (404, "b", b"abc")
    assert asked == [b"GET /a?b=c HTTP/1.1\r\nHost: shop.example.org\r\nX-Y: z\r\nConnection: close\r\n\r\n"]


def test_no_more_of_a_body_is_read_than_anybody_needs() -> None:
    def serve(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        connection.sendall(b"x" * 1_000_000)

    with server(serve) as port:
        assert len(get("127.0.0.1", port, "/", {"Host": "x"}, timeout=5).body) == 64 * 1024


@pytest.mark.parametrize(
    "said", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"]
)
def test_what_is_no_whole_answer_is_none(said: bytes) -> None:
    with server(lambda connection, _: connection.sendall(said)) as port, pytest.raises(NoAnswer):
        get("127.0.0.1", port, "/", {"Host": "x"}, timeout=2)


def test_f09_a_server_that_drips_cannot_hold_it_longer_than_the_deadline() -> None:
    def serve(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            connection.sendall(b"x")
            time.sleep(0.02)  # the drip itself is what is tested

    with server(serve) as port:
        began = time.monotonic()
        with pytest.raises(NoAnswer, match=r"within 0\.3 s"):
            get("127.0.0.1", port, "/", {"Host": "x"}, timeout=0.3)
        assert time.monotonic() - began < 1.0


def test_nobody_there_is_told_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NoAnswer, match="refused"):
        get("127.0.0.1", port, "/", {"Host": "x"}, timeout=2)


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("80", ("127.0.0.1", 80)),
        ("127.0.0.1:8900", ("127.0.0.1", 8900)),
        ("0.0.0.0:80", ("127.0.0.1", 80)),
        ("[::]:443", ("::1", 443)),
        ("[fd00::1]:443", ("fd00::1", 443)),
        ("192.0.2.7:80", ("192.0.2.7", 80)),
    ],
)
def test_where_a_listener_is_asked(listen: str, address: tuple[str, int]) -> None:
    assert split_listen(listen) == address


def test_a_brake_ends_a_get_that_waits_for_an_answer() -> None:
    brake = Brake()

    def ask(port: int) -> None:
        with brake.applied():
            get("127.0.0.1", port, "/", {}, timeout=600)

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as beside:
        asking = beside.submit(ask, server.getsockname()[1])
        silent, _ = server.accept()
        with silent:
            silent.recv(1)  # it has asked
            brake.pull()
            with pytest.raises(errors.Stopped):
                asking.result(60)
