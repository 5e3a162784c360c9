"""People, their groups and roles, and how they show who they are."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from keepflow.store.tables.base import Id, at, metadata, row_id

# Owner: people.py
users = Table(
    "users",
    metadata,
    row_id(),
    Column("name", String(60), nullable=False, unique=True),
    Column("email", String(200), nullable=False, default=""),
    Column("password_hash", Text),
    Column("admin", Boolean, nullable=False, default=False),
    Column("disabled_at", BigInteger),
    at("created_at", nullable=False),
)

groups = Table(
    "groups",
    metadata,
    row_id(),
    Column("name", String(40), nullable=False, unique=True),
    Column("managed", Boolean, nullable=False, default=False),
)

group_members = Table(
    "group_members",
    metadata,
    Column("group_id", Id, ForeignKey("groups.id"), primary_key=True),
    Column("user_name", String(60), primary_key=True),  # by name: a file may name people before they exist
)

# viewer < developer < tester < release-manager < admin, per project; given to a user or a group.
roles = Table(
    "roles",
    metadata,
    row_id(),
    Column("project_id", Id, ForeignKey("projects.id"), nullable=False),
    Column("user_id", Id, ForeignKey("users.id")),
    Column("group_id", Id, ForeignKey("groups.id")),
    Column("role", String(20), nullable=False),
    CheckConstraint("(user_id IS NULL) <> (group_id IS NULL)", name="one_holder"),
    UniqueConstraint("project_id", "user_id", "group_id"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("hash", String(64), primary_key=True),  # sha256 of the cookie's random value
    Column("user_id", Id, ForeignKey("users.id"), nullable=False),
    Column("csrf", String(64), nullable=False),
    at("created_at", nullable=False),
    at("used_at", nullable=False),
    Index("ix_sessions_user", "user_id"),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    row_id(),
    Column("hash", String(64), nullable=False, unique=True),
    Column("user_id", Id, ForeignKey("users.id"), nullable=False),
    Column("name", String(60), nullable=False),
    Column("scopes", JSON, nullable=False, default=list),
    at("created_at", nullable=False),
    at("expires_at"),
    at("used_at"),
    at("revoked_at"),
)

# One-time links: first admin, password reset. Owner: people.py
links = Table(
    "links",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("purpose", String(20), nullable=False),  # setup
    Column("user_id", Id, ForeignKey("users.id")),
    at("created_at", nullable=False),
    at("expires_at", nullable=False),
    at("used_at"),
)
