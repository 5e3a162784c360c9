"""Projects, what their forges sent, and the flows that the clock starts."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from keepflow.store.tables.base import Id, at, metadata, row_id


def _unhandled(name: str, *columns: str) -> Index:
    """Index only the deliveries that wait for their decision."""
    return Index(name, *columns, sqlite_where=text("handled IS 0"), postgresql_where=text("handled IS false"))


# Owner: projects.py
projects = Table(
    "projects",
    metadata,
    row_id(),
    Column("name", String(40), nullable=False, unique=True),
    Column("repo", Text, nullable=False),
    Column("forge", String(20), nullable=False),
    Column("flow_file", String(200), nullable=False, default=".keepflow.yml"),
    Column("images", JSON, nullable=False, default=list),
    Column("submodules", JSON, nullable=False, default=list),
    Column("hook_secret", LargeBinary),  # sealed, place `project/<name>/hook-secret`
    Column("hook_secret_made", Boolean, nullable=False, default=False),  # by keepflow: no file names it
    Column("git_token", LargeBinary),  # sealed, place `project/<name>/git-token`
    Column("status", JSON),  # how the forge is told of runs: {"api", "private", "ca_pem"}, and the token, sealed
    Column("git_ssh_key_file", Text),
    Column("git_known_hosts_file", Text),
    Column("next_number", Integer, nullable=False, default=1),  # of runs; rises only
    Column("served", BigInteger, nullable=False, default=0),  # fence of the job that was given away last
    Column("managed", Boolean, nullable=False, default=False),  # named by the server file: read-only on pages
    Column("paused_by", Text),
    Column("paused_why", Text),
    at("paused_at"),
    Column("removed_at", BigInteger),
    at("created_at", nullable=False),
)

# Webhooks that keepflow keeps at forges, or has still to remove there. Owner: forge_hooks.py
forge_hooks = Table(
    "forge_hooks",
    metadata,
    row_id(),
    Column("project_id", Id, ForeignKey("projects.id"), nullable=False),
    Column("forge", String(20), nullable=False),
    Column("repo", Text, nullable=False),
    Column("api", Text, nullable=False),  # "" = the usual place on the host of the repository
    Column("ca_pem", Text, nullable=False),
    Column("private", Boolean, nullable=False),
    Column("token", LargeBinary, nullable=False),  # sealed, place `project/<name>/hook-token`
    Column("wanted", Boolean, nullable=False, default=True),  # false: it is to be removed there
    Column("state", String(8), nullable=False),  # due | kept | failed | left
    Column("said", Text, nullable=False, default=""),  # why it failed, and what helps
    Column("remote_id", Text),  # the forge's id of it
    Column("given", LargeBinary),  # address and secret that it was given there; sealed, place `…/hook-given`
    Column("tries", Integer, nullable=False, default=0),  # that failed, one after the other
    at("next_at"),  # when the forge is asked next; NULL: never by itself
    at("changed_at", nullable=False),
    Index("ix_forge_hooks_project", "project_id"),
)

# One row per webhook call that proved its signature. Owner: deliveries.py
deliveries = Table(
    "deliveries",
    metadata,
    row_id(),
    Column("project_id", Id, ForeignKey("projects.id"), nullable=False),
    Column("delivery", String(200), nullable=False),  # the forge's id, unique per project
    Column("forge", String(20), nullable=False),
    Column("event_name", String(60), nullable=False),
    Column("headers", JSON, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("event", JSON),  # core.events.Event, None for a final word
    Column("ref", String(255), nullable=False, default=""),  # of the event
    Column("word", String(40), nullable=False, default=""),  # ping, deleted, closed, no-commit, unknown-event, ignored
    Column("handled", Boolean, nullable=False, default=False),
    Column("decision", JSON),  # {"runs": [{"flow", "run", "why"}], "not": {flow: why}, "sentence": …}
    at("received_at", nullable=False),
    at("handled_at"),
    UniqueConstraint("project_id", "delivery"),
    _unhandled("ix_deliveries_unhandled", "project_id", "id"),
    _unhandled("ix_deliveries_unhandled_ref", "project_id", "ref", "id"),
    Index("ix_deliveries_project", "project_id", "id"),
)

# Heads the reconcile sweep has seen handled: what was built last per branch. Owner: heads.py
heads = Table(
    "heads",
    metadata,
    Column("project_id", Id, ForeignKey("projects.id"), primary_key=True),
    Column("ref", String(255), primary_key=True),
    Column("sha", String(64), nullable=False),
    at("seen_at", nullable=False),
)

# Flows that the clock starts, as the newest taken commit of the main branch says. Owner: schedules.py
schedules = Table(
    "schedules",
    metadata,
    Column("project_id", Id, ForeignKey("projects.id"), primary_key=True),
    Column("flow", String(40), primary_key=True),
    Column("cron", String(400), nullable=False),
    Column("tz", String(100), nullable=False),
    Column("ref", String(255), nullable=False),
    at("next_at"),  # NULL: no day fits any more
    at("last_at"),  # the time it was due when it was started last
    Column("missed", Integer, nullable=False, default=0),  # times before `last_at` that nobody was there for
)
