"""Rules between the parts of a flow file: choices that must be made, and things that could never happen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from keepflow.config import flow_models as models
from keepflow.config.validation import shown
from keepflow.config.yaml_loader import Document, Path
from keepflow.core.flows import JobKind, JobPart
from keepflow.core.inputs import problem_of
from keepflow.core.text import quoted, words
from keepflow.errors import Problem

Parts = Mapping[str, tuple[JobPart, ...]]


def rule_problems(model: models.File, parts: Parts, document: Document) -> list[Problem]:
    """Return what is wrong with a file whose every part is well formed."""
    problems = [*_container_problems(model, document), *_flow_problems(model, parts, document)]
    return [*problems, *_group_problems(model, document)]


def _container_problems(model: models.File, document: Document) -> Iterator[Problem]:
    container = model.container
    if container is None:
        return
    seen: dict[str, set[str]] = {"name": set(), "at": set()}
    for index, volume in enumerate(container.volumes):
        path: Path = ("container", "volumes", index)
        for key, value in (("name", volume.name), ("at", volume.at)):
            if value in seen[key]:
                sentence = f"{shown(path)}: another volume has the same {key}, {quoted(value)}"
                yield document.problem((*path, key), "duplicate-volume", sentence)
            seen[key].add(value)
        if not volume.shared and container.strategy is None:
            sentence = (
                f"{shown(path)}: may the old and the new container write {quoted(volume.name)} at once? Choose "
                "'strategy: stop-first' (visitors see the maintenance page), 'strategy: overlap', or 'shared: true'"
            )
            yield document.problem(path, "needs-choice", sentence)
        elif not volume.shared and container.release_command:
            sentence = (
                f"{shown(path)}: the release command runs while the old release serves, so both may write "
                f"{quoted(volume.name)} at once; write 'shared: true' when that is safe, or do without release_command"
            )
            yield document.problem(path, "release-command-volume", sentence)
    for index, secret in enumerate(container.secrets):
        if secret.name in container.env or secret.name in [one.name for one in container.secrets[:index]]:
            where = "env" if secret.name in container.env else "secrets"
            sentence = f"container.secrets[{index}]: {quoted(secret.name)} is already named under {where}"
            yield document.problem(("container", "secrets", index), "conflict", sentence)


def _flow_problems(model: models.File, parts: Parts, document: Document) -> Iterator[Problem]:
    for name, flow in model.flows.items():
        path: Path = ("flows", name)
        yield from _trigger_problems(flow.on, (*path, "on"), document)
        yield from _input_problems(flow, path, document)
        for index, stage in enumerate(flow.stages):
            if stage in flow.stages[:index]:
                place = (*path, "stages", index)
                yield document.problem(place, "conflict", f"{shown(place)}: {quoted(stage)} is named twice")
        yield from _limit_problems(flow, parts[name], path, document)
        first = parts[name][0] if parts[name] else None
        if first is not None and first.kind == JobKind.DEPLOY:
            place = (*path, "steps", 0)
            sentence = f"{shown(place)}: nothing is built before this deploy, so there is nothing to deploy"
            yield document.problem(place, "unreachable", sentence)


def _group_problems(model: models.File, document: Document) -> Iterator[Problem]:
    modes: dict[str, tuple[str, str]] = {}
    for name, flow in model.flows.items():
        group, mode = flow.concurrency.group, flow.concurrency.mode
        if group is None:
            continue
        first, first_mode = modes.setdefault(group, (name, mode))
        if mode != first_mode:
            path: Path = ("flows", name, "concurrency")
            sentence = f"{shown(path)}: group {quoted(group)} is '{first_mode}' in flow {first}; one group has one mode"
            yield document.problem(path, "conflict", sentence, key=True)


def _limit_problems(flow: models.Flow, parts: tuple[JobPart, ...], path: Path, document: Document) -> Iterator[Problem]:
    limits: dict[Path, float] = {("steps", at): part.step.timeout for at, part in enumerate(parts) if part.step}
    limits |= {("jobs", name): job.timeout or 0.0 for name, job in flow.jobs.items()}
    for at, limit in limits.items():
        if flow.timeout and limit > flow.timeout:
            place = (*path, *at, "timeout")
            longest = words(flow.timeout)
            sentence = f"{shown(place)}: the whole flow may take {longest} only, so this limit is never reached"
            yield document.problem(place, "unreachable", sentence)


def _input_problems(flow: models.Flow, path: Path, document: Document) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for key, given in flow.inputs.items():
        place: Path = (*path, "inputs", key)
        twin = seen.setdefault(key.upper(), key)
        if twin != key:
            sentence = (
                f"{shown(place)}: scripts cannot tell it from {quoted(twin)}: both are KEEPFLOW_INPUT_{key.upper()}"
            )
            yield document.problem(place, "conflict", sentence, key=True)
        if given.required and given.default:
            sentence = f"{shown(place)}: what has a default need not be given; leave out 'required' or the default"
            yield document.problem((*place, "required"), "conflict", sentence)
        elif given.default and (problem := problem_of(given.model_dump(), given.default)):
            yield document.problem((*place, "default"), "bad-value", f"{shown((*place, 'default'))} {problem}")
        if given.type != "text" and given.choices:
            sentence = f"{shown(place)}: choices are texts; leave out 'type: {given.type}' or the choices"
            yield document.problem((*place, "type"), "conflict", sentence)


def _trigger_problems(on: models.On, path: Path, document: Document) -> Iterator[Problem]:
    trigger = on.to_core()
    if not (trigger.push or trigger.tag or trigger.pull_request or trigger.manual or trigger.cron):
        sentence = f"{shown(path)}: nothing starts this flow; write 'manual' when people start it"
        yield document.problem(path, "unreachable", sentence)
    filters = (("paths", trigger.paths), ("paths_ignore", trigger.paths_ignore))
    for key, patterns in filters:
        if patterns and not (trigger.push or trigger.pull_request):
            place = (*path, key)
            sentence = f"{shown(place)}: only pushes and pull requests are asked which files they change"
            yield document.problem(place, "unreachable", sentence, key=True)
    for key, patterns in (("push", trigger.push), ("tag", trigger.tag), *filters):
        if patterns and all(pattern.startswith("!") for pattern in patterns):
            place = (*path, key)
            sentence = f"{shown(place)}: patterns with '!' take away; write first what they take away from, like '**'"
            yield document.problem(place, "unreachable", sentence)
