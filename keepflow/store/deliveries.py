"""Deliveries: every webhook call that proved its signature, and later its decision."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, bindparam, func, select, update

from keepflow.core.events import Event, Parsed
from keepflow.store.tables import deliveries, projects


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook call.

    `decision` is {"sentence", "runs": [{"flow", "run", "why"}], "not": {flow: why}}, or None so far; an unhandled
    delivery with a decision says what it waits for.
    """

    id: int
    project_id: int
    delivery: str
    forge: str
    event_name: str
    headers: dict[str, str] = field(repr=False)
    event: Event | None
    word: str
    handled: bool
    decision: dict[str, Any] | None
    received_at: int
    handled_at: int | None


_COLUMNS = [column for column in deliveries.c if column.name not in ("body", "ref")]


#: Built once; as one statement for many rows.
_DECIDE = (
    update(deliveries)
    .where(deliveries.c.id == bindparam("row"), deliveries.c.handled.is_(False))
    .values(decision=bindparam("decision"), handled=True, handled_at=bindparam("at"))
)


def _delivery(row: RowMapping) -> Delivery:
    return Delivery(**{**row, "event": Event.from_json(row["event"]) if row["event"] else None})


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A webhook call that is about to be stored; `decision` is set for final words, which are handled at once."""

    project_id: int
    delivery: str
    forge: str
    event_name: str
    headers: dict[str, str]
    body: bytes
    parsed: Parsed
    decision: dict[str, Any] | None
    received_at: int


def add(conn: Connection, new: NewDelivery) -> int | None:
    """Store a call and return its row id, or None when this project already has a delivery of that id."""
    return add_all(conn, [new])[0]


def add_all(conn: Connection, news: Sequence[NewDelivery]) -> list[int | None]:
    """Store calls in their order and return what `add` would return for each.

    This decides how many hooks a second the master takes: one statement, given to the driver as text, so that all of it
    runs in the database while Python serves others. At most 500 calls at once.
    """
    values = tuple(value for new in news for value in _values(new))
    if conn.dialect.name == "postgresql":
        statement = _insert_text("%s", len(news)) + " RETURNING id, project_id, delivery"
        added = {(row[1], row[2]): int(row[0]) for row in conn.exec_driver_sql(statement, values)}
    else:
        result = conn.exec_driver_sql(_insert_text("?", len(news)), values)
        first = result.lastrowid - result.rowcount + 1
        if result.rowcount == len(news):  # row ids rise by one, in the order of the values
            return list(range(first, result.lastrowid + 1))
        added = _added(conn, first) if result.rowcount else {}
    return [added.pop((new.project_id, new.delivery), None) for new in news]


def _added(conn: Connection, first: int) -> dict[tuple[int, str], int]:
    query = select(deliveries.c.project_id, deliveries.c.delivery, deliveries.c.id).where(deliveries.c.id >= first)
    return {(project_id, delivery): row_id for project_id, delivery, row_id in conn.execute(query)}


def _values(new: NewDelivery) -> tuple[Any, ...]:
    event, final = new.parsed.event, new.parsed.event is None
    return (
        new.project_id,
        new.delivery,
        new.forge,
        new.event_name,
        json.dumps(new.headers),
        new.body,
        json.dumps(event.to_json()) if event else None,
        event.ref[:255] if event else "",
        new.parsed.word,
        final,
        json.dumps(new.decision) if new.decision else None,
        new.received_at,
        new.received_at if final else None,
    )


@functools.cache
def _insert_text(mark: str, rows: int) -> str:
    told = ("project_id", "delivery", "forge", "event_name", "headers", "body", "event", "ref", "word")
    columns = (*told, "handled", "decision", "received_at", "handled_at")
    row = f"({', '.join([mark] * len(columns))})"
    return (
        f"INSERT INTO deliveries ({', '.join(columns)}) VALUES {', '.join([row] * rows)} "  # noqa: S608 - fixed names and marks only
        "ON CONFLICT (project_id, delivery) DO NOTHING"
    )


def by_id(conn: Connection, delivery_id: int) -> Delivery | None:
    """Return a delivery by its row id."""
    row = conn.execute(select(*_COLUMNS).where(deliveries.c.id == delivery_id)).mappings().first()
    return _delivery(row) if row else None


def by_delivery(conn: Connection, project_id: int, delivery: str) -> Delivery | None:
    """Return a delivery by the forge's id."""
    query = select(*_COLUMNS).where(deliveries.c.project_id == project_id, deliveries.c.delivery == delivery)
    row = conn.execute(query).mappings().first()
    return _delivery(row) if row else None


def body(conn: Connection, delivery_id: int) -> bytes:
    """Return the raw body of a delivery."""
    return bytes(conn.execute(select(deliveries.c.body).where(deliveries.c.id == delivery_id)).scalar_one())


