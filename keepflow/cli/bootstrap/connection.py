"""One SSH connection: to the host whose key is known, signed in by what a person allowed, running argument lists.

The remote side gets one line made by `shlex.join`, in one place; no value is ever pasted into a command. Programs run
under `timeout`, because closing a channel would leave them running.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shlex
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from paramiko import (
    Agent,
    AuthenticationException,
    Channel,
    PasswordRequiredException,
    PKey,
    SSHException,
    Transport,
)

from keepflow import errors
from keepflow.cli.bootstrap.known_hosts import KnownHosts
from keepflow.core.text import one_line
from keepflow.tools.processes import Done, failed

_DIAL = 10.0  #: seconds to connect, and for each step of the handshake
_AFTER_TIMEOUT = 10.0  #: seconds that a program has to be ended on the other side
_TIMED_OUT = 124  #: exit code of `timeout`
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:%-]{0,252}")
_RSA = ("rsa-sha2-512", "rsa-sha2-256")
_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Address:
    """An account on a host."""

    user: str
    host: str
    port: int = 22

    @classmethod
    def parse(cls, text: str, port: int) -> Address:
        """Read `user@host`; raises UsageError."""
        user, at, host = text.rpartition("@")
        if not at or not _USER.fullmatch(user) or not _HOST.fullmatch(host):
            raise errors.UsageError(
                f"{text[:100]!r} is not USER@HOST, like root@prod-1.example.org", code="bad-address"
            )
        return cls(user, host, port)

    @property
    def known_as(self) -> str:
        """The host as known_hosts files name it."""
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"


@dataclass(frozen=True, slots=True)
class Login:
    """How to sign in: exactly what was allowed, nothing that happens to lie around."""

    key: Path | None = None
    passphrase: Callable[[], str] = field(default=str, repr=False)
    agent: bool = False
    password: str | None = field(default=None, repr=False)


class Connection:
    """An open, signed-in connection."""

    def __init__(self, transport: Transport, user: str) -> None:
        self._transport = transport
        self.user = user

    def run(self, argv: Sequence[str], *, input: bytes = b"", timeout: float = 60.0, check: bool = True) -> Done:
        """Run a program to its end and return what it wrote. `timeout` in seconds.

        Raises CommandTimeout, CommandFailed when `check` and the exit code is not 0, and Unavailable when the
        connection breaks.
        """
        wrapped = ("timeout", "--kill-after=5", f"{timeout:.0f}", *argv)
        try:
            done = self._exchanged(tuple(argv), shlex.join(wrapped), input, timeout + _AFTER_TIMEOUT)
        except (OSError, EOFError, SSHException) as error:
            raise errors.Unavailable(f"the connection broke: {error or type(error).__name__}", code="ssh") from error
        if done.exit_code == _TIMED_OUT:
            raise errors.CommandTimeout(f"{shlex.join(argv)} did not end within {timeout:g} s", argv=done.argv)
        if check and done.exit_code != 0:
            raise failed(done)
        return done

    def _exchanged(self, argv: tuple[str, ...], line: str, data: bytes, longest: float) -> Done:
        """Feed and read all three streams at once: a full one that nobody reads would stop the others."""
        channel = self._transport.open_session(timeout=_DIAL)
        with contextlib.closing(channel):
            channel.settimeout(longest)
            channel.exec_command(line)
            complaints = bytearray()
            helpers = [
                threading.Thread(target=_feed, args=(channel, data), daemon=True),
                threading.Thread(target=_collect, args=(channel.recv_stderr, complaints), daemon=True),
            ]
            for helper in helpers:
                helper.start()
            said = bytearray()
            _collect(channel.recv, said)
            for helper in helpers:
                helper.join(longest)
            if not channel.status_event.wait(longest):
                raise TimeoutError("it does not say how the program ended")
            return Done(argv, channel.recv_exit_status(), bytes(said), bytes(complaints))


def _feed(channel: Channel, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the program may end without reading
        channel.sendall(data)
        channel.shutdown_write()


def _collect(receive: Callable[[int], bytes], into: bytearray) -> None:
    with contextlib.suppress(TimeoutError):
        while piece := receive(_PIECE):
            into += piece


@contextlib.contextmanager
def connected(
    address: Address, login: Login, known: KnownHosts, is_right: Callable[[str, str], bool]
) -> Iterator[Connection]:
    """Connect and sign in; `is_right(key type, fingerprint)` decides about a host that is not known yet.

    Nothing is sent to a host before its key is found right. Raises Refused `host-key` and `host-key-changed`,
    AuthError, Unavailable and RemoteError.
    """
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    logging.getLogger("paramiko").propagate = False
    try:
        transport = Transport(socket.create_connection((address.host, address.port), timeout=_DIAL))
    except OSError as error:
        raise errors.Unavailable(f"{address.known_as} cannot be reached: {error}", code="unreachable") from None
    try:
        transport.banner_timeout = transport.auth_timeout = _DIAL
        _check_host(transport, address, known, is_right)
        _sign_in(transport, address, login)
        transport.set_keepalive(15)
        yield Connection(transport, address.user)
    finally:
        transport.close()


def _check_host(
    transport: Transport, address: Address, known: KnownHosts, is_right: Callable[[str, str], bool]
) -> None:
    pinned = known.key(address.known_as)
    if pinned is not None:  # ask for a key of that kind, or another, right one might be offered
        kind = pinned.get_name()
        transport.get_security_options().key_types = _RSA if kind == "ssh-rsa" else (kind,)
    try:
        transport.start_client(timeout=_DIAL)
    except (SSHException, OSError, EOFError) as error:
        if pinned is not None and "no acceptable host key" in str(error):
            raise _changed(address, known, "another kind of key") from None
        raise errors.RemoteError(
            f"{address.known_as} does not speak SSH as expected: {one_line(str(error))}; servers that only know SHA-1 "
            "or DSA are too old",
            code="ssh",
        ) from None
    offered: PKey = transport.get_remote_server_key()
    if pinned is not None and offered != pinned:
        raise _changed(address, known, offered.fingerprint)
    if not is_right(offered.get_name(), offered.fingerprint):
        raise errors.Refused(
            f"{address.known_as} has the host key {offered.fingerprint} ({offered.get_name()}), and not the one given; "
            "nothing was sent to it",
            code="host-key",
        )
    if pinned is None:
        known.pin(address.known_as, offered)


def _changed(address: Address, known: KnownHosts, offered: str) -> errors.Refused:
    return errors.Refused(
        f"the host key of {address.known_as} has changed: it is not the one in {known.path} ({offered}). Either the "
        "host was installed anew, or somebody is in between; when you know that it is right, remove its line there",
        code="host-key-changed",
    )


def _sign_in(transport: Transport, address: Address, login: Login) -> None:
    with contextlib.closing(_ways(login)) as ways:
        for how in ways:
            try:
                if isinstance(how, str):
                    transport.auth_password(address.user, how, fallback=False)
                else:
                    transport.auth_publickey(address.user, how)
            except AuthenticationException:
                continue
            except (SSHException, EOFError, OSError) as error:
                raise errors.AuthError(f"{address.known_as} broke off the sign-in: {error}", code="ssh-login") from None
            if transport.is_authenticated():
                return
    raise errors.AuthError(f"{address.known_as} did not take the login of {address.user}", code="ssh-login")


def _ways(login: Login) -> Generator[PKey | str]:
    if login.key is not None:
        yield _private_key(login.key, login.passphrase)
    if login.agent:
        with contextlib.closing(Agent()) as agent:
            yield from agent.get_keys()
    if login.password is not None:
        yield login.password


def _private_key(path: Path, passphrase: Callable[[], str]) -> PKey:
    try:
        try:
            return PKey.from_path(path)
        except (PasswordRequiredException, TypeError):
            return PKey.from_path(path, passphrase().encode())  # type: ignore[arg-type]  # it takes bytes alone
    except (OSError, ValueError, SSHException) as error:
        raise errors.UsageError(f"{path}: no private key that can be used: {error}", code="bad-key") from None
