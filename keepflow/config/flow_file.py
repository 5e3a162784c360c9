"""The flow file `.keepflow.yml`: read at the built commit, turned into core objects, every mistake at its line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from keepflow.config import flow_models as models
from keepflow.config.flow_given import given_by, where_problems
from keepflow.config.flow_jobs import JobRead, graph_of, matrix_problems, read_jobs
from keepflow.config.flow_rules import rule_problems
from keepflow.config.flow_steps import Kinds, read_parts
from keepflow.config.validation import check, finish, shown
from keepflow.config.yaml_loader import Document, Path, load
from keepflow.core import graphs
from keepflow.core.flows import JOBS_LIMIT, Flow, FlowFile, JobPart
from keepflow.errors import Problem


def load_flow(text: str | bytes, kinds: Kinds, file: str = ".keepflow.yml") -> FlowFile:
    """Read a flow file. Raises ConfigError with every problem at once."""
    document = load(text, file)
    work = {name: _read_work(name, flow, kinds, document) for name, flow in _flows(document)}
    problems = [problem for read in work.values() for problem in read.problems]
    model, model_problems = check(models.File, document.value, document)
    problems += model_problems
    if model is not None:
        problems += rule_problems(model, {name: read.parts for name, read in work.items()}, document)
        problems += [found for name in model.flows for found in _graph_problems(name, model, work, document)]
    finish(document, problems)
    if model is None:
        raise AssertionError("a refused file has problems")
    return _to_core(model, work, document)


@dataclass(slots=True)
class _Work:
    """What was read below `steps` and `jobs` of one flow."""

    parts: tuple[JobPart, ...] = ()
    jobs: dict[str, JobRead] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def _flows(document: Document) -> list[tuple[str, dict[str, Any]]]:
    """Return the flows, as far as the file has its shape."""
    flows = document.value.get("flows") if isinstance(document.value, dict) else None
    return (
        [(name, flow) for name, flow in (flows or {}).items() if isinstance(flow, dict)]
        if isinstance(flows, dict)
        else []
    )


def _read_work(name: str, flow: dict[str, Any], kinds: Kinds, document: Document) -> _Work:
    path: Path = ("flows", name)
    parts, problems = read_parts(flow.get("steps"), kinds, document, (*path, "steps"), given_by(flow))
    jobs, job_problems = read_jobs(flow, kinds, document, (*path, "jobs"))
    problems += [*job_problems, *where_problems(flow, document, path)]
    return _Work(parts, jobs, [*_choice_problems(flow, path, document), *problems])


def _choice_problems(flow: dict[str, Any], path: Path, document: Document) -> Iterator[Problem]:
    """Return what is wrong when a flow does not say its work in exactly one way."""
    if "steps" in flow and "jobs" in flow:
        sentence = f"{shown(path)}: has 'steps' (one line of work) or 'jobs' (a graph), not both"
        yield document.problem((*path, "jobs"), "conflict", sentence, key=True)
    elif "steps" not in flow and "jobs" not in flow:
        yield document.problem(path, "missing", f"{shown(path)}: 'steps' is missing (or 'jobs', for a graph)")
    if "stages" in flow and "jobs" not in flow:
        sentence = f"{shown(path)}: 'stages' are of jobs, and there are no 'jobs'"
        yield document.problem((*path, "stages"), "conflict", sentence, key=True)


def _graph_problems(name: str, model: models.File, work: Mapping[str, _Work], document: Document) -> Iterator[Problem]:
    """Return what is wrong between the jobs of a flow whose every job is well formed."""
    jobs, flow = work[name].jobs, model.flows[name]
    if len(flow.jobs) > JOBS_LIMIT:
        place: Path = ("flows", name, "jobs")
        sentence = f"{shown(place)}: {len(flow.jobs)} jobs, allowed are {JOBS_LIMIT}"
        yield document.problem(place, "too-many", sentence, key=True)
    elif not work[name].problems:
        yield from matrix_problems(flow, document, ("flows", name, "jobs"))
        yield from _faults(name, flow, jobs, document)


def _faults(name: str, flow: models.Flow, jobs: Mapping[str, JobRead], document: Document) -> Iterator[Problem]:
    for fault in graphs.faults(graph_of(flow, jobs), flow.stages):
        path: Path = ("flows", name, "jobs", fault.job, *fault.at)
        yield document.problem(path, fault.code, f"{shown(path)}: {fault.sentence}", key=not fault.at)


def _to_core(model: models.File, work: Mapping[str, _Work], document: Document) -> FlowFile:
    flows = {
        name: Flow(
            name=name,
            on=flow.on.to_core(),
            parts=work[name].parts,
            jobs=graph_of(flow, work[name].jobs),
            stages=flow.stages,
            concurrency=flow.concurrency.mode,
            group=flow.concurrency.group or "",
            priority=flow.priority.value,
            timeout=flow.timeout or 0.0,
            labels=flow.labels,
            checkout=flow.checkout.to_core(),
            retry=flow.retry.to_core() if flow.retry else None,
            inputs={key: given.model_dump(mode="json") for key, given in flow.inputs.items()},
            line=document.mark(("flows", name), key=True)[0],
            where=flow.where.plain(),
        )
        for name, flow in model.flows.items()
    }
    container = model.container.to_core() if model.container else None
    return FlowFile(flows=flows, image=model.image, container=container, version=model.version)
