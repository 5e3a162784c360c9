"""The open gate of each environment: opened by a tested release; closed by a newer one, time, a tester, a promote."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.core import gates as rules
from keepflow.core import marks as testers
from keepflow.core.gates import Gate, GateState
from keepflow.core.states import Reason
from keepflow.errors import Refused
from keepflow.store import deployments, environments, events, gates, marks, people, projects, releases, runs
from keepflow.store.environments import Environment
from keepflow.store.gates import StoredGate
from keepflow.store.releases import StoredRelease
from keepflow.store.writer import Tx

_SECOND = 1_000_000


def offer(tx: Tx, source: Environment, release: StoredRelease, now: int) -> None:
    """Open the gate of every environment that takes what serves in `source`, where the release has passed the testers.

    Called when a deployment there is done and when a tester said `tested`.
    """
    if not release.release.promotable:
        return
    for environment in environments.promoted_from(tx.conn, source):
        if _passed(tx.conn, source, environment, release):
            _offer(tx, environment, release, now)


def open_anew(tx: Tx, environment: Environment, release: StoredRelease, by: str, now: int) -> None:
    """Open the gate for a release whose gate was superseded or lapsed, in place of the one that is open now.

    Raises Refused `gate-open` when it is open, and `not-passed` for what the testers do not let through.
    """
    standing, name = gates.open_one(tx.conn, environment.id), _name(tx.conn, release)
    source = environments.by_name(tx.conn, environment.project_id, environment.promote_from or "")
    if source is None or not _passed(tx.conn, source, environment, release):
        raise Refused(f"{name} has not passed the testers of {environment.name}", code="not-passed")
    if standing is not None and standing.identity == release.release.identity:
        raise Refused(f"{name} waits at the gate of {environment.name} already", code="gate-open")
    if standing is not None:
        _close(tx, standing, GateState.SUPERSEDED, Reason("superseded", f"superseded by {name}, opened by {by}"), now)
    _open(tx, environment, release, now, by=by)


def rejected(tx: Tx, source: Environment, identity: str, reason: str, now: int) -> None:
    """Close the gates at which a release waits that a tester has rejected."""
    for environment in environments.promoted_from(tx.conn, source):
        standing = gates.open_one(tx.conn, environment.id)
        if standing is not None and standing.identity == identity:
            _close(tx, standing, GateState.REJECTED, Reason("rejected", reason), now)


def promoted(tx: Tx, environment: Environment, identity: str, by: str, now: int) -> None:
    """Close the gate at which a release waited that somebody has promoted."""
    standing = gates.open_one(tx.conn, environment.id)
    if standing is not None and standing.identity == identity:
        _close(tx, standing, GateState.PROMOTED, Reason("promoted", f"promoted by {by}"), now)


def lapse(tx: Tx, now: int) -> None:
    """Close the gates whose time is over; time never makes a yes."""
    for standing in gates.every_open(tx.conn):
        if rules.lapsed(standing.gate, now):
            _close(tx, standing, GateState.LAPSED, Reason("lapsed", "nobody approved it in time"), now)


def closed(conn: Connection, environment: Environment, release: StoredRelease) -> str | None:
    """Say how the gate of a release was closed, when that keeps it from being promoted; None when nothing does."""
    found = gates.newest(conn, environment.id, release.release.identity)
    if found is None or found.gate.state not in (GateState.SUPERSEDED, GateState.LAPSED):
        return None
    name = _name(conn, release)
    how = found.reason if found.gate.state is GateState.SUPERSEDED else f"lapsed: {found.reason}"
    return f"{name} no longer waits at the gate of {environment.name} ({how}); open it anew to promote it"


def _passed(conn: Connection, source: Environment, environment: Environment, release: StoredRelease) -> bool:
    """Say whether a release served in the source, and nothing that testers said keeps it from waiting for a person."""
    identity, asked = release.release.identity, environment.verified_by
    if deployments.newest_done(conn, source.id, identity) is None:
        return False
    said = marks.of_identity(conn, source.id, identity)
    verified = not asked or bool(testers.verifiers(said, people.members(conn, asked)))
    return verified and not testers.rejections(said)


def _offer(tx: Tx, environment: Environment, release: StoredRelease, now: int) -> None:
    number, identity = runs.by_id(tx.conn, release.run_id).number, release.release.identity
    if _serving_run(tx.conn, environment) >= number:
        return  # what serves is newer, or the same
    standing = gates.open_one(tx.conn, environment.id)
    if standing is None:
        _open(tx, environment, release, now)
    elif standing.identity == identity:
        return
    elif rules.gives_way(standing.gate, number):
        reason = Reason("superseded", f"superseded by {_name(tx.conn, release)}")
        _close(tx, standing, GateState.SUPERSEDED, reason, now)
        _open(tx, environment, release, now)
    else:
        newer = releases.by_id(tx.conn, standing.release_id)
        reason = Reason("superseded", f"superseded by {_name(tx.conn, newer)}")
        gate = Gate(number, GateState.SUPERSEDED, now)
        gates.add(tx.conn, environment.id, release.id, identity, gate, reason, now)


def _serving_run(conn: Connection, environment: Environment) -> int:
    current = deployments.newest_current(conn, environment.hosts)
    if current is None:
        return 0
    return runs.by_id(conn, releases.by_id(conn, current.release_id).run_id).number


def _open(tx: Tx, environment: Environment, release: StoredRelease, now: int, by: str = "") -> None:
    number, identity = runs.by_id(tx.conn, release.run_id).number, release.release.identity
    gate = Gate(number, GateState.OPEN, now + int(environment.rules.lapse_after * _SECOND))
    groups = " or ".join(environment.approved_by) or "a release manager"
    reason = Reason("approval", f"waits for approval by {groups}")
    gates.add(tx.conn, environment.id, release.id, identity, gate, reason, now)
    data = {"run": number, "identity": identity}
    events.add_about(tx, now, "gate-opened", environment, actor=by, data=data)


def _close(tx: Tx, standing: StoredGate, state: GateState, reason: Reason, now: int) -> None:
    if not rules.may_close(standing.gate, state):
        raise ValueError(f"a gate that is {standing.gate.state} cannot become {state}")
    gates.close(tx.conn, standing.id, state, reason, now)
    environment = environments.by_id(tx.conn, standing.environment_id)
    data = {"run": standing.gate.run, "identity": standing.identity, "state": state.value, "reason": reason.sentence}
    events.add_about(tx, now, "gate-closed", environment, data=data)


def _name(conn: Connection, release: StoredRelease) -> str:
    project = projects.by_id(conn, release.project_id)
    return f"{project.name}#{runs.by_id(conn, release.run_id).number}"
