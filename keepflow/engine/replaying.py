"""A delivery handled once more because a person asks for it: a new delivery of its own, about the same event."""

from __future__ import annotations

from keepflow import errors
from keepflow.core.events import Parsed
from keepflow.engine import intake
from keepflow.engine.context import Master
from keepflow.engine.deciding import REPLAY
from keepflow.store import deliveries, events
from keepflow.store.deliveries import Delivery
from keepflow.store.projects import Project
from keepflow.store.writer import Tx


def replay(tx: Tx, master: Master, project: Project, delivery_id: int, by: str, now: int) -> int:
    """Take a delivery in once more and return the row id of the new one.

    Raises NotFound; UsageError for one that holds no event, also when what its forge sent is read again.
    """
    stored = deliveries.by_id(tx.conn, delivery_id)
    if stored is None or stored.project_id != project.id:
        raise errors.NotFound(f"{project.name} has no delivery {delivery_id}", code="no-delivery")
    parsed = _read_again(tx, master, stored)
    if parsed.event is None:
        sentence = f"delivery {delivery_id} is no event that could start anything: {parsed.sentence}"
        raise errors.UsageError(sentence, code="no-event")
    body = deliveries.body(tx.conn, delivery_id)
    name, headers = f"replay-{delivery_id}-{now}", stored.headers
    recorded = intake.record(tx, master, project, name, REPLAY, stored.event_name, headers, body, parsed, now)
    data = {"delivery": delivery_id, "as": recorded.id}
    events.add(tx, now, "delivery-replayed", actor=by, project_id=project.id, data=data)
    return recorded.id


def _read_again(tx: Tx, master: Master, stored: Delivery) -> Parsed:
    """Return what a delivery says; what meant nothing then is read again, for this version may know more."""
    forge = master.forges.get(stored.forge)
    if stored.event is None and forge is not None:
        parsed: Parsed = forge.parse(stored.headers, deliveries.body(tx.conn, stored.id))
        return parsed
    return Parsed(stored.event, sentence="" if stored.event else f"it is {stored.word}")
