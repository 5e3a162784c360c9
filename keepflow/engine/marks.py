"""Marks: a tester says that what serves in an environment is tested, or rejects it."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.core.marks import Mark, Verdict
from keepflow.core.states import Phase
from keepflow.core.text import one_line
from keepflow.engine import evidence, gates, preparing
from keepflow.engine.context import Master
from keepflow.errors import Denied, NotFound, Refused, UsageError
from keepflow.store import deployments, environments, events, marks, releases
from keepflow.store.deployments import Deployment
from keepflow.store.environments import Environment
from keepflow.store.writer import Tx

NOTE_LIMIT = 2000


def mark(
    tx: Tx,
    master: Master,
    environment: Environment,
    *,
    verdict: Verdict,
    person: str,
    groups: frozenset[str],
    note: str,
    deployment: str | None,
    release_id: int | None,
    now: int,
) -> Mark:
    """Write down what a tester says of a deployment, and open or close the gates that wait for it.

    `deployment` names it; without, it is the newest done one of `release_id`, else what serves. `person` has the role;
    `groups` are theirs. Raises Denied `not-a-tester`, NotFound, UsageError; Refused `nothing-to-mark`, `not-served`.
    """
    targets = environments.promoted_from(tx.conn, environment)
    if not targets:
        raise Refused(
            f"no environment promotes from {environment.name}, so nobody waits for a mark", code="nothing-to-mark"
        )
    problem = not_a_tester(targets, person, groups)
    if problem is not None:
        raise Denied(problem, code="not-a-tester")
    if verdict is Verdict.REJECTED and not note.strip():
        raise UsageError("a rejection needs a note that says why", code="needs-note")
    found = _deployment(tx.conn, environment, deployment, release_id)
    made = Mark(person, verdict, found.id, found.identity, note.strip()[:NOTE_LIMIT], now)
    marks.add(tx.conn, environment.id, made)
    events.add_about(
        tx,
        now,
        "marked",
        environment,
        actor=person,
        deployment=found.id,
        data={"verdict": verdict.value, "identity": found.identity, "note": made.note},
    )
    passed = verdict is Verdict.TESTED
    evidence.add_test_result(tx, master, found, passed=passed, person=person, note=made.note, now=now)
    if passed:
        stored = releases.by_id(tx.conn, found.release_id)
        gates.offer(tx, environment, stored, now)
        preparing.stage_onwards(tx, master, environment, stored, now, by_person=True)
    else:
        why = f"rejected by {person} in {environment.name}: {one_line(made.note, 300)}"
        gates.rejected(tx, environment, found.identity, why, now)
    tx.after_commit(lambda: master.wakes.fire("events"))
    return made


def not_a_tester(targets: list[Environment], person: str, groups: frozenset[str]) -> str | None:
    """Say why somebody's marks would not count for any of these environments; None when they do."""
    if not targets or any(not target.verified_by or groups & set(target.verified_by) for target in targets):
        return None
    asked = sorted({group for target in targets for group in target.verified_by})
    return f"only members of {', '.join(asked)} may mark here, and {person} is in none of them"


def _deployment(conn: Connection, environment: Environment, named: str | None, release_id: int | None) -> Deployment:
    if named is not None:
        found = deployments.by_id(conn, named)
        if found is None or found.environment_id != environment.id:
            raise NotFound(f"{environment.name} has no deployment {one_line(named, 40)}", code="no-deployment")
    elif release_id is not None:
        found = deployments.newest_done(conn, environment.id, releases.by_id(conn, release_id).release.identity)
        if found is None:
            raise Refused(f"that release was never served in {environment.name}", code="not-served")
    else:
        found = deployments.newest_current(conn, environment.hosts)
        if found is None:
            raise Refused(f"nothing was ever deployed to {environment.name}", code="not-served")
    if found.phase is not Phase.DONE:
        raise Refused(f"that deployment to {environment.name} is {found.phase}, not done", code="not-served")
    return found
