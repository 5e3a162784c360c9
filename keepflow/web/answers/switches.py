"""The receipts of one run over all of its hosts, and their sums."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.core.tally import tally
from keepflow.store import deployments, environments
from keepflow.store.projects import Project
from keepflow.store.runs import Run
from keepflow.wire import api


def receipt(conn: Connection, project: Project, run: Run) -> api.RunReceipt:
    """Return what every host of a run proved, in the order in which they were switched, and all of it together."""
    found = deployments.of_run(conn, run.id)
    total = tally(one.receipt for one in found if one.receipt)
    return api.RunReceipt(
        project=project.name,
        run=run.number,
        state=run.state,
        hosts=[
            api.HostReceipt(
                host=one.host,
                environment=environments.by_id(conn, one.environment_id).name,
                deployment=one.id,
                kind=one.kind,
                phase=one.phase,
                code=one.reason_code,
                reason=one.reason,
                identity=one.identity,
                receipt=one.receipt,
            )
            for one in found
        ],
        sent=total.sent,
        failed=total.failed,
        p99_ms=total.p99_ms,
        maintenance=total.maintenance,
    )
