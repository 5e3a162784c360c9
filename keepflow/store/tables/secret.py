"""Sealed secrets, of environments and of projects."""

from __future__ import annotations

from sqlalchemy import JSON, Column, ForeignKey, Integer, LargeBinary, String, Table

from keepflow.store.tables.base import Id, at, metadata

# Secrets of environments, each version sealed; a removed one keeps its row without the value. Owner: secrets.py
environment_secrets = Table(
    "environment_secrets",
    metadata,
    Column("environment_id", Id, ForeignKey("environments.id"), primary_key=True),
    Column("name", String(100), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("sealed", LargeBinary),  # NULL = removed
    Column("size", Integer, nullable=False),  # bytes of the value
    Column("set_by", String(200), nullable=False),
    at("at", nullable=False),
    at("removed_at"),
)

# Secrets of projects, for their jobs, in the same way. Owner: secrets.py
project_secrets = Table(
    "project_secrets",
    metadata,
    Column("project_id", Id, ForeignKey("projects.id"), primary_key=True),
    Column("name", String(100), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("sealed", LargeBinary),  # NULL = removed
    Column("size", Integer, nullable=False),
    Column("binding", JSON, nullable=False),  # core.job_secrets.Binding
    Column("set_by", String(200), nullable=False),
    at("at", nullable=False),
    at("removed_at"),
)
