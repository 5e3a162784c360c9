"""What an agent is told about a script job: the code, the commands, the names scripts see, and what it is lent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from keepflow.core import sharing
from keepflow.core.events import Trust
from keepflow.core.flows import JOB_TIMEOUT, PlannedJob, When
from keepflow.core.planning import job_from_json, wiring_from_json
from keepflow.core.script_names import environment_after, failed_before, given_to, names_of_run
from keepflow.core.states import State
from keepflow.engine import artifacts, job_secrets, lending, spanning
from keepflow.engine.context import Master
from keepflow.engine.lending import Lent
from keepflow.store import jobs, releases, workspaces
from keepflow.store.agents import Agent
from keepflow.store.jobs import Attempt, Job
from keepflow.store.projects import Project
from keepflow.store.releases import StoredRelease
from keepflow.store.runs import Run
from keepflow.wire.messages import Away, Checkout, RunJob, Shared, StepOrder

PROTECTED: Trust = "protected"  #: trust of a run whose branch reaches some environment
OTHER: Trust = "other"
FORK: Trust = "fork"  #: trust of a run of somebody else's repository: begins only when a person has approved it


@dataclass(frozen=True, slots=True)
class Given:
    """Who is given a job: the agent, the one its run is at home on (`assigning`), and the token lent to it."""

    agent: Agent
    home: int
    token: str = field(repr=False)


class Orders:
    """Makes orders in one transaction. What several jobs of a run or a project have in common is worked out once."""

    def __init__(self, conn: Connection, master: Master) -> None:
        self._conn, self._master = conn, master
        self._lent: dict[int, Lent] = {}
        self._plans: dict[int, _Plan] = {}
        self._jobs: dict[int, list[Job]] = {}
        self._built: dict[tuple[int, str], str] = {}

    def order(self, project: Project, run: Run, job: Job, attempt: Attempt, given: Given) -> RunJob:
        """Return the whole order of one attempt; it holds secrets and is sealed where it is stored.

        No secret is told only to be masked: the agent masks what it is lent, and the master's own log masks all it
        knows.
        """
        planned, plan = job_from_json(job.spec), self._plan(run)
        trusted, lent = run.trust == PROTECTED, self._lent_to(project)
        return RunJob(
            fence=attempt.fence,
            project=project.name,
            run=run.number,
            flow=run.flow,
            job=job.key,
            attempt=attempt.n,
            sha=run.sha,
            ref=run.ref,
            trust=run.trust,
            code_path=f"/git/{project.name}",
            token=given.token,
            env={"KEEPFLOW_FAILED_JOBS": self._failed_before(run, planned, plan)}
            | names_of_run(
                run.event,
                url=f"{self._master.url().rstrip('/')}/projects/{project.name}/runs/{run.number}",
                registry=next(iter(lent.addresses), ""),
                image=run.plan["image"] or "",
                environment=environment_after(plan.jobs, job.key),
                matrix=planned.matrix,
            ),
            steps=tuple(map(StepOrder.of, planned.steps)),
            artifacts=len(artifacts.handed_on(self._conn, attempt)) if planned.needs else 0,
            secrets=job_secrets.lent(self._conn, self._master, project, run, job, attempt),
            logins=lent.logins if trusted else (),
            images=project.images,
            timeout=planned.timeout or run.plan["timeout"] or JOB_TIMEOUT,
            given=self._given(run, planned, plan),
            where=planned.where,
            checkout=Checkout(**run.plan["checkout"]),
            shared=self._shared(run, planned, plan, given),
            built=self._last_built(run, given.agent.name),
        )

    def _plan(self, run: Run) -> _Plan:
        if run.id not in self._plans:
            self._plans[run.id] = _plan_of(run.plan)
        return self._plans[run.id]

    def _lent_to(self, project: Project) -> Lent:
        if project.id not in self._lent:
            self._lent[project.id] = lending.of_job(self._conn, self._master.vault, project)
        return self._lent[project.id]

    def _jobs_of(self, run: Run) -> list[Job]:
        if run.id not in self._jobs:
            self._jobs[run.id] = jobs.of_run(self._conn, run.id)
        return self._jobs[run.id]

    def _last_built(self, run: Run, agent: str) -> str:
        """Return the release of a run that was made last and that an agent can have, "" for none."""
        key = run.id, agent
        if key not in self._built:
            made = (_reference(one, agent) for one in releases.of_run(self._conn, run.id))
            self._built[key] = next(filter(None, made), "")
        return self._built[key]

    def _failed_before(self, run: Run, planned: PlannedJob, plan: _Plan) -> str:
        if planned.when == When.SUCCESS:
            return ""
        return failed_before(planned, plan.jobs, {job.key: job.state for job in self._jobs_of(run)})

    def _given(self, run: Run, planned: PlannedJob, plan: _Plan) -> dict[str, str]:
        if not planned.needs:
            return {}
        return given_to(planned, plan.jobs, {job.key: job.outputs for job in self._jobs_of(run)})

    def _shared(self, run: Run, planned: PlannedJob, plan: _Plan, given: Given) -> Shared | None:
        """Return what a job shares with others of its run; of the jobs it goes on with, only those left files that ran.

        Nobody who is handed out together with it is among them: those are only about to run.
        """
        bases, followers = plan.bases[planned.key], plan.followers[planned.key]
        if not bases and not followers:
            return None
        of_run = {job.key: job for job in self._jobs_of(run)}
        away = workspaces.of_run(self._conn, run.id) if bases else {}

        def left_files(key: str) -> bool:
            """Say whether it ran; one that failed may never have begun, or not have come to hand its files on."""
            state, began = of_run[key].state, of_run[key].started_at is not None
            here = began and (key in away or given.agent.id in jobs.agents_of(self._conn, run.id, [key]))
            return state == State.SUCCEEDED or (state == State.FAILED and here)

        went_on = list(filter(left_files, bases))
        several = max(plan.followers.values()) > 1 or max(map(len, plan.bases.values())) > 1
        return Shared(
            bases=tuple(went_on),
            followers=followers,
            tracked=several or any(job.retry is not None and plan.bases.get(job.key) for job in plan.jobs),
            lenient=planned.when != When.SUCCESS,
            again=planned.retry is not None,
            hands_on=bool(followers) and spanning.hands_on(given.agent, given.home, planned.key, plan.bases, of_run),
            away={key: Away(fence=away[key].fence, commit=away[key].commit) for key in went_on if key in away},
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the jobs of a run hang together."""

    jobs: tuple[PlannedJob, ...]
    bases: Mapping[str, tuple[str, ...]]
    followers: Mapping[str, int]


#: Plans as they were read last, each with what follows from it. A long plan is read from the store as one and the same
#: object (`store.database`), so that of its many jobs only the first has this to be worked out.
_known: dict[int, tuple[dict[str, Any], _Plan]] = {}
_MOST_KNOWN = 32


def _plan_of(plan: dict[str, Any]) -> _Plan:
    known = _known.get(id(plan))
    if known is not None and known[0] is plan:
        return known[1]
    jobs = wiring_from_json(plan)
    made = _Plan(jobs, sharing.bases(jobs), sharing.followers(jobs))
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[id(plan)] = (plan, made)
    return made


def _reference(made: StoredRelease, agent: str) -> str:
    """Return how an agent names a release, "" for one that it cannot have."""
    if made.release.promotable:
        return f"{made.release.repository}@{made.release.digest}"
    return made.release.image_id if made.release.origin == f"local:{agent}" else ""
