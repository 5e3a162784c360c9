"""Every table, in the order the data flows. Each has one owning module of queries beside this file.

Times are UTC microseconds (integers), made by the master. JSON columns hold plain data of `core` or `wire` types.
Rows of releases, receipts, deployments, approvals and the runs they cite are never deleted.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: 64-bit row id that SQLite still treats as its rowid.
Id = BigInteger().with_variant(Integer, "sqlite")


def _id() -> Column[int]:
    return Column("id", Id, primary_key=True, autoincrement=True)


def _at(name: str, nullable: bool = True) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def _live(name: str, *columns: str) -> Index:
    """Index only the rows that have not ended: few, however long the history is."""
    still = text("finished_at IS NULL")
    return Index(name, *columns, sqlite_where=still, postgresql_where=still)


def _unhandled(name: str, *columns: str) -> Index:
    """Index only the deliveries that wait for their decision."""
    return Index(name, *columns, sqlite_where=text("handled IS 0"), postgresql_where=text("handled IS false"))


# One row per name: `fence` (one ever-rising number for attempts), `restore_skips`, and so on. Owner: counters.py
counters = Table(
    "counters", metadata, Column("name", String(40), primary_key=True), Column("value", BigInteger, nullable=False)
)

# Master settings that belong to the database (public url, managed-by-file hash). Owner: settings.py
settings = Table(
    "settings", metadata, Column("key", String(80), primary_key=True), Column("value", JSON, nullable=False)
)

# Owner: projects.py
projects = Table(
    "projects",
    metadata,
    _id(),
    Column("name", String(40), nullable=False, unique=True),
    Column("repo", Text, nullable=False),
    Column("forge", String(20), nullable=False),
    Column("flow_file", String(200), nullable=False, default=".keepflow.yml"),
    Column("images", JSON, nullable=False, default=list),
    Column("hook_secret", LargeBinary),  # sealed, place `project/<name>/hook-secret`
    Column("git_token", LargeBinary),  # sealed, place `project/<name>/git-token`
    Column("status", JSON),  # how the forge is told of runs: {"api", "private", "ca_pem"}, and the token, sealed
    Column("git_ssh_key_file", Text),
    Column("git_known_hosts_file", Text),
    Column("next_number", Integer, nullable=False, default=1),  # of runs; rises only
    Column("served", BigInteger, nullable=False, default=0),  # fence of the job that was given away last
    Column("managed", Boolean, nullable=False, default=False),  # named by the server file: read-only on pages
    Column("paused_by", Text),
    Column("paused_why", Text),
    _at("paused_at"),
    Column("removed_at", BigInteger),
    _at("created_at", nullable=False),
)

# One row per webhook call that proved its signature. Owner: deliveries.py
deliveries = Table(
    "deliveries",
    metadata,
    _id(),
    Column("project_id", Id, ForeignKey("projects.id"), nullable=False),
    Column("delivery", String(200), nullable=False),  # the forge's id, unique per project
    Column("forge", String(20), nullable=False),
    Column("event_name", String(60), nullable=False),
    Column("headers", JSON, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("event", JSON),  # core.events.Event, None for a final word
    Column("ref", String(255), nullable=False, default=""),  # of the event
    Column("word", String(40), nullable=False, default=""),  # ping, deleted, no-commit, unknown-event, ignored
    Column("handled", Boolean, nullable=False, default=False),
    Column("decision", JSON),  # {"runs": [{"flow", "run", "why"}], "not": {flow: why}, "sentence": …}
    _at("received_at", nullable=False),
    _at("handled_at"),
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
    _at("seen_at", nullable=False),
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
    _at("next_at"),  # NULL: no day fits any more
    _at("last_at"),  # the time it was due when it was started last
    Column("missed", Integer, nullable=False, default=0),  # times before `last_at` that nobody was there for
)

# Owner: runs.py
runs = Table(
    "runs",
    metadata,
    _id(),
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
    _at("created_at", nullable=False),
    _at("started_at"),
    _at("finished_at"),
    _at("ends_by"),  # when its flow's timeout ends it
    Column("group", String(40), nullable=False, default=""),  # of runs that are never at once; "" = its flow
    _at("turn_at"),  # when its turn among those came
    UniqueConstraint("project_id", "number"),
    _live("ix_runs_live", "project_id", "flow", "id"),
    _live("ix_runs_live_group", "project_id", "group", "id"),
    _live("ix_runs_ends_by", "ends_by"),
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
    _at("next_at"),  # NULL: nothing to do
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
    _id(),
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
    _at("created_at", nullable=False),
    _at("started_at"),
    _at("finished_at"),
    _at("not_before"),  # when its next try may begin
    Column("rank", BigInteger, nullable=False),  # core.priority: the lowest is handed out first
    UniqueConstraint("run_id", "key"),
    _live("ix_jobs_live", "id"),
    _live("ix_jobs_live_rank", "rank", "id"),
    _live("ix_jobs_not_before", "not_before"),
)

# Attempts are added, never overwritten; `fence` names this attempt in every later write. Owner: jobs.py
attempts = Table(
    "attempts",
    metadata,
    _id(),
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
    _at("created_at", nullable=False),
    _at("started_at"),
    _at("finished_at"),
    UniqueConstraint("job_id", "n"),
    _live("ix_attempts_live", "agent_id"),
    Index("ix_attempts_token", "token_hash"),
)

# Owner: jobs.py
steps = Table(
    "steps",
    metadata,
    _id(),
    Column("attempt_id", Id, ForeignKey("attempts.id"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("state", String(12), nullable=False),
    Column("exit_code", Integer),
    Column("log_from", BigInteger, nullable=False),
    Column("log_to", BigInteger),
    _at("started_at", nullable=False),
    _at("finished_at"),
    UniqueConstraint("attempt_id", "ordinal"),
)

# Files that attempts kept; the bytes lie below KEEPFLOW_HOME/artifacts under their digest. Owner: artifacts.py
artifacts = Table(
    "artifacts",
    metadata,
    _id(),
    Column("attempt_id", Id, ForeignKey("attempts.id"), nullable=False),
    Column("path", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("executable", Boolean, nullable=False),
    _at("created_at", nullable=False),
    _at("expires_at"),  # NULL = as long as its run's log
    _at("removed_at"),  # the bytes were let go of
    Index("ix_artifacts_attempt", "attempt_id"),
    Index("ix_artifacts_digest", "sha256"),
    Index("ix_artifacts_expiry", "expires_at"),
)

# Owner: releases.py
releases = Table(
    "releases",
    metadata,
    _id(),
    Column("project_id", Id, ForeignKey("projects.id"), nullable=False),
    Column("run_id", Id, ForeignKey("runs.id"), nullable=False),
    Column("origin", String(60), nullable=False),  # registry | local:<agent>
    Column("image_id", String(80), nullable=False),
    Column("repository", String(255), nullable=False),
    Column("digest", String(80)),
    Column("reference", Text, nullable=False),
    Column("sha", String(64), nullable=False),
    Column("container", JSON, nullable=False),  # core.deploys.to_json of the default description
    _at("created_at", nullable=False),
    UniqueConstraint("run_id", "origin", "image_id", "repository"),
    Index("ix_releases_digest", "digest"),
    Index("ix_releases_project", "project_id", "id"),
)

# Signed statements about a digest: how it was built or tested; never changed, never deleted. Owner: receipts.py
receipts = Table(
    "receipts",
    metadata,
    _id(),
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
    _at("at", nullable=False),
    Index("ix_receipts_digest", "project_id", "digest", "id"),
)

# Owner: environments.py
environments = Table(
    "environments",
    metadata,
    _id(),
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
    _at("locked_at"),
    Column("managed", Boolean, nullable=False, default=False),
    Column("removed_at", BigInteger),
    _at("created_at", nullable=False),
    UniqueConstraint("project_id", "name"),
)

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
    _at("requested_at", nullable=False),
    _at("accepted_at"),
    _at("finished_at"),
    Index("ix_deployments_environment", "environment_id", "requested_at"),
    Index("ix_deployments_release", "release_id"),
    Index("ix_deployments_job", "job_id"),
    Index("ix_deployments_phase", "phase"),
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
    _id(),
    Column("environment_id", Id, ForeignKey("environments.id"), nullable=False),
    Column("identity", String(80), nullable=False),
    Column("deployment_id", String(40), ForeignKey("deployments.id"), nullable=False),
    Column("code", String(40), nullable=False),
    Column("sentence", Text, nullable=False),
    _at("at", nullable=False),
    Column("lifted_by", String(200)),
    Column("lifted_why", Text, nullable=False, default=""),
    _at("lifted_at"),
    Index("ix_quarantines_environment", "environment_id", "identity"),
)

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
    _at("at", nullable=False),
    _at("removed_at"),
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
    _at("at", nullable=False),
    _at("removed_at"),
)

# What testers said of a deployment; never deleted, the newest of a person counts. Owner: marks.py
marks = Table(
    "marks",
    metadata,
    _id(),
    Column("environment_id", Id, ForeignKey("environments.id"), nullable=False),
    Column("deployment_id", String(40), ForeignKey("deployments.id"), nullable=False),
    Column("identity", String(80), nullable=False),
    Column("person", String(60), nullable=False),
    Column("verdict", String(10), nullable=False),  # tested | rejected
    Column("note", Text, nullable=False, default=""),
    _at("at", nullable=False),
    Index("ix_marks_identity", "environment_id", "identity", "id"),
)

# Tested releases that wait, or waited, for a person; at most one open per environment. Owner: gates.py
gates = Table(
    "gates",
    metadata,
    _id(),
    Column("environment_id", Id, ForeignKey("environments.id"), nullable=False),
    Column("release_id", Id, ForeignKey("releases.id"), nullable=False),
    Column("identity", String(80), nullable=False),
    Column("run", Integer, nullable=False),  # number of the run that built the release
    Column("state", String(12), nullable=False),  # core.gates.GateState
    Column("reason_code", String(40), nullable=False, default=""),
    Column("reason", Text, nullable=False, default=""),
    _at("opened_at", nullable=False),
    _at("lapses_at", nullable=False),
    _at("closed_at"),
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
    _id(),
    Column("project_id", Id, ForeignKey("projects.id"), nullable=False),
    Column("environment_id", Id, ForeignKey("environments.id"), nullable=False),
    Column("deployment_id", String(40), ForeignKey("deployments.id"), nullable=False, unique=True),
    Column("actor", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("overridden", JSON, nullable=False),  # [{"code", "sentence"}] of the rules that were not kept
    Column("acknowledged_by", String(200)),
    _at("acknowledged_at"),
    _at("at", nullable=False),
    Index(
        "ix_break_glass_open",
        "project_id",
        sqlite_where=text("acknowledged_at IS NULL"),
        postgresql_where=text("acknowledged_at IS NULL"),
    ),
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
    _at("requested_at", nullable=False),
    _at("finished_at"),
    Index("ix_preparations_release", "environment_id", "identity"),
    Index("ix_preparations_host", "host", "phase"),
)

# Owner: agents.py
agents = Table(
    "agents",
    metadata,
    _id(),
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
    _at("last_seen_at"),
    _at("created_at", nullable=False),
)

# Owner: agents.py
join_tokens = Table(
    "join_tokens",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("agent", String(40), nullable=False),
    Column("created_by", String(200), nullable=False),
    _at("created_at", nullable=False),
    _at("expires_at", nullable=False),
    _at("used_at"),
)

# New order keys, each vouched for by the one before; never deleted. Owner: rotations.py
key_rotations = Table(
    "key_rotations",
    metadata,
    _id(),
    Column("old_key", String(80), nullable=False, unique=True),
    Column("new_key", String(80), nullable=False, unique=True),
    Column("envelope", JSON, nullable=False),
    Column("made_by", String(200), nullable=False),
    _at("at", nullable=False),
)

# What an agent must be told; a row stays until the agent has it on disk. Owner: outgoing.py
outgoing = Table(
    "outgoing",
    metadata,
    _id(),
    Column("agent_id", Id, ForeignKey("agents.id"), nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("body", JSON, nullable=False),  # wire.messages.Body
    _at("created_at", nullable=False),
    _at("received_at"),
    Index("ix_outgoing_waiting", "agent_id", "received_at", "id"),
    Index("ix_outgoing_fence", "fence"),
)

# Append-only: audit log, feed of live pages, outbox of notifications. Hash-chained. Owner: events.py
events = Table(
    "events",
    metadata,
    _id(),
    _at("at", nullable=False),
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
    _id(),
    Column("event_id", Id, ForeignKey("events.id"), nullable=False),
    Column("channel", String(40), nullable=False),
    Column("recipient", String(320), nullable=False),
    Column("delivery", String(80), nullable=False, unique=True),  # the same on every try
    Column("content", JSON, nullable=False),  # core.notices.Notice, frozen
    Column("project_id", Id),
    Column("state", String(10), nullable=False),  # waiting | sent | failed
    Column("tries", Integer, nullable=False, default=0),
    Column("error", Text, nullable=False, default=""),
    _at("made_at", nullable=False),
    _at("next_at"),  # when it is tried again; NULL = never
    _at("ended_at"),
    UniqueConstraint("event_id", "channel", "recipient"),
    Index(
        "ix_notices_due", "next_at", sqlite_where=text("state = 'waiting'"), postgresql_where=text("state = 'waiting'")
    ),
    Index("ix_notices_channel", "channel", "id"),
)

# --- people ----------------------------------------------------------------------------------------------------------

# Owner: people.py
users = Table(
    "users",
    metadata,
    _id(),
    Column("name", String(60), nullable=False, unique=True),
    Column("email", String(200), nullable=False, default=""),
    Column("password_hash", Text),
    Column("admin", Boolean, nullable=False, default=False),
    Column("disabled_at", BigInteger),
    _at("created_at", nullable=False),
)

groups = Table(
    "groups",
    metadata,
    _id(),
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
    _id(),
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
    _at("created_at", nullable=False),
    _at("used_at", nullable=False),
    Index("ix_sessions_user", "user_id"),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    _id(),
    Column("hash", String(64), nullable=False, unique=True),
    Column("user_id", Id, ForeignKey("users.id"), nullable=False),
    Column("name", String(60), nullable=False),
    Column("scopes", JSON, nullable=False, default=list),
    _at("created_at", nullable=False),
    _at("expires_at"),
    _at("used_at"),
    _at("revoked_at"),
)

# One-time links: first admin, password reset. Owner: people.py
links = Table(
    "links",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("purpose", String(20), nullable=False),  # setup
    Column("user_id", Id, ForeignKey("users.id")),
    _at("created_at", nullable=False),
    _at("expires_at", nullable=False),
    _at("used_at"),
)
