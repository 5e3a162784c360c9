"""One command on another host, as a program of its own: `python -m keepflow.executors._ssh_session FILE`.

It is a process, so that a command goes on when the agent does not, and so that only it needs the SSH library. FILE says
everything (`executors.ssh.Session`) and is removed at once, for it holds the command's variables. What comes from the
other side goes to standard output; on SIGTERM everything that the command began there is ended first.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from paramiko import Channel, PKey, SSHException, Transport

_DIAL = 15.0  #: seconds to connect, and for each step of the handshake
_PIECE = 64 * 1024
_AGAIN = (0.0, 1.0, 3.0, 9.0, 27.0)  #: seconds before each try to reach a host again whose connection broke
_NO_CONNECTION = 255  #: as ssh itself says it
_ENDED = 137
_RSA = ("rsa-sha2-512", "rsa-sha2-256")
_GRACE = 1.0  #: seconds between SIGTERM and SIGKILL when nobody says
_END = """kill -s TERM -- "-$1" || exit 0
while kill -s 0 -- "-$1" 2>/dev/null && [ "$2" -gt "${n:-0}" ]; do sleep 0.05; n=$((${n:-0} + 1)); done
kill -s KILL -- "-$1" 2>/dev/null
"""


def main(path: Path) -> int:
    """Carry out what a file says and return the exit code."""
    settings = json.loads(path.read_bytes())
    path.unlink()
    try:
        transport = _connected(settings)
    except (OSError, EOFError, SSHException, ValueError) as error:
        _say(f"ssh to {settings['address']}: {error or type(error).__name__}")
        return _NO_CONNECTION
    with contextlib.closing(transport):
        try:
            return _carried_out(transport, settings)
        except (OSError, EOFError, SSHException) as error:
            _say(f"ssh to {settings['address']}: the connection broke: {error or type(error).__name__}")
    if settings["left"]:
        ended = any(_ended_after(pause, settings) for pause in _AGAIN)
        _say(f"what went on there {'was ended' if ended else 'may still go on: the host cannot be reached any more'}")
    return _NO_CONNECTION


def _ended_after(pause: float, settings: dict[str, Any]) -> bool:
    """Connect once more and end what a broken connection left there; False when that did not work."""
    time.sleep(pause)
    try:
        with contextlib.closing(_connected(settings)) as transport:
            channel = transport.open_session(timeout=_DIAL)
            channel.settimeout(_DIAL)
            channel.exec_command(settings["left"])
            return channel.recv_exit_status() >= 0
    except (OSError, EOFError, SSHException, ValueError):
        return False


def _connected(settings: dict[str, Any]) -> Transport:
    """Connect to the host whose key is pinned, and sign in; nothing is told to any other host."""
    kind, _, key = settings["host_key"].partition(" ")
    transport = Transport(socket.create_connection((settings["address"], settings["port"]), timeout=_DIAL))
    try:
        transport.get_security_options().key_types = _RSA if kind == "ssh-rsa" else (kind,)
        transport.start_client(timeout=_DIAL)
        shown = transport.get_remote_server_key()
        if (shown.get_name(), shown.asbytes()) != (kind, base64.b64decode(key)):
            raise SSHException("its host key is not the one of agent.yml; nothing was sent")
        transport.auth_publickey(settings["user"], PKey.from_path(settings["key_file"]))
        transport.set_keepalive(30)
    except BaseException:
        transport.close()
        raise
    return transport


def _carried_out(transport: Transport, settings: dict[str, Any]) -> int:
    channel = transport.open_session(timeout=_DIAL)
    channel.exec_command(settings["line"])
    complaints = channel.makefile_stderr("rb")
    feeding = threading.Thread(target=_feed, args=(channel, settings), daemon=True)
    feeding.start()
    first = complaints.readline().strip()
    if first.isdigit():
        _end_on_signal(transport, int(first), Path(settings["grace_file"]))
    else:
        _write(first + b"\n" if first else b"")
    copying = threading.Thread(target=_copy, args=(complaints,), daemon=True)
    copying.start()
    while piece := channel.recv(_PIECE):
        _write(piece)
    copying.join(_DIAL)
    code = channel.recv_exit_status()
    if code < 0 and not transport.is_active():
        raise EOFError("it was closed from there, or on the way")
    return code if code >= 0 else _ENDED


def _feed(channel: Channel, settings: dict[str, Any]) -> None:
    """Send the script, or the files of a folder as the account that owns them: root would follow no less than it."""
    with contextlib.suppress(OSError):
        if settings["folder"]:
            uid, gid = settings["account"] or (None, None)
            no_groups: list[int] | None = None if uid is None else []
            argv = ("tar", "--create", "--file=-", ".")
            with subprocess.Popen(
                argv, cwd=settings["folder"], user=uid, group=gid, extra_groups=no_groups, stdout=subprocess.PIPE
            ) as tar:
                while tar.stdout and (piece := tar.stdout.read(_PIECE)):
                    channel.sendall(piece)
        else:
            channel.sendall(settings["script"].encode())
        channel.shutdown_write()


def _end_on_signal(transport: Transport, group: int, grace_file: Path) -> None:
    def end() -> None:
        grace = float(grace_file.read_text()) if grace_file.is_file() else _GRACE
        channel = transport.open_session(timeout=_DIAL)
        channel.exec_command("exec sh")
        channel.sendall(f"set -- {group} {int(grace * 20)}\n{_END}".encode())
        channel.shutdown_write()

    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=end, daemon=True).start())


def _copy(source: Iterable[bytes]) -> None:
    for line in source:
        _write(line)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def _say(text: str) -> None:
    _write(f"{text}\n".encode(errors="replace"))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
