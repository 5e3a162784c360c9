"""Signing in: one-time links, passwords, sessions, and how often anybody may try."""

from __future__ import annotations

import base64
import secrets
import threading
from collections import deque

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection

from keepflow import errors
from keepflow.core import passwords
from keepflow.crypto import tokens
from keepflow.engine import people as rules
from keepflow.engine.context import Master
from keepflow.store import credentials, events, people
from keepflow.store.people import User
from keepflow.store.writer import Tx

_SECOND = 1_000_000
LINK_LIFE = 24 * 3600 * _SECOND
SETUP, PASSWORD = "setup", "password"  # purposes of links
_BAD_LINK = "this link is used up, too old, or was never one; `keepflow up` prints a new one, or ask an admin"


# --- one-time links --------------------------------------------------------------------------------------------------


def make_setup_link(tx: Tx, master: Master, now: int) -> str:
    """Make the one-time link by which the first admin is made; raises Refused `set-up` when there is anybody."""
    if people.any_user(tx.conn):
        raise errors.Refused("this server is set up: somebody has an account", code="set-up")
    return _link(tx, master, SETUP, None, now)


def make_password_link(tx: Tx, master: Master, user: User, by: str, now: int) -> str:
    """Make the one-time link by which a person sets a password; older ones for them stop working."""
    credentials.drop_links(tx.conn, PASSWORD, user.id)
    events.add(tx, now, "password-link-made", actor=by, data={"user": user.name})
    return _link(tx, master, PASSWORD, user.id, now)


def _link(tx: Tx, master: Master, purpose: str, user_id: int | None, now: int) -> str:
    token = tokens.new(purpose)
    credentials.add_link(tx.conn, tokens.digest(token), purpose, user_id, now + LINK_LIFE, now)
    return f"{master.url().rstrip('/')}/setup/{token}"


def read_link(conn: Connection, token: str, now: int) -> tuple[str, User | None]:
    """Return what a link is for and for whom (None: whoever opens it becomes the first admin); raises NotFound."""
    found = credentials.link(conn, tokens.digest(token))
    if found is None or found.used_at is not None or found.expires_at <= now:
        raise errors.NotFound(_BAD_LINK, code="bad-link")
    if found.purpose == SETUP:
        if people.any_user(conn):
            raise errors.NotFound(_BAD_LINK, code="bad-link")
        return SETUP, None
    user = people.user_by_id(conn, found.user_id or 0)
    if user is None or user.disabled_at is not None:
        raise errors.NotFound(_BAD_LINK, code="bad-link")
    return found.purpose, user


# --- signing in ------------------------------------------------------------------------------------------------------


