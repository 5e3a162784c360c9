"""Runs, their jobs, attempts and steps, and what these left behind."""

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

from keepflow.store.tables.base import Id, at, live_index, metadata, row_id

# Owner: runs.py
runs = Table(
    "runs",
    metadata,
    row_id(),
    Column("project_id", Id, ForeignKey("projects.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("flow", String(40), nullable=False),
    Column("state", String(12), nullable=False),
    Column("reason_code", String(40), nullable=False, default=""),
    Column("reason", Text, nullable=False, default=""),
    Column("event", JSON, nullable=False),
    Column("ref", String(255), nullable=False),
    Column("sha", String(64), nullable=False),
    Column("message", Text, nullable=False, default=""),
    Column("actor", String(200), nullable=False, default=""),
    Column("why", Text, nullable=False, default=""),  # why this flow was started
    Column("plan", JSON, nullable=False),  # core.planning.plan_to_json; frozen
    Column("trust", String(12), nullable=False),  # protected | other | fork
    Column("approved_by", String(200)),  # who let the run of a fork begin
    Column("delivery_id", Id, ForeignKey("deliveries.id")),
    Column("agent_id", Id, ForeignKey("agents.id")),  # a run stays on one agent
    Column("superseded_by", Id, ForeignKey("runs.id")),
    Column("rerun_of", Id, ForeignKey("runs.id")),  # the run that this one does again
    at("created_at", nullable=False),
    at("started_at"),
    at("finished_at"),
    at("ends_by"),  # when its flow's timeout ends it
    Column("group", String(40), nullable=False, default=""),  # of runs that are never at once; "" = its flow
    at("turn_at"),  # when its turn among those came
    UniqueConstraint("project_id", "number"),
    live_index("ix_runs_live", "project_id", "flow", "id"),
    live_index("ix_runs_live_group", "project_id", "group", "id"),
    live_index("ix_runs_ends_by", "ends_by"),
    Index("ix_runs_state", "state", "id"),
    Index("ix_runs_project", "project_id", "id"),
    Index("ix_runs_project_flow", "project_id", "flow", "id"),
    Index("ix_runs_commit", "project_id", "sha"),
    Index("ix_runs_delivery", "delivery_id"),
    Index("ix_runs_rerun_of", "rerun_of"),
)

# What forges are told of runs: one row per run, of the state it has now. Owner: statuses.py
statuses = Table(
    "statuses",
    metadata,
    Column("run_id", Id, ForeignKey("runs.id"), primary_key=True),
    Column("project_id", Id, ForeignKey("projects.id"), nullable=False),
    Column("wanted", String(8), nullable=False),  # core.statuses.Verdict
    Column("told", String(8), nullable=False, default=""),  # the one that the forge has taken
    Column("tries", Integer, nullable=False, default=0),  # of the wanted one
    Column("said", Text, nullable=False, default=""),  # what the last try failed with
    at("next_at"),  # NULL: nothing to do
    Index(
        "ix_statuses_due",
        "next_at",
        sqlite_where=text("next_at IS NOT NULL"),
        postgresql_where=text("next_at IS NOT NULL"),
    ),
)

# Owner: jobs.py
jobs = Table(
    "jobs",
    metadata,
    row_id(),
    Column("run_id", Id, ForeignKey("runs.id"), nullable=False),
    Column("key", String(100), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("kind", String(10), nullable=False),  # script | deploy | approve | notify
    Column("needs", JSON, nullable=False, default=list),
    Column("spec", JSON, nullable=False),  # the PlannedJob
    Column("outputs", JSON, nullable=False, default=dict),  # variables that it told the jobs behind it
    Column("state", String(12), nullable=False),
    Column("reason_code", String(40), nullable=False, default=""),
    Column("reason", Text, nullable=False, default=""),
    at("created_at", nullable=False),
    at("started_at"),
    at("finished_at"),
    at("not_before"),  # when its next try may begin
    Column("rank", BigInteger, nullable=False),  # core.priority: the lowest is handed out first
    UniqueConstraint("run_id", "key"),
    live_index("ix_jobs_live", "id"),
    live_index("ix_jobs_live_rank", "rank", "id"),
    live_index("ix_jobs_not_before", "not_before"),
)

# Attempts are added, never overwritten; `fence` names this attempt in every later write. Owner: jobs.py
attempts = Table(
    "attempts",
    metadata,
    row_id(),
    Column("job_id", Id, ForeignKey("jobs.id"), nullable=False),
    Column("n", Integer, nullable=False),
    Column("fence", BigInteger, nullable=False, unique=True),
    Column("agent_id", Id, ForeignKey("agents.id")),
    Column("state", String(12), nullable=False),
    Column("reason_code", String(40), nullable=False, default=""),
    Column("reason", Text, nullable=False, default=""),
    Column("exit_code", Integer),
    Column("token_hash", String(64)),  # job token, None once the attempt ended
    Column("log_path", Text, nullable=False),  # below KEEPFLOW_HOME/logs
    Column("log_bytes", BigInteger, nullable=False, default=0),
    at("created_at", nullable=False),
    at("started_at"),
    at("finished_at"),
    UniqueConstraint("job_id", "n"),
    live_index("ix_attempts_live", "agent_id"),
    Index("ix_attempts_token", "token_hash"),
)

# Owner: jobs.py
steps = Table(
    "steps",
    metadata,
    row_id(),
    Column("attempt_id", Id, ForeignKey("attempts.id"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("state", String(12), nullable=False),
    Column("exit_code", Integer),
    Column("log_from", BigInteger, nullable=False),
    Column("log_to", BigInteger),
    at("started_at", nullable=False),
    at("finished_at"),
    UniqueConstraint("attempt_id", "ordinal"),
)

# Files that attempts kept; the bytes lie below KEEPFLOW_HOME/artifacts under their digest. Owner: artifacts.py
artifacts = Table(
    "artifacts",
    metadata,
    row_id(),
    Column("attempt_id", Id, ForeignKey("attempts.id"), nullable=False),
    Column("path", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("executable", Boolean, nullable=False),
    at("created_at", nullable=False),
    at("expires_at"),  # NULL = as long as its run's log
    at("removed_at"),  # the bytes were let go of
    Index("ix_artifacts_attempt", "attempt_id"),
    Index("ix_artifacts_digest", "sha256"),
    Index("ix_artifacts_expiry", "expires_at"),
)

# Owner: workspaces.py
workspaces = Table(
    "workspaces",
    metadata,
    Column("attempt_id", Id, ForeignKey("attempts.id"), primary_key=True),
    Column("run_id", Id, ForeignKey("runs.id"), nullable=False),
    Column("commit", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    at("created_at", nullable=False),
    Index("ix_workspaces_run", "run_id"),
)

# Owner: workspaces.py
workspace_files = Table(
    "workspace_files",
    metadata,
    Column("run_id", Id, ForeignKey("runs.id"), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    at("created_at", nullable=False),
    Index("ix_workspace_files_digest", "sha256"),
)

# Owner: releases.py
releases = Table(
    "releases",
    metadata,
    row_id(),
    Column("project_id", Id, ForeignKey("projects.id"), nullable=False),
    Column("run_id", Id, ForeignKey("runs.id"), nullable=False),
    Column("origin", String(60), nullable=False),  # registry | local:<agent>
    Column("image_id", String(80), nullable=False),
    Column("repository", String(255), nullable=False),
    Column("digest", String(80)),
    Column("reference", Text, nullable=False),
    Column("sha", String(64), nullable=False),
    Column("container", JSON, nullable=False),  # core.deploys.to_json of the default description
    at("created_at", nullable=False),
    UniqueConstraint("run_id", "origin", "image_id", "repository"),
    Index("ix_releases_digest", "digest"),
    Index("ix_releases_project", "project_id", "id"),
)

# Signed statements about a digest: how it was built or tested; never changed, never deleted. Owner: receipts.py
receipts = Table(
    "receipts",
    metadata,
    row_id(),
    Column("project_id", Id, ForeignKey("projects.id"), nullable=False),
    Column("release_id", Id, ForeignKey("releases.id"), nullable=False),
    Column("repository", String(255), nullable=False),
    Column("digest", String(80), nullable=False),
    Column("kind", String(20), nullable=False),  # provenance | test-result
    Column("passed", Boolean),  # of a test result
    Column("made_by", String(200), nullable=False),  # a person, or the run as `project#number`
    Column("by_person", Boolean, nullable=False),
    Column("witness", String(80)),  # public key, not the master's, that signed it, too
    Column("envelope", JSON, nullable=False),  # DSSE, as it is given out
    at("at", nullable=False),
    Index("ix_receipts_digest", "project_id", "digest", "id"),
)
