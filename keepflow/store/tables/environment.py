"""Environments: where they serve, and who let what into them."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from keepflow.store.tables.base import Id, at, metadata, row_id

# Owner: environments.py
environments = Table(
    "environments",
    metadata,
    row_id(),
    Column("project_id", Id, ForeignKey("projects.id"), nullable=False),
    Column("name", String(40), nullable=False),
    Column("position", Integer, nullable=False),  # order on the board
    Column("service", String(40), nullable=False),
    Column("instance", String(40), nullable=False, default="main"),
    Column("base_id", Id, ForeignKey("environments.id")),  # of a branch's instance: the environment it belongs to
    Column("ref", Text, nullable=False, default=""),  # …and its branch
    Column("idle", Integer, nullable=False, default=0),  # seconds that instances of branches stay unused; 0 = for ever
    Column("branches", JSON, nullable=False, default=list),
    Column("overrides", JSON, nullable=False, default=dict),  # env, args, stop_timeout, strategy
    Column("promote_from", String(40)),
    Column("verified_by", JSON, nullable=False, default=list),
    Column("approved_by", JSON, nullable=False, default=list),
    Column("rules", JSON, nullable=False, default=dict),  # four_eyes, max_age, … of later versions
    Column("url", Text, nullable=False, default=""),
    Column("max_unavailable", Integer, nullable=False, default=1),  # hosts that are switched at once
    Column("on_failure", String(10), nullable=False, default="revert"),  # revert | stop
    Column("locked_by", Text),
    Column("locked_why", Text),
    at("locked_at"),
    Column("managed", Boolean, nullable=False, default=False),
    Column("removed_at", BigInteger),
    at("created_at", nullable=False),
    UniqueConstraint("project_id", "name"),
)

# An environment on one of its hosts: what was deployed there, what was seen serving. Owner: placements.py
placements = Table(
    "placements",
    metadata,
    Column("environment_id", Id, ForeignKey("environments.id"), primary_key=True),
    Column("host", String(40), primary_key=True),  # agent by name; it may join later
    Column("position", Integer, nullable=False),  # hosts are switched in this order
    Column("current_id", String(40), ForeignKey("deployments.id")),  # last done deployment
    Column("observed", JSON),  # last wire ServiceState of the service
    Column("removed_at", BigInteger),
    Index("ix_placements_host", "host"),
)

# A release that did badly in an environment and does not go there again until it is lifted. Owner: quarantines.py
quarantines = Table(
    "quarantines",
    metadata,
    row_id(),
    Column("environment_id", Id, ForeignKey("environments.id"), nullable=False),
    Column("identity", String(80), nullable=False),
    Column("deployment_id", String(40), ForeignKey("deployments.id"), nullable=False),
    Column("code", String(40), nullable=False),
    Column("sentence", Text, nullable=False),
    at("at", nullable=False),
    Column("lifted_by", String(200)),
    Column("lifted_why", Text, nullable=False, default=""),
    at("lifted_at"),
    Index("ix_quarantines_environment", "environment_id", "identity"),
)

# What testers said of a deployment; never deleted, the newest of a person counts. Owner: marks.py
marks = Table(
    "marks",
    metadata,
    row_id(),
    Column("environment_id", Id, ForeignKey("environments.id"), nullable=False),
    Column("deployment_id", String(40), ForeignKey("deployments.id"), nullable=False),
    Column("identity", String(80), nullable=False),
    Column("person", String(60), nullable=False),
    Column("verdict", String(10), nullable=False),  # tested | rejected
    Column("note", Text, nullable=False, default=""),
    at("at", nullable=False),
    Index("ix_marks_identity", "environment_id", "identity", "id"),
)

# Tested releases that wait, or waited, for a person; at most one open per environment. Owner: gates.py
gates = Table(
    "gates",
    metadata,
    row_id(),
    Column("environment_id", Id, ForeignKey("environments.id"), nullable=False),
    Column("release_id", Id, ForeignKey("releases.id"), nullable=False),
    Column("identity", String(80), nullable=False),
    Column("run", Integer, nullable=False),  # number of the run that built the release
    Column("state", String(12), nullable=False),  # core.gates.GateState
    Column("reason_code", String(40), nullable=False, default=""),
    Column("reason", Text, nullable=False, default=""),
    at("opened_at", nullable=False),
    at("lapses_at", nullable=False),
    at("closed_at"),
    Index("ix_gates_release", "environment_id", "identity", "id"),
    Index(
        "uq_gates_open",
        "environment_id",
        unique=True,
        sqlite_where=text("closed_at IS NULL"),
        postgresql_where=text("closed_at IS NULL"),
    ),
)

# Deployments outside the rules, each until somebody else than its actor acknowledged it. Owner: breakglass.py
break_glass = Table(
    "break_glass",
    metadata,
    row_id(),
    Column("project_id", Id, ForeignKey("projects.id"), nullable=False),
    Column("environment_id", Id, ForeignKey("environments.id"), nullable=False),
    Column("deployment_id", String(40), ForeignKey("deployments.id"), nullable=False, unique=True),
    Column("actor", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("overridden", JSON, nullable=False),  # [{"code", "sentence"}] of the rules that were not kept
    Column("acknowledged_by", String(200)),
    at("acknowledged_at"),
    at("at", nullable=False),
    Index(
        "ix_break_glass_open",
        "project_id",
        sqlite_where=text("acknowledged_at IS NULL"),
        postgresql_where=text("acknowledged_at IS NULL"),
    ),
)
