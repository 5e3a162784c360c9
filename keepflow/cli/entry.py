"""Where the `keepflow` command begins: what counts in milliseconds is asked of the running agent first.

Nothing may be imported here at the top but what Python has loaded already: going back on a host takes as long as this
file takes to load, and `socket` alone would take as long as all the rest.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # `typing` is not loaded yet
if TYPE_CHECKING:
    from _socket import socket

STATE = "/var/lib/keepflow/agent"  #: `agent.state.DEFAULT`, which would take too long to import
_SECONDS = 900.0  #: for the agent to say something more; a rollback may wait for a deployment that is under way


def main() -> None:
    """Run the command line and leave with the exit code of what happened."""
    if sys.argv[1:3] == ["agent", "rollback"]:
        code = ask_agent(sys.argv[3:])
        if code is not None:
            sys.exit(code)
    from keepflow.cli.main import main as all_verbs

    all_verbs()


def ask_agent(argv: list[str]) -> int | None:
    """Have the agent that runs here go back, and return the exit code.

    None when it is to be done without it: no agent answers, it did not say how it ended, or the words are not the plain
    ones (SERVICE, --to, --instance), whose mistakes the full command explains.
    """
    request = _request(argv)
    if request is None:
        return None
    import _socket  # a third of the time that the module `socket` takes

    root = os.environ.get("KEEPFLOW_AGENT_STATE") or STATE
    agent = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        agent.settimeout(_SECONDS)
        agent.connect(f"{root}/hand.sock")
        agent.sendall(request)
        return _told(agent)
    except OSError:
        return None
    finally:
        agent.close()


def _request(argv: list[str]) -> bytes | None:
    """Put the words into the line that the agent reads, or None when they are not the plain ones."""
    given = {"--to": "", "--instance": "main"}
    services = []
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name in given:
            given[name] = value if equals else next(words, "-")
        else:
            services.append(word)
    fields = ["rollback", *services, given["--instance"], given["--to"], f"host:{person()}"]
    if len(services) != 1 or any(not field.isprintable() or field.startswith("-") for field in fields):
        return None
    return ("\0".join(fields) + "\n").encode()


def person() -> str:
    """Return who sits at the terminal, behind sudo too."""
    if os.environ.get("SUDO_USER"):
        return os.environ["SUDO_USER"]
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _told(agent: socket) -> int | None:
    """Print what the agent says until it names the exit code."""
    rest = b""
    while part := agent.recv(65536):
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            kind, text = line[:1], line[1:].decode(errors="replace")
            if kind == b"x":
                return int(text)
            print(text, file=sys.stdout if kind == b"o" else sys.stderr, flush=True)
    return None
