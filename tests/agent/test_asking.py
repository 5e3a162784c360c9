"""What an agent makes of the answers of its master, whole and broken off."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from keepflow import errors
from keepflow.agent.asking import Asked, ask, pieces


def answered(listening: socket.socket, answer: bytes) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(answer)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


def asked(listening: socket.socket, answer: bytes) -> bytes:
    """Ask a master that gives this answer and closes."""
    thread = threading.Thread(target=answered, args=(listening, answer))
    thread.start()
    try:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/x"
        return b"".join(pieces(ask(Asked("GET", url, "token"), code="no-artifact", stream=True)))
    finally:
        thread.join()


def test_an_answer_that_breaks_off_is_a_master_that_is_away_and_never_a_whole_file(listening: socket.socket) -> None:
    assert asked(listening, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole") == b"whole"
    with pytest.raises(errors.Unavailable, match="broke off"):
        asked(listening, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nwhole")
    with pytest.raises(errors.Unavailable, match="cannot be reached"):
        asked(listening, b"")


@pytest.mark.parametrize(
    ("status", "error"), [(401, errors.RemoteError), (404, errors.RemoteError), (502, errors.Unavailable)]
)
def test_a_no_is_told_and_a_master_that_stops_is_away(
    listening: socket.socket, status: int, error: type[Exception]
) -> None:
    body = b'{"detail": "the sentence"}'
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
    with pytest.raises(error, match="the sentence"):
        asked(listening, head.encode() + body)


def test_a_redirect_is_not_followed(listening: socket.socket) -> None:
    with pytest.raises(errors.RemoteError, match="it answered 302"):
        asked(listening, b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
