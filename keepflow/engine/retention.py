"""Logs and artifacts are let go of by rule, and so are old runs that nothing cites.

Releases, receipts, deployments, what they cite, and the events are never deleted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from keepflow.core import pruning
from keepflow.core.pruning import Item
from keepflow.core.retention import Rule, forgotten_before, let_go, stand
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


@dataclass(frozen=True, slots=True)
class Due:
    """A run whose logs and artifacts go by the rule; `bytes` is what they take."""

    project_id: int
    project: str
    number: int
    run_id: int
    bytes: int


def due(master: Master, now: int) -> list[Due]:
    """Return the runs of which something goes now, the oldest first; nothing is removed."""
    found, left = list[Due](), list[tuple[Due, Item]]()
    with master.database.read() as conn:
        wanted = rule(conn)
        for project in projects.every(conn) if any(asdict(wanted).values()) else ():
            ended, cited = retention.ended(conn, project.id), retention.deployed(conn, project.id)
            over = {run.id for run in let_go(wanted, ended, cited, now)}
            kept = stand(ended, cited)
            looked_at = [run for run in ended if wanted.budget or run.id in over]
            for start in range(0, len(looked_at), _AT_ONCE):
                runs = looked_at[start : start + _AT_ONCE]
                held = retention.held(conn, [run.id for run in runs])
                for run in runs:
                    if run.id in held:
                        size = sum(map(master.logs.size, held[run.id][0])) + held[run.id][1]
                        one = Due(project.id, project.name, run.number, run.id, size)
                        why = "kept" if run.id in kept else ""
                        if run.id in over:
                            found.append(one)
                        else:
                            left.append((one, Item("run", str(run.id), size, float(run.ended_at), why)))
    beyond = {item.name for item in over_budget(wanted, [item for _, item in left])}
    found += [one for one, _ in left if str(one.run_id) in beyond]
    return sorted(found, key=lambda one: one.run_id)


def over_budget(wanted: Rule, items: Sequence[Item]) -> list[Item]:
    """Return the runs that go because all of them together are more than the budget."""
    return pruning.over(pruning.Rule(budget=wanted.budget), items, 0.0)


def sweep(master: Master, now: int) -> int:
    """Let go of what the rule gives up and return of how many runs; then forget the runs that are old enough."""
    by_project: dict[int, list[int]] = {}
    for one in due(master, now):
        by_project.setdefault(one.project_id, []).append(one.run_id)
    count = 0
    for project_id, over in by_project.items():
        for start in range(0, len(over), _AT_ONCE):
            count += _let_go(master, project_id, over[start : start + _AT_ONCE], now)
    _forget_old(master, now)
    return count


def forgettable(conn: Connection, now: int) -> dict[int, list[int]]:
    """Return by project the runs that are old enough, of which nothing is kept and that nothing cites."""
    before = forgotten_before(rule(conn), now)
    found: dict[int, list[int]] = {}
    for project in projects.every(conn) if before is not None else ():
        every = retention.every_ended(conn, project.id)
        kept = stand(every, retention.deployed(conn, project.id)) | retention.for_good(conn, project.id)
        old = [run.id for run in every if before is not None and run.ended_at < before and run.id not in kept]
        for start in range(0, len(old), _AT_ONCE):
            some = old[start : start + _AT_ONCE]
            held = retention.held(conn, some).keys() | retention.handing_on(conn, some)
            found.setdefault(project.id, []).extend(run_id for run_id in some if run_id not in held)
    return {project_id: runs for project_id, runs in found.items() if runs}


def _forget_old(master: Master, now: int) -> None:
    """Delete old runs, and the deliveries that nothing came of; what was done is in the events, which stay."""
    with master.database.read() as conn:
        before, old = forgotten_before(rule(conn), now), forgettable(conn, now)
    for project_id, run_ids in old.items():
        for start in range(0, len(run_ids), _AT_ONCE):
            some = run_ids[start : start + _AT_ONCE]

            def forget(tx: Tx, some: Sequence[int] = some, project_id: int = project_id) -> None:
                retention.forget_runs(tx.conn, some)
                events.add(tx, now, "forgotten", project_id=project_id, data={"runs": len(some)})

            master.writer.call(forget)
    if before is not None:
        limit = before
        master.writer.call(lambda tx: retention.forget_deliveries(tx.conn, limit))


def _let_go(master: Master, project_id: int, run_ids: Sequence[int], now: int) -> int:
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
    sizes = {name: _bytes_below(master.home / name) for name in ("logs", "artifacts", "workspaces")}
    usage = shutil.disk_usage(master.home)
    return {**sizes, "free": usage.free, "total": usage.total}


def _bytes_below(root: Path) -> int:
    """Return the bytes of all files below a directory; what goes meanwhile is not counted."""
    size = 0
    for here, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += Path(here, name).lstat().st_size
    return size
