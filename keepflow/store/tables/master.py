"""What the master keeps of itself: counters, settings, and its log of everything that happened."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, Integer, String, Table, Text, UniqueConstraint, text

from keepflow.store.tables.base import Id, at, metadata, row_id

# One row per name: `fence` (one ever-rising number for attempts), `restore_skips`, and so on. Owner: counters.py
counters = Table(
    "counters", metadata, Column("name", String(40), primary_key=True), Column("value", BigInteger, nullable=False)
)

# Master settings that belong to the database (public url, managed-by-file hash). Owner: settings.py
settings = Table(
    "settings", metadata, Column("key", String(80), primary_key=True), Column("value", JSON, nullable=False)
)

# Append-only: audit log, feed of live pages, outbox of notifications. Hash-chained. Owner: events.py
events = Table(
    "events",
    metadata,
    row_id(),
    at("at", nullable=False),
    Column("kind", String(60), nullable=False),
    Column("actor", String(200), nullable=False, default=""),
    Column("project_id", Id),
    Column("run_id", Id),
    Column("environment_id", Id),
    Column("deployment_id", String(40)),
    Column("agent_id", Id),
    Column("data", JSON, nullable=False, default=dict),
    Column("chain", String(64), nullable=False),  # sha256 over the previous chain value and this row
    Index("ix_events_run", "run_id", "id"),
    Index("ix_events_project", "project_id", "id"),
)

# What channels are told, one row per recipient; kept a while after it was sent. Owner: notices.py
notices = Table(
    "notices",
    metadata,
    row_id(),
    Column("event_id", Id, ForeignKey("events.id"), nullable=False),
    Column("channel", String(40), nullable=False),
    Column("recipient", String(320), nullable=False),
    Column("delivery", String(80), nullable=False, unique=True),  # the same on every try
    Column("content", JSON, nullable=False),  # core.notices.Notice, frozen
    Column("project_id", Id),
    Column("state", String(10), nullable=False),  # waiting | sent | failed
    Column("tries", Integer, nullable=False, default=0),
    Column("error", Text, nullable=False, default=""),
    at("made_at", nullable=False),
    at("next_at"),  # when it is tried again; NULL = never
    at("ended_at"),
    UniqueConstraint("event_id", "channel", "recipient"),
    Index(
        "ix_notices_due", "next_at", sqlite_where=text("state = 'waiting'"), postgresql_where=text("state = 'waiting'")
    ),
    Index("ix_notices_channel", "channel", "id"),
)
