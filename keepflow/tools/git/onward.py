"""Brings a kept checkout's repository from the commit it has to another one, in one request and one process.

`git fetch` needs three requests and six processes for the same, among them one that loads a whole HTTP library. Who
knows what it has and what it wants can ask for it in the first request (protocol 2). Only the ordinary case is done
here; whatever is out of the ordinary raises Unusual, with nothing changed that matters, and git itself does it then.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from keepflow import errors
from keepflow.core.names import is_sha
from keepflow.tools import processes
from keepflow.tools.brake import stoppable
from keepflow.tools.files import write_unsynced
from keepflow.tools.git.remotes import environment

_SHA1 = 40  #: hex digits; other repositories say their format, which is not done here
_SOCKET_SECONDS = 60.0
_MOST_PACK = 32 * processes.MIB  #: kept in memory on its way
_LOOSE = 100  #: objects below this are kept one by one, as git does
_FLUSH, _DELIM = b"0000", b"0001"
_DATA, _PROGRESS = 1, 2  #: bands


class Unusual(Exception):
    """It cannot be done this way; the text says why."""


def fetch(
    git_dir: Path,
    ref: str,
    url: str,
    have: str,
    want: str,
    header: str | None,
    *,
    ca_file: Path | None,
    timeout: float,
) -> None:
    """Fetch the commit `want` without its history and point `ref` to it; `have` is here. Raises Unusual."""
    if len(have) != _SHA1 or len(want) != _SHA1 or not is_sha(have):
        raise Unusual("not two commits of SHA-1")
    deadline = time.monotonic() + timeout
    try:
        shallow, pack = _ask(url, have, want, header, ca_file, deadline)
        write_unsynced(git_dir / "shallow", "".join(f"{sha}\n" for sha in sorted(shallow | {have})).encode())
        _unpack(git_dir, pack, deadline - time.monotonic())
        write_unsynced(git_dir / ref, f"{want}\n".encode())
    except (OSError, http.client.HTTPException, ValueError, errors.KeepflowError) as error:
        raise Unusual(str(error)) from error


def _ask(
    url: str, have: str, want: str, header: str | None, ca_file: Path | None, deadline: float
) -> tuple[set[str], bytes]:
    """Return where the history ends now, and the pack."""
    place = urlsplit(url)
    headers = {
        "Content-Type": "application/x-git-upload-pack-request",
        "Accept": "application/x-git-upload-pack-result",
        "Git-Protocol": "version=2",
    }
    if header:
        name, _, value = header.partition(": ")
        headers[name] = value
    connection = _connection(place.scheme, place.hostname or "", place.port, ca_file)
    try:
        connection.connect()
        with stoppable(partial(_hang_up, connection)):
            connection.request("POST", f"{place.path}/git-upload-pack", _request(have, want), headers)
            with connection.getresponse() as answer:
                if answer.status != http.client.OK:
                    raise Unusual(f"the answer is {answer.status}")
                return _read(answer, deadline)
    finally:
        connection.close()


def _hang_up(connection: http.client.HTTPConnection) -> None:
    """End a conversation from another thread: whoever waits for an answer gets none."""
    with contextlib.suppress(OSError):  # the other end was quicker
        connection.sock.shutdown(socket.SHUT_RDWR)


def _connection(scheme: str, host: str, port: int | None, ca_file: Path | None) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=_SOCKET_SECONDS)
    if scheme == "https":
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        return http.client.HTTPSConnection(host, port, timeout=_SOCKET_SECONDS, context=context)
    raise Unusual("not HTTP")


def _request(have: str, want: str) -> bytes:
    options = ("thin-pack", "no-progress", "ofs-delta", f"shallow {have}", "deepen 1", f"want {want}", f"have {have}")
    lines = [_line("command=fetch"), _line("object-format=sha1"), _DELIM, *map(_line, options), _line("done"), _FLUSH]
    return b"".join(lines)


def _line(text: str) -> bytes:
    return b"%04x%b\n" % (len(text) + 5, text.encode())


def _read(answer: BinaryIO | http.client.HTTPResponse, deadline: float) -> tuple[set[str], bytes]:
    """Take the answer apart: sections of lines, then the pack in pieces."""
    shallow, pack, section = set[str](), bytearray(), b""
    for line in _lines(answer, deadline):
        if line is None:
            section = b""
        elif not section:
            section = line.strip()
        elif section == b"shallow-info":
            kind, _, sha = line.strip().decode().partition(" ")
            if kind == "shallow" and is_sha(sha):
                shallow.add(sha)
        elif section == b"packfile":
            if line[0] not in (_DATA, _PROGRESS):
                raise Unusual(f"the other end says: {line[1:].decode(errors='replace')[:200]}")
            pack += line[1:] if line[0] == _DATA else b""
            if len(pack) > _MOST_PACK:
                raise Unusual("a large pack")
    return shallow, bytes(pack)


def _lines(answer: BinaryIO | http.client.HTTPResponse, deadline: float) -> Iterator[bytes | None]:
    """Yield the lines of an answer, None between two sections; raises Unusual when it does not end as it should."""
    while True:
        length = answer.read(4)
        if length == _FLUSH:
            return
        if length == _DELIM:
            yield None
            continue
        size = int(length, 16) - 4 if len(length) == 4 else 0
        line = answer.read(size) if size > 0 else b""
        if not line or len(line) != size or time.monotonic() > deadline:
            raise Unusual("the answer breaks off")
        yield line


def _unpack(git_dir: Path, pack: bytes, timeout: float) -> None:
    if not pack.startswith(b"PACK"):
        raise Unusual("no pack came")
    few = int.from_bytes(pack[8:12], "big") < _LOOSE
    program = ["unpack-objects", "-q", "--strict"] if few else ["index-pack", "--stdin", "--fix-thin", "--strict"]
    # Not synced: a checkout that a power cut tore is begun afresh.
    env = {**environment(settings={"core.fsync": "none"}), "GIT_DIR": str(git_dir)}
    processes.run(["git", *program], env=env, timeout=max(1.0, timeout), input=pack)
