"""From a flow to jobs: what a run will do, in what order; `core.matching` says which flows an event starts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from keepflow.core import deploys, graphs, retrying
from keepflow.core.flows import Checkout, Flow, FlowFile, JobKind, Plan, PlannedJob, Step
from keepflow.core.job_secrets import SecretUse
from keepflow.core.matrix import Matrix, combinations

_LONGEST = 90  #: characters of the key of one job of a matrix
_UNFIT = re.compile(r"[^a-z0-9]+")


def plan(flow: Flow, flow_file: FlowFile) -> Plan:
    """Turn a flow into jobs, each after all that it needs."""
    jobs = _of_graph(flow) if flow.jobs else _in_line(flow)
    jobs = tuple(
        replace(job, retry=flow.retry) if job.kind == JobKind.SCRIPT and job.retry is None else job for job in jobs
    )
    return Plan(
        flow.name,
        jobs,
        flow.concurrency,
        flow_file.image,
        flow_file.container,
        flow.timeout,
        flow.group,
        flow.priority,
        flow.checkout,
    )


def _of_graph(flow: Flow) -> tuple[PlannedJob, ...]:
    """Return the jobs of `jobs:`, each after all it needs."""
    matrices = {one.job.key: one.matrix for one in flow.jobs}
    return _expand(graphs.wire(flow.jobs, flow.stages), matrices)


def _expand(jobs: Sequence[PlannedJob], matrices: Mapping[str, Matrix | None]) -> tuple[PlannedJob, ...]:
    """Make every job that has a matrix one job per combination; what needed it needs all of them."""
    became: dict[str, tuple[str, ...]] = {}
    taken = {job.key for job in jobs}
    made: list[PlannedJob] = []
    for job in jobs:
        needs = tuple(key for need in job.needs for key in became.get(need, (need,)))
        matrix = matrices.get(job.key)
        found = [replace(job, needs=needs)]
        if matrix is not None:
            found = []
            for one in combinations(matrix):
                key = _fresh_key(_matrix_key(job.key, one), taken)
                taken.add(key)
                found.append(replace(job, key=key, needs=needs, matrix=dict(one)))
        became[job.key] = tuple(one.key for one in found)
        made += found
    return tuple(made)


def _matrix_key(job: str, combination: Mapping[str, str]) -> str:
    words = [_UNFIT.sub("-", value.lower()).strip("-") for value in combination.values()]
    return "-".join([job, *filter(None, words)])[:_LONGEST].rstrip("-")


def _in_line(flow: Flow) -> tuple[PlannedJob, ...]:
    """Return the jobs of `steps:`, one after the other: neighbouring steps are one job, all else is one of its own."""
    jobs: list[PlannedJob] = []
    steps: list[Step] = []

    def close_steps() -> None:
        if steps:
            jobs.append(
                PlannedJob(
                    _fresh_key("steps", {job.key for job in jobs}),
                    JobKind.SCRIPT,
                    _needs(jobs),
                    tuple(steps),
                    where=flow.where,
                    labels=flow.labels,
                )
            )
            steps.clear()

    for part in flow.parts:
        if part.step is not None:
            steps.append(part.step)
            continue
        close_steps()
        key = f"deploy-{part.target}" if part.kind == JobKind.DEPLOY else part.kind.value
        planned = PlannedJob(_fresh_key(key, {job.key for job in jobs}), part.kind, _needs(jobs), target=part.target)
        jobs.append(replace(planned, per_branch=part.per_branch))
    close_steps()
    return tuple(jobs)


@dataclass(frozen=True, slots=True)
class Hosts:
    """Where the deploys to one environment go: its agents in order, and how many of them at once."""

    agents: tuple[str, ...]
    at_once: int = 1


def spread(plan: Plan, places: Mapping[str, Hosts]) -> Plan:
    """Make every deploy one job per host of its environment, in batches: one starts after the one before succeeded.

    What needed the deploy needs all of its hosts. A deploy that names its host stays as it is; one to an environment
    that is not in `places` stays one job without a host.
    """
    became: dict[str, tuple[str, ...]] = {}
    jobs: list[PlannedJob] = []
    for job in plan.jobs:
        needs = tuple(key for need in job.needs for key in became.get(need, (need,)))
        hosts = places.get(job.target) if job.kind == JobKind.DEPLOY and not job.host else None
        made = _per_host(replace(job, needs=needs), hosts) if hosts else [replace(job, needs=needs)]
        became[job.key] = tuple(one.key for one in made)
        jobs += made
    return replace(plan, jobs=tuple(jobs))


def _per_host(job: PlannedJob, hosts: Hosts) -> list[PlannedJob]:
    made: list[PlannedJob] = []
    first = replace(job, group=job.key)
    for start in range(0, len(hosts.agents), hosts.at_once):
        before = tuple(one.key for one in made[-hosts.at_once :])
        like = replace(first, needs=before, when="success") if before else first
        for agent in hosts.agents[start : start + hosts.at_once]:
            key = job.key if len(hosts.agents) == 1 else f"{job.key}-{agent}"
            made.append(replace(like, key=key, host=agent))
    return made


def _needs(jobs: list[PlannedJob]) -> tuple[str, ...]:
    return (jobs[-1].key,) if jobs else ()


def _fresh_key(wanted: str, taken: Collection[str]) -> str:
    numbered = (f"{wanted}-{number}" for number in itertools.count(2))
    return next(key for key in itertools.chain([wanted], numbered) if key not in taken)


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain data for the store."""
    return {**asdict(plan), "container": deploys.to_json(plan.container) if plan.container else None}


def plan_from_json(data: dict[str, Any]) -> Plan:
    """Read a plan back, equal to what was stored; raises KeyError, TypeError or ValueError when it is none."""
    return Plan(
        flow=data["flow"],
        jobs=tuple(job_from_json(job) for job in data["jobs"]),
        concurrency=data["concurrency"],
        image=data["image"],
        container=deploys.from_json(data["container"]) if data["container"] else None,
        timeout=data["timeout"],
        group=data["group"],
        priority=data["priority"],
        checkout=Checkout(**data["checkout"]),
    )


def wiring_from_json(data: dict[str, Any]) -> tuple[PlannedJob, ...]:
    """Read how the jobs of a stored plan hang together, without what they do: the quick way for plans of many jobs."""
    return tuple(
        PlannedJob(
            job["key"],
            JobKind(job["kind"]),
            tuple(job["needs"]),
            target=job["target"],
            retry=retrying.from_json(job["retry"]),
        )
        for job in data["jobs"]
    )


def job_from_json(data: dict[str, Any]) -> PlannedJob:
    """Read one job of a plan back."""
    plain = {
        "kind": JobKind(data["kind"]),
        "needs": tuple(data["needs"]),
        "labels": tuple(data["labels"]),
        "retry": retrying.from_json(data["retry"]),
        "steps": tuple(_step_from_json(step) for step in data["steps"]),
    }
    return PlannedJob(**{**data, **plain})


def _step_from_json(data: dict[str, Any]) -> Step:
    return Step(**{**data, "secrets": tuple(SecretUse(**use) for use in data["secrets"])})
