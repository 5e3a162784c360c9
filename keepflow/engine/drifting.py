"""What a person does about drift: make what serves the expected release, or have what was deployed serve again."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.core import deploys
from keepflow.core.promoting import unmet
from keepflow.core.rollbacks import may_act
from keepflow.engine import deploying, dispatch, rolling_back
from keepflow.engine.context import Master
from keepflow.engine.guarding import Presser
from keepflow.engine.observing import differences
from keepflow.errors import Refused
from keepflow.store import deployments, environments, jobs, releases
from keepflow.store.environments import Environment
from keepflow.store.placements import Placement
from keepflow.store.writer import Tx

#: Names of the flows that carry these out; no flow file can define them.
ADOPT, RESTORE = "adopt", "restore"


def adopt(
    tx: Tx, master: Master, *, environment: Environment, presser: Presser, note: str, key: str | None, now: int
) -> str:
    """Make what serves on the drifting hosts the expected release and return the deployment's id; nothing is touched.

    Raises Refused when that is no release of this project, or no container of keepflow's own.
    """
    place = environments.by_id(tx.conn, environment.id)
    if (known := _known(tx.conn, key, place, ADOPT)) is not None:
        return known
    wanted = {host.host: _serving(tx.conn, place, host) for host in _drifting(tx.conn, place, presser)}
    return _press(tx, master, place, wanted, ADOPT, "adopted what serves in", presser, note, key, now)


def restore(
    tx: Tx, master: Master, *, environment: Environment, presser: Presser, note: str, key: str | None, now: int
) -> str:
    """Have what was deployed serve again on the drifting hosts and return the deployment's id."""
    place = environments.by_id(tx.conn, environment.id)
    if (known := _known(tx.conn, key, place, RESTORE)) is not None:
        return known
    wanted = {}
    for host in _drifting(tx.conn, place, presser):
        current = deployments.by_id(tx.conn, host.current_id or "")
        if current is not None:
            stored = releases.by_id(tx.conn, current.release_id)
            wanted[host.host] = deploying.Wanted(stored, deploys.from_json(current.description))
    return _press(tx, master, place, wanted, RESTORE, "restored", presser, note, key, now)


def _press(
    tx: Tx,
    master: Master,
    place: Environment,
    wanted: dict[str, deploying.Wanted],
    kind: str,
    did: str,
    presser: Presser,
    note: str,
    key: str | None,
    now: int,
) -> str:
    first = next(iter(wanted.values())).release
    run_id = rolling_back.add_run(tx, master, place, first, tuple(wanted), kind, presser.name, did, now)
    group = jobs.of_run(tx.conn, run_id)
    deployment = deploying.add(tx, place, group, wanted, kind=kind, by=presser.name, now=now, note=note, key=key)
    dispatch.advance(tx, master, run_id, now)
    return deployment


def _drifting(conn: Connection, place: Environment, presser: Presser) -> list[Placement]:
    """List the hosts that drift; raises Refused when there are none, or when this person may not act now."""
    facts = rolling_back.facts_of(conn, place, None, "", presser)
    missing = unmet(may_act(facts))
    if missing:
        raise Refused("; ".join(guard.sentence for guard in missing), code=missing[0].code)
    found = [host for host in place.hosts if differences(conn, host)]
    if not found:
        raise Refused(f"{place.name} serves what was deployed; there is no drift", code="no-drift")
    return found


def _serving(conn: Connection, place: Environment, host: Placement) -> deploying.Wanted:
    """Return what serves on a host as a release with the settings it was deployed with."""
    observed = host.observed or {}
    identity = observed.get("identity")
    if not observed.get("ours") or identity is None:
        raise Refused(
            f"what serves on {host.host} was not made by keepflow, so nobody knows how it was started; "
            "restore what was deployed, or deploy the release you want",
            code="not-ours",
        )
    done = deployments.done(conn, place.id, 100)
    found = next((one for one in done if one.identity == identity and one.host == host.host), None)
    if found is None:
        raise Refused(f"{identity[:19]} was never deployed to {host.host} by this master", code="never-served")
    return deploying.Wanted(releases.by_id(conn, found.release_id), deploys.from_json(found.description))


def _known(conn: Connection, key: str | None, place: Environment, kind: str) -> str | None:
    known = deployments.by_id(conn, key) if key else None
    if known is None:
        return None
    if known.environment_id != place.id or known.kind != kind:
        raise Refused("this idempotency key was used for something else; press again", code="key-reused")
    return known.id
