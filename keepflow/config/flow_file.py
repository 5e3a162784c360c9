"""The flow file `.keepflow.yml`: read at the built commit, turned into core objects, every mistake at its line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from keepflow.config import flow_models as models
from keepflow.config.flow_rules import rule_problems
from keepflow.config.validation import check, finish, kind_of, shown
from keepflow.config.yaml_loader import Document, Path, load
from keepflow.core.flows import JOB_KEYS, Flow, FlowFile, JobKind, JobPart, Step
from keepflow.core.names import is_name
from keepflow.core.text import did_you_mean, quoted
from keepflow.errors import Problem
from keepflow.ports import StepKind

Kinds = Mapping[str, Any]  #: step kinds by their YAML key; each a module that fits `ports.StepKind`

_LATER = {JobKind.APPROVE.value: "gates inside a flow", JobKind.NOTIFY.value: "notifications"}
_step_name: TypeAdapter[str] = TypeAdapter(models.StepName)


def load_flow(text: str | bytes, kinds: Kinds, file: str = ".keepflow.yml") -> FlowFile:
    """Read a flow file. Raises ConfigError with every problem at once."""
    document = load(text, file)
    value, problems = _without_graphs(document)
    parts, part_problems = _all_parts(value, kinds, document)
    model, model_problems = check(models.File, value, document)
    problems += part_problems + model_problems
    if model is not None:
        problems += rule_problems(model, parts, document)
    finish(document, problems)
    if model is None:
        raise AssertionError("a refused file has problems")
    return _to_core(model, parts, document)


def _to_core(model: models.File, parts: dict[str, tuple[JobPart, ...]], document: Document) -> FlowFile:
    flows = {
        name: Flow(
            name=name,
            on=flow.on.to_core(),
            parts=parts[name],
            concurrency=flow.concurrency,
            inputs={key: given.model_dump(mode="json") for key, given in flow.inputs.items()},
            line=document.mark(("flows", name), key=True)[0],
        )
        for name, flow in model.flows.items()
    }
    container = model.container.to_core() if model.container else None
    return FlowFile(flows=flows, image=model.image, container=container, version=model.version)


def _without_graphs(document: Document) -> tuple[Any, list[Problem]]:
    """Take `jobs:` out of every flow, each with a problem, so that the rest of the file is still checked."""
    value = document.value
    if not isinstance(value, dict) or not isinstance(value.get("flows"), dict):
        return value, []
    problems, flows = [], dict(value["flows"])
    for name, flow in flows.items():
        if isinstance(flow, dict) and "jobs" in flow:
            path = ("flows", name, "jobs")
            sentence = f"{shown(path)}: graphs are not supported by this version; write one line of work under 'steps'"
            problems.append(document.problem(path, "not-supported", sentence, key=True))
            placeholder = {} if "steps" in flow else {"steps": [None]}
            flows[name] = {key: given for key, given in flow.items() if key != "jobs"} | placeholder
    return {**value, "flows": flows}, problems


def _all_parts(value: Any, kinds: Kinds, document: Document) -> tuple[dict[str, tuple[JobPart, ...]], list[Problem]]:
    """Read the steps of every flow, as far as the file has its shape."""
    flows = value.get("flows") if isinstance(value, dict) else None
    parts: dict[str, tuple[JobPart, ...]] = {}
    problems: list[Problem] = []
    for name, flow in flows.items() if isinstance(flows, dict) else ():
        steps = flow.get("steps") if isinstance(flow, dict) else None
        read: list[JobPart] = []
        for index, entry in enumerate(steps if isinstance(steps, list) else ()):
            path: Path = ("flows", name, "steps", index)
            if path in document.values:
                part, found = _part(entry, kinds, document, path)
                problems += found
                read += [part] if part else []
        parts[name] = tuple(read)
    return parts, problems


def _part(entry: Any, kinds: Kinds, document: Document, path: Path) -> tuple[JobPart | None, list[Problem]]:
    """Read one entry under `steps`: exactly one kind, and perhaps a name."""
    if not isinstance(entry, dict):
        hint = f"; write '- run: {quoted(entry, 30)[1:-1]}'" if isinstance(entry, str) else ""
        return None, [
            document.problem(path, "wrong-type", f"{shown(path)} must be a mapping, not {kind_of(entry)}{hint}")
        ]
    known = [*kinds, *JOB_KEYS]
    problems = [_unknown_key(key, [*known, "name"], document, path) for key in entry if key not in (*known, "name")]
    found = [key for key in entry if key in known]
    if len(found) > 1:
        sentence = f"{shown(path)}: {' and '.join(found)} are two steps"
        return None, [*problems, document.problem((*path, found[1]), "conflict", sentence, key=True)]
    if not found:
        choice = ", ".join(sorted({*kinds, JobKind.DEPLOY.value}))
        missing = document.problem(path, "missing", f"{shown(path)}: says nothing to do; write one of {choice}")
        return None, problems or [missing]
    reader = _job_part if found[0] in JOB_KEYS else _step_part
    part, more = reader(found[0], entry, kinds, document, path)
    return (None if problems else part), problems + more


def _unknown_key(key: str, known: list[str], document: Document, path: Path) -> Problem:
    sentence = f"{shown(path)}: unknown key {quoted(key)}{did_you_mean(key, known)}"
    return document.problem((*path, key), "unknown-key", sentence, key=True)


def _job_part(
    kind: str, entry: dict[str, Any], _kinds: Kinds, document: Document, path: Path
) -> tuple[JobPart | None, list[Problem]]:
    place = (*path, kind)
    if kind in _LATER:
        sentence = f"{shown(place)}: {_LATER[kind]} are not supported by this version"
        return None, [document.problem(place, "not-supported", sentence, key=True)]
    target = entry[kind]
    if not isinstance(target, str) or not is_name(target):
        sentence = f"{shown(place)} must be the name of an environment, like 'dev'"
        return None, [document.problem(place, "bad-name", sentence)]
    if "name" in entry:
        sentence = f"{shown(path)}: a deploy is called by its environment and has no name of its own"
        return None, [document.problem((*path, "name"), "unknown-key", sentence, key=True)]
    return JobPart(JobKind.DEPLOY, target=target, line=document.mark(path)[0]), []


def _step_part(
    kind: str, entry: dict[str, Any], kinds: Kinds, document: Document, path: Path
) -> tuple[JobPart | None, list[Problem]]:
    module: StepKind = kinds[kind]
    value, place, skip = entry[kind], (*path, kind), 0
    if not isinstance(value, dict):
        value, skip = module.shorthand(value), 1
    spec, problems = check(module.Spec, value, document, place, skip=skip)
    name, name_problems = _name(entry, document, path)
    if spec is None or name_problems:
        return None, problems + name_problems
    line = document.mark(path)[0]
    settings = spec.model_dump(mode="json", exclude_defaults=True)
    return JobPart(JobKind.SCRIPT, Step(kind, name or module.title(spec), settings, line), line=line), []


def _name(entry: dict[str, Any], document: Document, path: Path) -> tuple[str, list[Problem]]:
    if "name" not in entry:
        return "", []
    try:
        return _step_name.validate_python(entry["name"]), []
    except ValidationError:
        place = (*path, "name")
        return "", [document.problem(place, "bad-name", f"{shown(place)} must be one line of text")]
