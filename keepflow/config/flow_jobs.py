"""The jobs of a graph: what each does, read and checked at its place; `core.graphs` knows how they hang together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keepflow.config import flow_models as models
from keepflow.config.flow_given import Given, given_by
from keepflow.config.flow_steps import Kinds, read_parts, read_target
from keepflow.config.validation import shown
from keepflow.config.where import KEYS, Where
from keepflow.config.yaml_loader import Document, Path
from keepflow.core.flows import JOB_KEYS, JOBS_LIMIT, GraphJob, JobKind, PlannedJob, Step
from keepflow.core.matrix import Matrix, combinations, fits
from keepflow.errors import Problem

_STEPS = "steps"
#: A deployment is never tried twice by itself, and its environment says where it goes.
_SCRIPTS_ONLY = frozenset({"timeout", "retry", "matrix", "labels", *KEYS})


@dataclass(frozen=True, slots=True)
class JobRead:
    """What one job does."""

    kind: JobKind
    steps: tuple[Step, ...] = ()
    target: str = ""
    per_branch: bool = False


def read_jobs(
    flow: Mapping[str, Any], kinds: Kinds, document: Document, path: Path
) -> tuple[dict[str, JobRead], list[Problem]]:
    """Read what the jobs of a flow do, as far as they have their shape; the rest is left to the model."""
    jobs = flow.get("jobs")
    found: dict[str, JobRead] = {}
    problems: list[Problem] = []
    for name, job in jobs.items() if isinstance(jobs, dict) else ():
        if isinstance(job, dict):
            read, more = _read_job(job, kinds, document, (*path, name), given_by(flow, job))
            problems += more
            if read is not None:
                found[name] = read
    return found, problems


def graph_of(flow: models.Flow, read: Mapping[str, JobRead]) -> tuple[GraphJob, ...]:
    """Return a flow's jobs as the planner takes them."""
    return tuple(_graph_job(name, job, read[name], flow) for name, job in flow.jobs.items())


def matrix_problems(flow: models.Flow, document: Document, path: Path) -> list[Problem]:
    """Return what is wrong with the matrices of a flow's jobs; `path` is that of the jobs."""
    found: list[Problem] = []
    room = JOBS_LIMIT - len(flow.jobs)
    matrices = {name: job.matrix.to_core() for name, job in flow.jobs.items() if job.matrix is not None}
    for name, matrix in matrices.items():
        place = (*path, name, "matrix")
        room -= matrix.most - 1
        if room < 0:
            sentence = f"{shown(place)}: these are {matrix.most} jobs, and a flow may have {JOBS_LIMIT} in all"
            return [*found, document.problem(place, "too-many", sentence, key=True)]
        if not combinations(matrix):
            found.append(document.problem(place, "empty", f"{shown(place)}: no combination is left", key=True))
        every = combinations(Matrix(matrix.axes))
        for index, excluded in enumerate(matrix.exclude):
            if not any(fits(one, excluded) for one in every):
                at = (*place, "exclude", index)
                found.append(document.problem(at, "unreachable", f"{shown(at)}: there is no such combination"))
    return found


def _graph_job(name: str, job: models.Job, read: JobRead, flow: models.Flow) -> GraphJob:
    own = Where(image=job.image or flow.image, services=job.services or flow.services)
    planned = PlannedJob(
        key=name,
        kind=read.kind,
        needs=job.needs,
        steps=read.steps,
        target=read.target,
        per_branch=read.per_branch,
        allow_failure=job.allow_failure,
        stage=job.stage or "",
        timeout=job.timeout or 0.0,
        retry=job.retry.to_core() if job.retry else None,
        labels=(job.labels or flow.labels) if read.kind == JobKind.SCRIPT else (),
        where=own.plain() if read.kind == JobKind.SCRIPT else {},
    )
    return GraphJob(planned, job.when, job.success, job.failure, job.matrix.to_core() if job.matrix else None)


def _read_job(
    job: dict[str, Any], kinds: Kinds, document: Document, path: Path, given: Given
) -> tuple[JobRead | None, list[Problem]]:
    found = [key for key in job if key == _STEPS or key in JOB_KEYS]
    if len(found) > 1:
        sentence = f"{shown(path)}: {' and '.join(found)} are two jobs; one needs the other"
        return None, [document.problem((*path, found[1]), "conflict", sentence, key=True)]
    if not found:
        sentence = f"{shown(path)}: says nothing to do; write 'steps', 'deploy', 'approve' or 'notify'"
        return None, [document.problem(path, "missing", sentence)]
    if found[0] != _STEPS:
        for key in _SCRIPTS_ONLY & job.keys():
            sentence = f"{shown(path)}: only a job with 'steps' has '{key}'; {found[0]} ends by its own rules"
            return None, [document.problem((*path, key), "conflict", sentence, key=True)]
        kind = JobKind(found[0])
        part, problems = read_target(kind, job[found[0]], document, (*path, found[0]))
        return JobRead(kind, target=part.target, per_branch=part.per_branch) if part else None, problems
    parts, problems = read_parts(job[_STEPS], kinds, document, (*path, _STEPS), given)
    problems += _no_steps(job[_STEPS], document, (*path, _STEPS))
    return JobRead(JobKind.SCRIPT, tuple(part.step for part in parts if part.step)), problems


def _no_steps(entries: Any, document: Document, path: Path) -> list[Problem]:
    """Return a problem for each entry that is a job of its own: in a graph it stands beside the others."""
    return [
        document.problem(
            (*path, index, key),
            "conflict",
            f"{shown((*path, index))}: in a graph, {key} is a job of its own; write it beside this one, with 'needs'",
            key=True,
        )
        for index, entry in enumerate(entries if isinstance(entries, list) else ())
        for key in (entry if isinstance(entry, dict) else ())
        if key in JOB_KEYS
    ]
