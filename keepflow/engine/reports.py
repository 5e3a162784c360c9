"""What agents report, written down once: each report by its number, each attempt by its fence."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from keepflow.engine import (
    deploying,
    deployment_reports,
    dispatch,
    hosts,
    job_reports,
    preparing,
    rolling_back,
)
from keepflow.engine.context import Master
from keepflow.store import agents, jobs
from keepflow.store.writer import Tx
from keepflow.wire import messages


def take(tx: Tx, master: Master, agent_id: int, batch: Sequence[messages.Report], now: int) -> None:
    """Write down reports of an agent in their order: all of them, or none when this raises.

    One that was taken before changes nothing, and may be acknowledged again.
    """
    taken = agents.count_reports(tx.conn, agent_id, max(report.number for report in batch))
    fresh: list[messages.ReportBody] = []
    for report in batch:
        if report.number > taken:
            taken = report.number
            fresh.append(report.body)
    for of_jobs, bodies in itertools.groupby(fresh, key=lambda body: isinstance(body, job_reports.Body)):
        if of_jobs:
            job_reports.take(tx, master, agent_id, [one for one in bodies if isinstance(one, job_reports.Body)], now)
            continue
        for body in bodies:
            _of_host(tx, master, agent_id, body, now)


def _of_host(tx: Tx, master: Master, agent_id: int, body: messages.ReportBody, now: int) -> None:
    if isinstance(body, messages.HostRollback):
        rolling_back.told_by_host(tx, master, agent_id, body, now)
        return
    if not isinstance(body, messages.DeployAnswer | messages.DeployPhase | messages.DeployFinished):
        return
    if preparing.report(tx, master, agent_id, body, now):
        return
    deployment_reports.report(tx, master, agent_id, body, now)
    if isinstance(body, messages.DeployFinished):
        preparing.after(tx, master, body.deployment, now)
    attempt = jobs.attempt_by_fence(tx.conn, body.fence)
    if attempt is not None and not isinstance(body, messages.DeployPhase):
        job = jobs.by_id(tx.conn, attempt.job_id)
        hosts.follow(tx, master, job, now)
        dispatch.advance(tx, master, job.run_id, now)
        deploying.offer_waiting(tx, master, now)
