"""What goes down to agents: rows of `outgoing`, with the secrets in them sealed until they are sent."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection

from keepflow.engine.context import Master
from keepflow.store import outgoing
from keepflow.store.outgoing import Outgoing
from keepflow.store.writer import Tx
from keepflow.wire import messages

#: Fields of a body that never lie readable in the database.
_SECRET = ("token", "logins", "mask", "secrets")
_body: TypeAdapter[messages.Body] = TypeAdapter(messages.Body)


def send(tx: Tx, master: Master, agent_id: int, body: messages.Body, now: int) -> None:
    """Write down what an agent must be told, and wake its session once that is committed."""
    data: dict[str, Any] = body.model_dump(mode="json")
    secret = {key: data.pop(key) for key in _SECRET if data.get(key)}
    sealed = master.vault.seal(json.dumps(secret).encode(), _place(body.fence)) if secret else None
    outgoing.add(tx.conn, agent_id, body.fence, data, now, sealed)
    tx.after_commit(partial(master.wakes.fire, f"agent:{agent_id}"))


def waiting(conn: Connection, master: Master, agent_id: int, after: int = 0, limit: int = 100) -> list[messages.Send]:
    """List what an agent does not have on disk yet, ready to be sent, oldest first, beyond the row id `after`."""
    return [_opened(master, row) for row in outgoing.waiting(conn, agent_id, after, limit)]


def received(tx: Tx, agent_id: int, ids: Iterable[int], now: int) -> None:
    """Mark rows as on the agent's disk; rows of other agents are not touched."""
    outgoing.received(tx.conn, agent_id, ids, now)


def _opened(master: Master, row: Outgoing) -> messages.Send:
    data = row.body
    if row.sealed is not None:
        data = {**data, **json.loads(master.vault.unseal(row.sealed, _place(row.fence)))}
    return messages.Send(id=row.id, body=_body.validate_python(data))


def _place(fence: int) -> str:
    return f"outgoing/{fence}"
