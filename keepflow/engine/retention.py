"""Logs and artifacts are let go of by rule. Runs, releases, receipts and deployments themselves are never deleted."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from sqlalchemy import Connection

from keepflow.core.retention import Rule, let_go
from keepflow.engine import artifacts as files
from keepflow.engine.context import Master
from keepflow.store import artifacts, events, projects, retention, settings
from keepflow.store.writer import Tx

RETENTION = "retention"
_AT_ONCE = 200  #: runs in one transaction


def rule(conn: Connection) -> Rule:
    """Return the rule of this master; without one everything is kept."""
    return Rule(**(settings.get(conn, RETENTION) or {}))


def put_rule(conn: Connection, wanted: Rule) -> None:
    """Set the rule."""
    settings.put(conn, RETENTION, asdict(wanted))


def sweep(master: Master, now: int) -> int:
    """Let go of what the rule gives up and return of how many runs."""
    count = 0
    with master.database.read() as conn:
        wanted, known = rule(conn), projects.every(conn)
    for project in known if wanted.runs or wanted.days else []:
        with master.database.read() as conn:
            cited = retention.deployed(conn, project.id)
            over = [run.id for run in let_go(wanted, retention.ended(conn, project.id), cited, now)]
        for start in range(0, len(over), _AT_ONCE):
            count += _let_go(master, project.id, over[start : start + _AT_ONCE], now)
    return count


def _let_go(master: Master, project_id: int, run_ids: Sequence[int], now: int) -> int:
    with master.database.read() as conn:
        if not retention.logs_of(conn, run_ids) and not retention.artifacts_of(conn, run_ids):
            return 0  # as most of them were the last time
    paths, digests = master.writer.call(partial(_forget, project_id=project_id, run_ids=run_ids, now=now))
    master.logs.remove(paths)
    files.remove_bytes(master, digests)
    return len(run_ids)


def _forget(tx: Tx, project_id: int, run_ids: Sequence[int], now: int) -> tuple[list[str], set[str]]:
    """Take logs and artifacts out of the rows first: a crash leaves a file too many, never a row without its file."""
    logs, kept = retention.logs_of(tx.conn, run_ids), retention.artifacts_of(tx.conn, run_ids)
    retention.forget_logs(tx.conn, [number for number, _ in logs])
    artifacts.let_go(tx.conn, [number for number, _ in kept], now)
    data = {"runs": len(run_ids), "logs": len(logs), "artifacts": len(kept)}
    events.add(tx, now, "let-go", project_id=project_id, data=data)
    return [path for _, path in logs], {digest for _, digest in kept}


def storage(master: Master) -> dict[str, Any]:
    """Return where the disk of the master goes: bytes of logs, artifacts and workspaces, and what is free."""
    sizes = {
        name: sum(path.stat().st_size for path in (master.home / name).rglob("*") if path.is_file())
        for name in ("logs", "artifacts", "workspaces")
    }
    usage = shutil.disk_usage(master.home)
    return {**sizes, "free": usage.free, "total": usage.total}
