"""Inputs and axes of a matrix in `${NAME}`: a name that a job would not have is an error of the file, at its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from keepflow.config.fields import GIVEN
from keepflow.config.validation import check
from keepflow.config.where import KEYS, Where
from keepflow.config.yaml_loader import Document, Path
from keepflow.core.interpolation import INPUT, MATRIX
from keepflow.errors import Problem

Given = frozenset[str]  #: what the flow and the job give to `${NAME}`: inputs and axes, as variables


def given_by(flow: Mapping[str, Any], job: Mapping[str, Any] | None = None) -> Given:
    """Return what a job of a flow has by its inputs and by every combination of its matrix, as far as both are well
    formed; without a job what any flow of that kind has.
    """
    inputs = (f"{INPUT}{name.upper().replace('-', '_')}" for name in _names(flow.get("inputs")))
    matrix = job.get("matrix") if job else None
    return frozenset(inputs) | {f"{MATRIX}{name.upper()}" for name in _axes(matrix if isinstance(matrix, dict) else {})}


def where_problems(flow: Mapping[str, Any], document: Document, path: Path) -> list[Problem]:
    """Return what images and services of a flow and of its jobs name that no job there has."""
    own = {key: flow[key] for key in KEYS if key in flow}
    found = list(_unknown(own, document, path, given_by(flow))) if "jobs" not in flow else []
    jobs = flow.get("jobs")
    for name, job in jobs.items() if isinstance(jobs, dict) else ():
        if isinstance(job, dict) and "steps" in job:
            given = given_by(flow, job)
            said = {key: job[key] for key in KEYS if key in job}
            found += _unknown(said, document, (*path, "jobs", name), given)
            left = {key: value for key, value in own.items() if key not in said}
            found += _unknown(left, document, path, given)
    return list({(problem.line, problem.column): problem for problem in found}.values())


def _unknown(said: Mapping[str, Any], document: Document, path: Path, given: Given) -> Iterator[Problem]:
    if said and check(Where, said, document, path)[0] is not None:  # else the model says what is wrong with it
        yield from check(Where, said, document, path, context={GIVEN: given})[1]


def _axes(matrix: Mapping[str, Any]) -> Iterable[str]:
    include = matrix.get("include")
    alone = [frozenset(_names(one)) for one in include] if isinstance(include, list) else []
    every = [*([frozenset(_names(matrix["axes"]))] if matrix.get("axes") else []), *alone]
    return frozenset.intersection(*every) if every else ()


def _names(found: Any) -> list[str]:
    return [name for name in found if isinstance(name, str)] if isinstance(found, dict) else []