class SignIn:
    """Checks passwords and opens sessions. One per process: it remembers how often anybody tried."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._hasher = PasswordHasher()
        self._hashing = threading.Semaphore(2)  # each hash takes 64 MB and a tenth of a second
        self._tries = Tries()
        self._nobody = _nobodys_hash(self._hasher)

    def use_setup_link(self, token: str, name: str, password: str, address: str, now: int) -> str:
        """Burn a link: make the first admin, or set the person's password; return a new session's cookie.

        Raises NotFound for a dead link, UsageError for a name or password that will not do, TooMany.
        """
        self._tries.note(f"address {address}", now)
        with self._master.database.read() as conn:
            _, user = read_link(conn, token, now)
        name = user.name if user else rules.check_name(name)
        weak = passwords.weakness(password, name)
        if weak:
            raise errors.UsageError(weak, code="weak-password")
        with self._hashing:
            hashed = self._hasher.hash(password)
        cookie = secrets.token_urlsafe(32)
        self._master.writer.call(lambda tx: self._burn(tx, token, name, hashed, cookie, now))
        return cookie

    def _burn(self, tx: Tx, token: str, name: str, hashed: str, cookie: str, now: int) -> None:
        purpose, user = read_link(tx.conn, token, now)
        if not credentials.burn_link(tx.conn, tokens.digest(token), now):
            raise errors.NotFound(_BAD_LINK, code="bad-link")
        if user is None:
            user = rules.add_user(tx, name, "", True, "setup link", now)
        people.set_password(tx.conn, user.id, hashed)
        credentials.end_sessions_of(tx.conn, user.id)
        events.add(tx, now, "password-set", actor=user.name, data={"by": f"{purpose} link"})
        _open(tx, user, cookie, now)

    def login(self, name: str, password: str, address: str, now: int) -> str:
        """Open a session and return its cookie; raises AuthError `wrong-login`, or TooMany after too many tries.

        An unknown name takes as long as a wrong password, and gets the same answer.
        """
        self._tries.note(f"address {address}", now)  # first: who tries too often must not fill the table with names
        self._tries.note(f"name {name[:60]}", now)
        with self._master.database.read() as conn:
            user = people.user_by_name(conn, name)
            stored = people.password_hash(conn, user.id) if user else None
        right = self._verify(stored, password)
        if not right or user is None or user.disabled_at is not None:
            self._master.writer.call(lambda tx: _failed(tx, user, address, now))
            raise errors.AuthError("this name and password do not fit", code="wrong-login")
        self._tries.forget(f"name {name[:60]}")
        fresh = self._rehash(stored or "", password)
        cookie = secrets.token_urlsafe(32)
        self._master.writer.call(lambda tx: _enter(tx, user, fresh, cookie, now))
        return cookie

    def logout(self, cookie: str, now: int) -> None:
        """End a session; an unknown one is fine."""
        self._master.writer.call(lambda tx: _leave(tx, cookie, now))

    def _verify(self, stored: str | None, password: str) -> bool:
        with self._hashing:
            try:
                self._hasher.verify(stored or self._nobody, password[: passwords.MOST + 1])
            except (VerificationError, InvalidHashError):
                return False
        return stored is not None

    def _rehash(self, stored: str, password: str) -> str | None:
        if not self._hasher.check_needs_rehash(stored):
            return None
        with self._hashing:
            return self._hasher.hash(password)


def _nobodys_hash(hasher: PasswordHasher) -> str:
    """Return a hash no password has, as costly to check as every other one, without the cost of making one."""
    salt, digest = (base64.b64encode(secrets.token_bytes(n)).decode().rstrip("=") for n in (16, 32))
    cost = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${cost}${salt}${digest}"


def _enter(tx: Tx, user: User, fresh: str | None, cookie: str, now: int) -> None:
    if fresh is not None:
        people.set_password(tx.conn, user.id, fresh)
    _open(tx, user, cookie, now)


def _open(tx: Tx, user: User, cookie: str, now: int) -> None:
    credentials.add_session(tx.conn, tokens.digest(cookie), user.id, secrets.token_urlsafe(32), now)
    events.add(tx, now, "signed-in", actor=user.name)


def _leave(tx: Tx, cookie: str, now: int) -> None:
    found = rules.live_session(tx.conn, cookie, now)
    credentials.end_session(tx.conn, tokens.digest(cookie))
    if found is not None:
        events.add(tx, now, "signed-out", actor=found[0].name)


def _failed(tx: Tx, user: User | None, address: str, now: int) -> None:
    # An unknown name is often a password typed into the wrong box: it is never written down.
    events.add(tx, now, "sign-in-failed", data={"user": user.name if user else None, "from": address[:60]})


class Tries:
    """Counts tries per key within the last minute, in memory: a restart forgives, which no attacker can cause."""

    LIMIT = 10
    WINDOW = 60 * _SECOND

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, deque[int]] = {}

    def note(self, key: str, now: int) -> None:
        """Count one try; raises TooMany when there were too many within the window."""
        with self._lock:
            if len(self._seen) > 10_000:
                self._seen = {name: seen for name, seen in self._seen.items() if seen[-1] > now - self.WINDOW}
            seen = self._seen.setdefault(key, deque(maxlen=self.LIMIT))
            while seen and seen[0] <= now - self.WINDOW:
                seen.popleft()
            if len(seen) >= self.LIMIT:
                wait = -(-(seen[0] + self.WINDOW - now) // _SECOND)
                raise errors.TooMany(f"too many tries; wait {wait} s", wait=wait)
            seen.append(now)

    def forget(self, key: str) -> None:
        """Start a key afresh after a success."""
        with self._lock:
            self._seen.pop(key, None)
