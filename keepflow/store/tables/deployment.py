"""Deployments, and what is laid on hosts ahead of them."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, String, Table, Text

from keepflow.store.tables.base import Id, at, metadata

# One try to make an environment serve a release. Owner: deployments.py
deployments = Table(
    "deployments",
    metadata,
    Column("id", String(40), primary_key=True),  # made by the asker; the idempotency key of a promote
    Column("environment_id", Id, ForeignKey("environments.id"), nullable=False),
    Column("release_id", Id, ForeignKey("releases.id"), nullable=False),
    Column("job_id", Id, ForeignKey("jobs.id"), nullable=False),
    Column("host", String(40), nullable=False),  # agent by name: one of the environment's hosts when it was asked for
    Column("kind", String(10), nullable=False),  # deploy | promote | rollback
    Column("phase", String(12), nullable=False),
    Column("reason_code", String(40), nullable=False, default=""),
    Column("reason", Text, nullable=False, default=""),
    Column("requested_by", String(200), nullable=False),
    Column("note", Text, nullable=False, default=""),
    Column("agent_id", Id, ForeignKey("agents.id")),  # who was sent the order
    Column("fence", BigInteger, unique=True),
    Column("description", JSON, nullable=False),
    Column("description_hash", String(80), nullable=False),
    Column("changes", JSON, nullable=False, default=list),  # settings that change, frozen
    Column("order", JSON),  # the signed envelope as sent
    Column("identity", String(80), nullable=False),
    Column("identity_before", String(80)),
    Column("replaced_id", String(40), ForeignKey("deployments.id")),  # what the host served until this was done
    Column("phases", JSON, nullable=False, default=list),  # [{"phase", "at", "detail"}] as reported
    Column("canary", JSON),  # {"steps": percents, "hold": seconds}, when it was asked for
    Column("receipt", JSON),
    Column("receipt_envelope", JSON),  # signed by the agent, as received
    Column("receipt_verdict", String(4), nullable=False, default="none"),  # none | good | bad
    Column("log_tail", Text, nullable=False, default=""),
    at("requested_at", nullable=False),
    at("accepted_at"),
    at("finished_at"),
    Index("ix_deployments_environment", "environment_id", "requested_at"),
    Index("ix_deployments_release", "release_id"),
    Index("ix_deployments_job", "job_id"),
    Index("ix_deployments_phase", "phase"),
)

# Images laid on hosts ahead of a promote, and rehearsals; they never change what serves. Owner: preparations.py
preparations = Table(
    "preparations",
    metadata,
    Column("id", String(40), primary_key=True),  # made by the asker
    Column("environment_id", Id, ForeignKey("environments.id"), nullable=False),
    Column("release_id", Id, ForeignKey("releases.id"), nullable=False),
    Column("host", String(40), nullable=False),
    Column("kind", String(10), nullable=False),  # stage | rehearsal
    Column("phase", String(12), nullable=False),
    Column("reason_code", String(40), nullable=False, default=""),
    Column("reason", Text, nullable=False, default=""),
    Column("requested_by", String(200), nullable=False),
    Column("agent_id", Id, ForeignKey("agents.id")),
    Column("fence", BigInteger, unique=True),
    Column("description", JSON, nullable=False),
    Column("description_hash", String(80), nullable=False),
    Column("identity", String(80), nullable=False),
    Column("receipt", JSON),
    Column("log_tail", Text, nullable=False, default=""),
    at("requested_at", nullable=False),
    at("finished_at"),
    Index("ix_preparations_release", "environment_id", "identity"),
    Index("ix_preparations_host", "host", "phase"),
)