def page(conn: Connection, project_id: int, before: int | None, limit: int) -> list[Delivery]:
    """List a project's deliveries, newest first, below the row id `before`."""
    query = select(*_COLUMNS).where(deliveries.c.project_id == project_id)
    if before is not None:
        query = query.where(deliveries.c.id < before)
    return [_delivery(row) for row in conn.execute(query.order_by(deliveries.c.id.desc()).limit(limit)).mappings()]


def last_event(conn: Connection, project_id: int, ref: str) -> Event | None:
    """Return what was told last of a ref; slow for one of which nothing was told."""
    query = select(deliveries.c.event).where(deliveries.c.project_id == project_id, deliveries.c.ref == ref)
    found = conn.execute(query.order_by(deliveries.c.id.desc()).limit(1)).scalar()
    return Event.from_json(found) if found else None


def projects_waiting(conn: Connection) -> list[int]:
    """List the projects that have unhandled deliveries, the one that waits longest first.

    One step into the index per project, however many deliveries wait: this is asked after every hook.
    """
    oldest = (
        select(func.min(deliveries.c.id))
        .where(deliveries.c.handled.is_(False), deliveries.c.project_id == projects.c.id)
        .scalar_subquery()
    )
    return list(conn.execute(select(projects.c.id).where(oldest.is_not(None)).order_by(oldest)).scalars())


def next_unhandled(conn: Connection, project_id: int) -> Delivery | None:
    """Return the oldest unhandled delivery of a project."""
    query = select(*_COLUMNS).where(deliveries.c.project_id == project_id, deliveries.c.handled.is_(False))
    row = conn.execute(query.order_by(deliveries.c.id).limit(1)).mappings().first()
    return _delivery(row) if row else None


def refs_waiting(conn: Connection, project_id: int) -> list[str]:
    """List the refs of a project that have unhandled deliveries: that of the oldest one, then those with the fewest."""
    oldest = func.min(deliveries.c.id)
    query = select(deliveries.c.ref, oldest, func.count()).where(_unhandled(project_id)).group_by(deliveries.c.ref)
    found = sorted(conn.execute(query.order_by(oldest)), key=lambda row: row[2])
    first = min(found, key=lambda row: row[1], default=None)
    return [row[0] for row in sorted(found, key=lambda row: row is not first)]


def unhandled_ids(conn: Connection, project_id: int, ref: str, limit: int) -> list[int]:
    """List the oldest unhandled deliveries of one ref, by row id."""
    query = select(deliveries.c.id).where(_unhandled(project_id), deliveries.c.ref == ref)
    return list(conn.execute(query.order_by(deliveries.c.id).limit(limit)).scalars())


def _unhandled(project_id: int) -> ColumnElement[bool]:
    return and_(deliveries.c.handled.is_(False), deliveries.c.project_id == project_id)


def unhandled(conn: Connection, ids: Collection[int]) -> list[Delivery]:
    """Return those of these deliveries that are not handled, oldest first."""
    query = select(*_COLUMNS).where(deliveries.c.id.in_(ids), deliveries.c.handled.is_(False))
    return [_delivery(row) for row in conn.execute(query.order_by(deliveries.c.id)).mappings()]


def unhandled_among(conn: Connection, ids: Collection[int]) -> set[int]:
    """Return the row ids of those of these deliveries that are not handled."""
    query = select(deliveries.c.id).where(deliveries.c.id.in_(ids), deliveries.c.handled.is_(False))
    return set(conn.execute(query).scalars())


def decide(conn: Connection, delivery_id: int, decision: dict[str, Any], now: int) -> bool:
    """Write the decision and the handled mark; False when somebody handled it before, and nothing was changed."""
    query = update(deliveries).where(deliveries.c.id == delivery_id, deliveries.c.handled.is_(False))
    return conn.execute(query.values(decision=decision, handled=True, handled_at=now)).rowcount == 1


def decide_all(conn: Connection, decisions: Mapping[int, dict[str, Any]], now: int) -> None:
    """Write decisions, by row id, and the handled marks; one that was handled before is left as it is."""
    if decisions:
        conn.execute(_DECIDE, [{"row": row, "decision": told, "at": now} for row, told in decisions.items()])


def decide_unhandled(conn: Connection, project_id: int, decision: dict[str, Any], now: int) -> None:
    """Decide everything of a project that waits to be handled."""
    query = update(deliveries).where(_unhandled(project_id))
    conn.execute(query.values(decision=decision, handled=True, handled_at=now))


def decide_before(
    conn: Connection, project_id: int, ref: str, delivery_id: int, decision: dict[str, Any], now: int
) -> None:
    """Decide everything that was told of one ref before a delivery and waits to be handled."""
    query = update(deliveries).where(_unhandled(project_id), deliveries.c.ref == ref, deliveries.c.id < delivery_id)
    conn.execute(query.values(decision=decision, handled=True, handled_at=now))


def explain_wait(conn: Connection, delivery_id: int, sentence: str) -> None:
    """Write what an unhandled delivery waits for."""
    query = update(deliveries).where(deliveries.c.id == delivery_id, deliveries.c.handled.is_(False))
    conn.execute(query.values(decision={"sentence": sentence, "runs": [], "not": {}}))
