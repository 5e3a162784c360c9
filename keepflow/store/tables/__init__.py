"""Every table, one file per noun. Each table has one owning module of queries in the folder above.

Times are UTC microseconds (integers), made by the master. JSON columns hold plain data of `core` or `wire` types.
Rows of releases, receipts, deployments, approvals and the runs they cite are never deleted.
"""

from __future__ import annotations

from keepflow.store.tables.agent import agents, join_tokens, key_rotations, outgoing
from keepflow.store.tables.base import metadata
from keepflow.store.tables.deployment import deployments, preparations
from keepflow.store.tables.environment import break_glass, environments, gates, marks, placements, quarantines
from keepflow.store.tables.master import counters, events, notices, settings
from keepflow.store.tables.person import api_tokens, group_members, groups, links, roles, sessions, users
from keepflow.store.tables.project import deliveries, forge_hooks, heads, projects, schedules
from keepflow.store.tables.run import (
    artifacts,
    attempts,
    jobs,
    receipts,
    releases,
    runs,
    statuses,
    steps,
    workspace_files,
    workspaces,
)
from keepflow.store.tables.secret import environment_secrets, project_secrets

__all__ = [
    "agents",
    "api_tokens",
    "artifacts",
    "attempts",
    "break_glass",
    "counters",
    "deliveries",
    "deployments",
    "environment_secrets",
    "environments",
    "events",
    "forge_hooks",
    "gates",
    "group_members",
    "groups",
    "heads",
    "jobs",
    "join_tokens",
    "key_rotations",
    "links",
    "marks",
    "metadata",
    "notices",
    "outgoing",
    "placements",
    "preparations",
    "project_secrets",
    "projects",
    "quarantines",
    "receipts",
    "releases",
    "roles",
    "runs",
    "schedules",
    "sessions",
    "settings",
    "statuses",
    "steps",
    "users",
    "workspace_files",
    "workspaces",
]
