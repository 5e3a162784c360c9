"""The master's order key, those before it, and how a new one takes its place without any host joining anew.

`order.key` is the key in use. A new one is written beside it first, then the rotation is committed, then the file is
moved: whatever dies in between, the database says at the next start which of the two files holds.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepflow import errors
from keepflow.crypto import keys, rotation
from keepflow.crypto.keys import PrivateKey, PublicKey
from keepflow.crypto.rotation import Pinned
from keepflow.engine import sending
from keepflow.store import agents, events, rotations
from keepflow.store.database import Database
from keepflow.store.rotations import StoredRotation
from keepflow.store.writer import Tx
from keepflow.tools.failpoints import fail
from keepflow.tools.files import sync_directory
from keepflow.wire import messages

if TYPE_CHECKING:
    from keepflow.engine.context import Master

FILE, NEXT = "order.key", "order.key.next"


class KeyRing:
    """The order key and the public halves of those before it."""

    def __init__(self, home: Path, current: PrivateKey, done: list[StoredRotation]) -> None:
        self._home = home
        self.current = current
        self._done = tuple(done)
        self.turn = threading.Lock()  #: held by whoever makes a new key

    @classmethod
    def open(cls, home: Path, database: Database) -> KeyRing:
        """Load the key, after finishing or forgetting a rotation that a crash left half done.

        Raises UsageError `old-key` when the file holds another key than the last rotation made.
        """
        done = _settle(home, database)
        current = PrivateKey.load(home / FILE)
        if done and current.public.text != done[-1].new_key:
            raise errors.UsageError(
                f"{home / FILE}: this key was replaced by {done[-1].new_key}, which agents obey since then; "
                "put the file of that key back",
                code="old-key",
            )
        return cls(home, current, done)

    @property
    def trusted(self) -> tuple[PublicKey, ...]:
        """Every key this master ever signed with, the one in use first."""
        return Pinned((self.current.public,)).follow(self.chain).for_receipts

    @property
    def chain(self) -> tuple[dict[str, Any], ...]:
        """The rotations as agents follow them, oldest first."""
        return tuple(done.envelope for done in self._done)

    @property
    def history(self) -> tuple[StoredRotation, ...]:
        """The rotations as people want to know them, oldest first."""
        return self._done

    def prepare(self, database: Database) -> PrivateKey:
        """Write a new key beside the one in use, after settling a try whose end nobody waited for."""
        self._done = tuple(_settle(self._home, database))
        self.current = PrivateKey.load(self._home / FILE)
        new = keys.generate()
        new.save(self._home / NEXT)
        return new

    def install(self, new: PrivateKey, done: list[StoredRotation]) -> None:
        """Sign with the new key from now on; the old one's private half is gone then."""
        self.current, self._done = new, tuple(done)
        _take_the_place(self._home)


def rotate(master: Master, by: str, now: int) -> PublicKey:
    """Make a new order key, tell every agent, and sign with it from now on; returns the new public key.

    Agents that are away learn of it when they come back. Open join tokens name the old key and open nothing any more.
    Raises Refused `rotating` while somebody else does the same.
    """
    if not master.keys.turn.acquire(blocking=False):
        raise errors.Refused("another new key is being made at this moment", code="rotating")
    try:
        new = master.keys.prepare(master.database)
        fail("keys.written")
        done = master.writer.call(lambda tx: _commit(tx, master, new, by, now))
        fail("keys.committed")
        master.keys.install(new, done)
        fail("keys.installed")
    finally:
        master.keys.turn.release()
    return new.public


def _commit(tx: Tx, master: Master, new: PrivateKey, by: str, now: int) -> list[StoredRotation]:
    old = master.keys.current
    envelope = rotation.seal(old, new, now)
    rotations.add(tx.conn, old.public.text, new.public.text, envelope, by, now)
    agents.drop_join_tokens(tx.conn)
    for agent in agents.every(tx.conn):
        if agent.revoked_at is None:
            sending.send(tx, master, agent.id, messages.KeyRotated(envelope=envelope), now)
    data = {"old": old.public.key_id, "new": new.public.key_id}
    events.add(tx, now, "order-key-rotated", actor=by, data=data)
    return rotations.every(tx.conn)


def _settle(home: Path, database: Database) -> list[StoredRotation]:
    """Finish a rotation that was committed, forget one that was not, and return all that were."""
    with database.read() as conn:
        done = rotations.every(conn)
    beside = home / NEXT
    if beside.exists():
        if done and PrivateKey.load(beside).public.text == done[-1].new_key:
            _take_the_place(home)
        else:
            beside.unlink()
    return done


def _take_the_place(home: Path) -> None:
    (home / NEXT).replace(home / FILE)
    sync_directory(home)
