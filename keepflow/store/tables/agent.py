"""Agents, how they join, and what they are told."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, Integer, LargeBinary, String, Table, Text

from keepflow.store.tables.base import Id, at, metadata, row_id

# Owner: agents.py
agents = Table(
    "agents",
    metadata,
    row_id(),
    Column("name", String(40), nullable=False, unique=True),
    Column("public_key", Text, nullable=False),
    Column("key_id", String(80), nullable=False, unique=True),
    Column("capabilities", JSON, nullable=False, default=list),
    Column("labels", JSON, nullable=False, default=list),
    Column("slots", Integer, nullable=False, default=1),
    Column("hello", JSON),
    Column("connected", Boolean, nullable=False, default=False),
    Column("offline_why", Text, nullable=False, default=""),
    Column(
        "drained_by", String(80), nullable=False, default=""
    ),  # who wants it to take nothing new; "" = it takes jobs
    Column("last_report", BigInteger, nullable=False, default=0),  # highest report number taken
    Column("revoked_at", BigInteger),
    at("last_seen_at"),
    at("created_at", nullable=False),
)

# Owner: agents.py
join_tokens = Table(
    "join_tokens",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("agent", String(40), nullable=False),
    Column("created_by", String(200), nullable=False),
    at("created_at", nullable=False),
    at("expires_at", nullable=False),
    at("used_at"),
)

# New order keys, each vouched for by the one before; never deleted. Owner: rotations.py
key_rotations = Table(
    "key_rotations",
    metadata,
    row_id(),
    Column("old_key", String(80), nullable=False, unique=True),
    Column("new_key", String(80), nullable=False, unique=True),
    Column("envelope", JSON, nullable=False),
    Column("made_by", String(200), nullable=False),
    at("at", nullable=False),
)

# What an agent must be told; a row stays until the agent has it on disk. Owner: outgoing.py
outgoing = Table(
    "outgoing",
    metadata,
    row_id(),
    Column("agent_id", Id, ForeignKey("agents.id"), nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("body", JSON, nullable=False),  # wire.messages.Body without its secrets
    Column("sealed", LargeBinary),  # those secrets, until the agent has them
    at("created_at", nullable=False),
    at("received_at"),
    Index("ix_outgoing_waiting", "agent_id", "received_at", "id"),
    Index("ix_outgoing_fence", "fence"),
)
