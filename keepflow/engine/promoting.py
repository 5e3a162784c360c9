"""Promotes: which releases may go to an environment, what would change, and the press of the button itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from keepflow.core import canary as canary_rules
from keepflow.core import deploys, promoting
from keepflow.core.deploys import Change
from keepflow.core.direction import Ancestry, Direction, Point, direction
from keepflow.core.events import Event, EventKind
from keepflow.core.flows import JobKind, Plan, PlannedJob, Strategy
from keepflow.core.names import is_name
from keepflow.core.promoting import Guard
from keepflow.core.releases import is_digest
from keepflow.engine import breakglass, carried, deploying, dispatch, gates, guarding
from keepflow.engine import runs as engine_runs
from keepflow.engine.context import Master
from keepflow.engine.guarding import Presser
from keepflow.errors import NotFound, Refused, UsageError
from keepflow.store import deployments, environments, jobs, projects, releases, runs
from keepflow.store.deployments import Deployment
from keepflow.store.environments import Environment
from keepflow.store.projects import Project
from keepflow.store.releases import StoredRelease
from keepflow.store.runs import Run
from keepflow.store.writer import Tx
from keepflow.tools.git import Commit

#: Name of the flow that carries out promotes; no flow file can define it.
FLOW = "promote"
COMMITS_SHOWN = 100
_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Said:
    """What somebody says with the press: a note, the word rollback, a reason to break the glass, and what they saw."""

    note: str = ""
    rollback: bool = False
    break_glass: str | None = None
    serving: str | None = None  #: identity that served when they looked; None = not said
    key: str | None = None  #: makes a repeated press the same press: 8 to 40 letters, digits or dashes
    canary: tuple[int, ...] = ()  #: percents of visitors that get it first
    hold: int = 0  #: seconds for each of these steps


@dataclass(frozen=True, slots=True)
class Seen:
    """How a release lies to what served when somebody looked; git is asked before the transaction, not in it."""

    serving: str | None  #: commit
    release: str  #: commit
    ancestry: Ancestry


@dataclass(frozen=True, slots=True)
class Preview:
    """What a promote would do: every guard, the commits that would go live or away, and the settings that change."""

    project: Project
    environment: Environment
    stored: StoredRelease
    run: Run
    current: Deployment | None
    serving: StoredRelease | None
    guards: tuple[Guard, ...]
    commits: list[Commit]
    leaving: list[Commit]
    changes: list[Change]
    stop_first: bool
    direction: Direction

    @property
    def allowed(self) -> bool:
        """Whether every guard is met."""
        return not promoting.unmet(self.guards)

    @property
    def breakable(self) -> bool:
        """Whether something stands in the way and all of it may be overridden by breaking the glass."""
        return promoting.may_break(self.guards)


def look(master: Master, project: str, to: str, source: str) -> Seen:
    """Ask git how a release lies to what serves; not for the writer thread.

    `source` is a run number or a digest. Raises NotFound for a project, environment or release that is not there.
    """
    with master.database.read() as conn:
        found = _project(conn, project)
        environment = _environment(conn, found, to)
        stored = find_release(conn, found, source)
        serving = _serving(conn, environment)
    return _seen(master, found, serving, stored)


def preview(
    master: Master, project: str, to: str, source: str, presser: Presser, now: int, *, rollback: bool = False
) -> Preview:
    """Say what a promote would do, without doing it.

    `source` is a run number or a digest; `rollback`: the word would be said. Raises NotFound for a project, environment
    or release that is not there.
    """
    with master.database.read() as conn:
        found = _project(conn, project)
        environment = _environment(conn, found, to)
        stored = find_release(conn, found, source)
        current = deployments.newest_current(conn, environment.hosts)
        serving = releases.by_id(conn, current.release_id) if current else None
        way = _direction(conn, environment, stored, _seen(master, found, serving, stored))
        guards = guarding.guards(conn, master, found, environment, stored, presser, way, now, rollback=rollback)
        run = runs.by_id(conn, stored.run_id)
    description = deploys.resolve(stored.container, environment.overrides)
    before = deploys.from_json(current.description) if current else None
    base = serving.sha if serving else None
    return Preview(
        found,
        environment,
        stored,
        run,
        current,
        serving,
        guards,
        master.mirrors.commits(found, base, stored.sha, COMMITS_SHOWN),
        master.mirrors.commits(found, stored.sha, base, COMMITS_SHOWN) if base else [],
        deploys.changes(before, description),
        description.strategy.value == "stop-first",
        way,
    )


def promote(
    tx: Tx, master: Master, *, project: str, to: str, source: str, presser: Presser, said: Said, seen: Seen, now: int
) -> str:
    """Start the promote of a release and return its deployment id; `seen` is of `look`, a moment ago.

    Raises NotFound, UsageError, or Refused with the code of the first guard that is not met, or `moved` when something
    else serves than when somebody looked.
    """
    found = _project(tx.conn, project)
    environment = _environment(tx.conn, found, to)
    stored = find_release(tx.conn, found, source)
    if said.key is not None:
        known = _known(tx.conn, said.key, environment, stored)
        if known is not None:
            return known
    _still_so(tx.conn, environment, stored, said, seen)
    way = _direction(tx.conn, environment, stored, seen)
    overridden = promoting.admit(
        guarding.guards(tx.conn, master, found, environment, stored, presser, way, now, rollback=said.rollback),
        said.break_glass,
    )
    steps = _canary(environment, stored, said)
    back = way is Direction.BACK
    run_id = _run(tx, master, found, environment, stored, presser, back=back, now=now)
    each = dict.fromkeys(environment.agents, deploying.Wanted(stored))
    group = jobs.of_run(tx.conn, run_id)
    kind = "rollback" if back else "promote"
    deployment = deploying.add(
        tx,
        environment,
        group,
        each,
        kind=kind,
        by=presser.name,
        now=now,
        note=said.note,
        key=said.key,
        canary=steps,
    )
    if overridden:
        breakglass.record(
            tx, environment, deployment, overridden, by=presser.name, reason=said.break_glass or "", now=now
        )
    gates.promoted(tx, environment, stored.release.identity, presser.name, now)
    dispatch.advance(tx, master, run_id, now)
    return deployment


def _canary(environment: Environment, stored: StoredRelease, said: Said) -> dict[str, Any] | None:
    if not said.canary:
        return None
    if problem := canary_rules.problem(said.canary, said.hold):
        raise UsageError(problem, code="bad-canary")
    if deploys.resolve(stored.container, environment.overrides).strategy == Strategy.STOP_FIRST:
        raise UsageError(
            "this application stops before its successor starts (stop-first), so there can be no canary",
            code="bad-canary",
        )
    return {"steps": list(said.canary), "hold": said.hold}


def find_release(conn: Connection, project: Project, source: str) -> StoredRelease:
    """Return the release a person means by a run number (`12`, `#12`, `keepwork#12`) or a digest."""
    if is_digest(source):
        stored = releases.by_digest(conn, project.id, source)
        if stored is None:
            raise NotFound(f"{project.name} has no pushed release with digest {source}")
        return stored
    number = source.removeprefix(project.name).removeprefix("#")
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise UsageError(f"{source[:80]!r} is neither a run number nor a digest (sha256:…)")
    run = runs.by_number(conn, project.id, int(number))
    if run is None:
        raise NotFound(f"there is no run {project.name}#{number}")
    found = carried.releases_of(conn, run)
    if not found:
        raise NotFound(f"run {project.name}#{number} made no release (state {run.state})")
    return next((stored for stored in found if stored.release.promotable), found[0])


def _project(conn: Connection, name: str) -> Project:
    project = projects.by_name(conn, name) if is_name(name) else None
    if project is None:
        raise NotFound(f"there is no project {name[:80]!r}")
    return project


def _environment(conn: Connection, project: Project, name: str) -> Environment:
    environment = environments.by_name(conn, project.id, name)
    if environment is None:
        names = ", ".join(found.name for found in environments.of_project(conn, project.id)) or "none"
        raise NotFound(f"{project.name} has no environment {name[:80]!r}; there are: {names}")
    return environment


def _serving(conn: Connection, environment: Environment) -> StoredRelease | None:
    current = deployments.newest_current(conn, environment.hosts)
    return releases.by_id(conn, current.release_id) if current else None


def _seen(master: Master, project: Project, serving: StoredRelease | None, release: StoredRelease) -> Seen:
    if serving is None or serving.sha == release.sha:
        return Seen(serving.sha if serving else None, release.sha, Ancestry(False, False))
    older = master.mirrors.is_ancestor(project, release.sha, serving.sha)
    newer = master.mirrors.is_ancestor(project, serving.sha, release.sha)
    return Seen(serving.sha, release.sha, Ancestry(in_serving=older, has_serving=newer))


def _direction(conn: Connection, environment: Environment, release: StoredRelease, seen: Seen) -> Direction:
    serving = _serving(conn, environment)
    return direction(_point(conn, serving) if serving else None, _point(conn, release), seen.ancestry)


def _point(conn: Connection, release: StoredRelease) -> Point:
    return Point(release.sha, runs.by_id(conn, release.run_id).number)


def _still_so(conn: Connection, environment: Environment, release: StoredRelease, said: Said, seen: Seen) -> None:
    """Refuse a press that was meant for another moment: what serves, or what would, is not what was looked at."""
    serving = _serving(conn, environment)
    moved = seen.serving != (serving.sha if serving else None) or seen.release != release.sha
    if moved or (said.serving is not None and said.serving != (serving.release.identity if serving else "")):
        raise Refused(f"what {environment.name} serves has changed since you looked; look again", code="moved")


def _known(conn: Connection, key: str, environment: Environment, stored: StoredRelease) -> str | None:
    if not (8 <= len(key) <= 40 and key.isascii() and key.replace("-", "").isalnum()):
        raise UsageError("an idempotency key is 8 to 40 letters, digits or dashes")
    known = deployments.by_id(conn, key)
    if known is None:
        return None
    if known.environment_id != environment.id or known.release_id != stored.id:
        raise Refused("this idempotency key was used for another promote; press again", code="key-reused")
    return known.id


def _run(
    tx: Tx,
    master: Master,
    project: Project,
    environment: Environment,
    stored: StoredRelease,
    presser: Presser,
    *,
    back: bool,
    now: int,
) -> int:
    built = runs.by_id(tx.conn, stored.run_id)
    event = Event(kind=EventKind.MANUAL, ref=built.ref, sha=built.sha, message=built.message, actor=presser.name)
    job = PlannedJob(key=f"deploy-{environment.name}", kind=JobKind.DEPLOY, target=environment.name)
    name = f"{project.name}#{built.number}"
    why = (
        f"{presser.name} rolled {environment.name} back to {name}"
        if back
        else f"{presser.name} promoted {name} to {environment.name}"
    )
    plan = Plan(flow=FLOW, jobs=(job,), concurrency=dispatch.PARALLEL)
    return engine_runs.add(tx, master, project, event, plan, trust=built.trust, why=why, now=now)
