"""The names scripts see whose values only the planner of a run knows; the agent adds its own and Jenkins' spellings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keepflow.core import graphs
from keepflow.core.events import Event
from keepflow.core.flows import JobKind, PlannedJob, When
from keepflow.core.states import State


def names_of_run(
    event: Event, *, url: str, registry: str, image: str, environment: str, matrix: Mapping[str, str]
) -> dict[str, str]:
    """Return what a run tells its scripts; texts that came from a push reach them here and nowhere else."""
    return {
        "KEEPFLOW_RUN_URL": url,
        "KEEPFLOW_EVENT": event.kind.value,
        "KEEPFLOW_MESSAGE": event.message,
        "KEEPFLOW_ACTOR": event.actor,
        "KEEPFLOW_REGISTRY": registry,
        "KEEPFLOW_IMAGE": image,
        "KEEPFLOW_ENVIRONMENT": environment,
        "KEEPFLOW_PULL_REQUEST": str(event.number or ""),
        "KEEPFLOW_TARGET_BRANCH": event.target_branch,
        "KEEPFLOW_HEAD_SHA": event.tip,
        **{f"KEEPFLOW_MATRIX_{name.upper()}": value for name, value in matrix.items()},
        **{f"KEEPFLOW_INPUT_{name.upper().replace('-', '_')}": value for name, value in event.inputs.items()},
    }


def given_to(job: PlannedJob, jobs: Sequence[PlannedJob], told: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the variables that the jobs before this one `told`, by job; of one name the last in the plan counts."""
    before = graphs.before(job, jobs)
    outputs = (told.get(one.key, {}) for one in jobs if one.key in before)
    return {name: value for output in outputs for name, value in output.items()}


def failed_before(job: PlannedJob, jobs: Sequence[PlannedJob], states: Mapping[str, State]) -> str:
    """Return the names of the jobs before this one that failed or were lost, for a handler of failures."""
    if job.when == When.SUCCESS:
        return ""
    before, bad = graphs.before(job, jobs), (State.FAILED, State.LOST)
    return " ".join(one.key for one in jobs if one.key in before and states.get(one.key) in bad)


def environment_after(jobs: Sequence[PlannedJob], key: str) -> str:
    """Return the environment that the work of a job goes to: the first deploy that comes after it, "" for none."""
    deploys = (job for job in jobs if job.kind == JobKind.DEPLOY)
    return next((job.target for job in deploys if key in graphs.before(job, jobs)), "")
