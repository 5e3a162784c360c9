"""The first start after a restore: what this master believes to be under way is old news, and is ended or asked for."""

from __future__ import annotations

import time

from keepflow.core.states import Reason, State
from keepflow.engine import runs as engine_runs
from keepflow.engine.context import Master
from keepflow.store import deliveries, events, outgoing, projects, runs, settings
from keepflow.store.restoring import RESTORED
from keepflow.store.writer import Tx


def settle(tx: Tx, master: Master, now: int) -> None:
    """End every run and decide every delivery of before, once; a deployment that was sent is asked for at its agent.

    The sweep finds what was pushed since, and builds the newest of each branch.
    """
    mark = settings.get(tx.conn, RESTORED)
    if mark is None:
        return
    settings.drop(tx.conn, RESTORED)
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(mark["made_at"] // 1_000_000))
    sentence = f"the master was put back to its backup of {made}, and nobody knows what became of this"
    reason = Reason("restored", sentence)
    outgoing.forget_waiting(tx.conn, now)
    for project in projects.every(tx.conn):
        decision = {"sentence": reason.sentence, "runs": [], "not": {}}
        deliveries.decide_unhandled(tx.conn, project.id, decision, now)
    for run in runs.every_live(tx.conn):
        engine_runs.stop(tx, master, run, State.CANCELLED, reason, now)
    events.add(tx, now, "restored", data=mark)
