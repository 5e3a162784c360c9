"""A small process that starts commands as another account for a large one.

To become another account, a child must run code of its own between fork and exec, so it needs a copy of its parent's
page tables: several milliseconds for an agent of 60 MB, half of one for this process. It runs nobody's code before the
account has changed, imports next to nothing, and ends when the agent's end of the socket closes, whatever the reason.
Commands outlive it as they outlive the agent.

A request is a length, then JSON: a command to start, with its standard input, output and error as descriptors beside
the length, or the number of a process to reap. The answer is one line of JSON.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import sys
from typing import Any

_HEAD = 4  #: bytes of the length
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def frame(request: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return head and body of a request."""
    body = json.dumps(request).encode()
    return len(body).to_bytes(_HEAD, "big"), body


def serve(connection: socket.socket) -> None:
    """Answer requests until the other end is gone."""
    connection.set_inheritable(False)  # whoever holds it can start anything as anybody
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # a stop of the agent still needs its commands' ends
        signal.signal(number, signal.SIG_IGN)
    while True:
        head, descriptors, _, _ = socket.recv_fds(connection, _HEAD, 3)
        if len(head) < _HEAD:
            return
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        request = json.loads(_exactly(connection, int.from_bytes(head, "big")))
        answer = _reap(request["reap"]) if "reap" in request else _start(request, descriptors)
        connection.sendall(json.dumps(answer).encode() + b"\n")


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def _reap(pid: int) -> dict[str, Any]:
    try:
        return {"status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}
    except ChildProcessError:
        return {"status": None}


def _start(request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
    reading, writing = os.pipe()  # closed by exec: whatever comes is an error
    pid = os.fork()
    if pid == 0:
        try:
            _become(request, *descriptors)
        except BaseException as error:
            number = error.errno if isinstance(error, OSError) else None
            os.write(writing, json.dumps({"error": str(error)[:4000], "number": number or errno.EIO}).encode())
        os._exit(127)
    os.close(writing)
    for descriptor in descriptors:
        os.close(descriptor)
    with os.fdopen(reading, "rb") as pipe:
        trouble = pipe.read()
    if not trouble:
        return {"pid": pid}
    os.waitpid(pid, 0)
    answer: dict[str, Any] = json.loads(trouble)
    return answer


def _become(request: dict[str, Any], *descriptors: int) -> None:
    os.setsid()
    if request["umask"] is not None:
        os.umask(request["umask"])
    for number, descriptor in enumerate(descriptors):  # those that came are above 2: 0 to 2 are taken
        os.dup2(descriptor, number)
    os.chdir(request["cwd"])
    os.setgroups(request["groups"])
    os.setgid(request["gid"])
    os.setuid(request["uid"])
    for number in _RESTORED:
        signal.signal(number, signal.SIG_DFL)
    os.execve(request["argv"][0], request["argv"], request["env"])  # noqa: S606 - a list of arguments is what it is for


if __name__ == "__main__":
    with contextlib.suppress(EOFError, ConnectionError):
        serve(socket.socket(fileno=int(sys.argv[1])))
