"""One entry of a list of work: a step of some kind, or a job of its own, read and checked at its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from keepflow.config import flow_models as models
from keepflow.config import where
from keepflow.config.fields import GIVEN
from keepflow.config.flow_given import Given
from keepflow.config.step_secrets import StepSecrets
from keepflow.config.validation import check, kind_of, shown
from keepflow.config.yaml_loader import Document, Path
from keepflow.core.flows import JOB_KEYS, JobKind, JobPart, Step
from keepflow.core.names import is_name
from keepflow.core.notices import is_address
from keepflow.core.text import did_you_mean, listed, quoted
from keepflow.errors import Problem
from keepflow.ports import StepKind, contained

Kinds = Mapping[str, Any]  #: step kinds by their YAML key; each a module that fits `ports.StepKind`

_QUESTION = 200  #: characters
#: What a step may say beside its kind, and what it is when it is wrong.
_BESIDE: dict[str, tuple[TypeAdapter[Any], str, str]] = {
    "name": (TypeAdapter(models.StepName), "bad-name", "must be one line of text"),
    "timeout": (TypeAdapter(models.StepTimeout), "bad-duration", "must be a time above 0, like 90s or 10m"),
    "idempotent": (TypeAdapter(models.StepIdempotent), "wrong-type", "must be true or false"),
}


def read_parts(
    entries: Any, kinds: Kinds, document: Document, path: Path, given: Given
) -> tuple[tuple[JobPart, ...], list[Problem]]:
    """Read a list of entries as far as it is one; what is no list is left to the model."""
    parts: list[JobPart] = []
    problems: list[Problem] = []
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if (*path, index) in document.values:
            part, found = read_part(entry, kinds, document, (*path, index), given)
            problems += found
            parts += [part] if part else []
    return tuple(parts), problems or _left_there(parts, document, path)


def _left_there(parts: list[JobPart], document: Document, path: Path) -> list[Problem]:
    """Return a problem for artifacts that can only have been made on another host, from where no file comes back."""
    found, places = [], set[str]()
    for index, part in enumerate(parts):
        if part.step is None:
            places.clear()  # a job of its own: what comes after it begins anew
        elif part.step.kind == "artifacts" and places and "" not in places:
            host = listed(sorted(places))
            sentence = (
                f"{shown((*path, index))}: its job makes files on {host} only, and none comes back from there (ssh)"
            )
            found.append(document.problem((*path, index, "artifacts"), "left-there", sentence, key=True))
        elif part.step.kind != "artifacts":
            places.add(str(part.step.where.get("ssh") or ""))
    return found


def read_part(
    entry: Any, kinds: Kinds, document: Document, path: Path, given: Given
) -> tuple[JobPart | None, list[Problem]]:
    """Read one entry under `steps`: exactly one kind, and perhaps a name; None when it has problems."""
    if not isinstance(entry, dict):
        hint = f"; write '- run: {quoted(entry, 30)[1:-1]}'" if isinstance(entry, str) else ""
        return None, [
            document.problem(path, "wrong-type", f"{shown(path)} must be a mapping, not {kind_of(entry)}{hint}")
        ]
    known = [*kinds, *JOB_KEYS]
    may = (*known, *_BESIDE, "secrets", *where.KEYS)
    problems = [_unknown_key(key, may, document, path) for key in entry if key not in may]
    found = [key for key in entry if key in known]
    if len(found) > 1:
        sentence = f"{shown(path)}: {' and '.join(found)} are two steps"
        return None, [*problems, document.problem((*path, found[1]), "conflict", sentence, key=True)]
    if not found:
        choice = ", ".join(sorted({*kinds, JobKind.DEPLOY.value, JobKind.NOTIFY.value}))
        missing = document.problem(path, "missing", f"{shown(path)}: says nothing to do; write one of {choice}")
        return None, problems or [missing]
    part, more = _entry(found[0], entry, kinds, document, path, given)
    return (None if problems else part), problems + more


def _entry(
    kind: str, entry: dict[str, Any], kinds: Kinds, document: Document, path: Path, given: Given
) -> tuple[JobPart | None, list[Problem]]:
    if kind not in JOB_KEYS:
        return _step_part(kind, entry, kinds, document, path, given)
    part, problems = read_target(JobKind(kind), entry[kind], document, (*path, kind))
    if kind != JobKind.DEPLOY:
        others = [key for key in entry if key != kind]
        problems += [
            document.problem((*path, key), "unknown-key", f"{shown(path)}: {key} belongs to a step", key=True)
            for key in others
        ]
        return (None if problems else part), problems
    if not problems and "name" in entry:
        sentence = f"{shown(path)}: a deploy is called by its environment and has no name of its own"
        return None, [document.problem((*path, "name"), "unknown-key", sentence, key=True)]
    if not problems and "secrets" in entry:
        sentence = f"{shown(path)}: secrets of what is deployed are named by the container and held by the environment"
        return None, [document.problem((*path, "secrets"), "unknown-key", sentence, key=True)]
    for key in entry.keys() & set(where.KEYS):
        sentence = f"{shown(path)}: a deploy runs no commands of the flow; {key} belongs to a step"
        problems = [*problems, document.problem((*path, key), "unknown-key", sentence, key=True)]
    if not problems and "timeout" in entry:
        sentence = f"{shown(path)}: a deploy ends by its own rules ('container.health.within' is one), not by a timeout"
        return None, [document.problem((*path, "timeout"), "unknown-key", sentence, key=True)]
    return part, problems


def _unknown_key(key: str, known: Iterable[str], document: Document, path: Path) -> Problem:
    sentence = f"{shown(path)}: unknown key {quoted(key)}{did_you_mean(key, known)}"
    return document.problem((*path, key), "unknown-key", sentence, key=True)


def read_target(kind: JobKind, target: Any, document: Document, place: Path) -> tuple[JobPart | None, list[Problem]]:
    """Read what stands at `deploy`, `approve` or `notify`; None when it has problems."""
    line = document.mark(place[:-1])[0]
    if kind is JobKind.NOTIFY:
        if isinstance(target, str) and (is_name(target) or is_address(target)):
            return JobPart(kind, target=target, line=line), []
        sentence = f"{shown(place)} must be a channel of the master's file, like 'team', or a mail address"
        return None, [document.problem(place, "bad-address", sentence)]
    if kind is JobKind.APPROVE:
        if isinstance(target, str) and target.strip() and target.isprintable() and len(target) <= _QUESTION:
            return JobPart(kind, target=target.strip(), line=line), []
        sentence = f"{shown(place)} must be a question in one line, like 'Is the demo over?'"
        return None, [document.problem(place, "bad-text", sentence)]
    if isinstance(target, dict):
        model, problems = check(models.Deploy, target, document, place)
        return JobPart(kind, None, model.environment, line, model.per_branch) if model else None, problems
    if not isinstance(target, str) or not is_name(target):
        sentence = f"{shown(place)} must be the name of an environment, like 'dev'"
        return None, [document.problem(place, "bad-name", sentence)]
    return JobPart(kind, target=target, line=line), []


def _step_part(
    kind: str, entry: dict[str, Any], kinds: Kinds, document: Document, path: Path, given: Given
) -> tuple[JobPart | None, list[Problem]]:
    module: StepKind = kinds[kind]
    value, place, skip = entry[kind], (*path, kind), 0
    if not isinstance(value, dict):
        value, skip = module.shorthand(value), 1
    spec, problems = check(module.Spec, value, document, place, skip=skip, context={GIVEN: given})
    said, said_problems = _beside(entry, document, path)
    asked = {"secrets": entry["secrets"]} if "secrets" in entry else {}
    lent, secret_problems = check(StepSecrets, asked, document, path)
    work, where_problems = _where(kind, entry, module, document, path, given)
    said_problems += secret_problems + where_problems
    if spec is None or lent is None or work is None or said_problems:
        return None, problems + said_problems
    line = document.mark(path)[0]
    settings = spec.model_dump(mode="json", exclude_defaults=True)
    uses = tuple(use.to_core() for use in lent.secrets)
    name, timeout = said.get("name") or module.title(spec), said.get("timeout", 0.0)
    step = Step(kind, name, settings, line, timeout, uses, work.plain(), said.get("idempotent", False))
    return JobPart(JobKind.SCRIPT, step, line=line), []


def _where(
    kind: str, entry: dict[str, Any], module: StepKind, document: Document, path: Path, given: Given
) -> tuple[where.Where | None, list[Problem]]:
    """Read the image and the services of one step."""
    elsewhere = next((key for key in ("image", "ssh") if key in entry), None)
    if elsewhere and not contained(module):
        sentence = (
            f"{shown(path)}: {kind} works on the machine itself; {elsewhere} is for steps with their own commands"
        )
        return None, [document.problem((*path, elsewhere), "conflict", sentence, key=True)]
    said = {key: entry[key] for key in where.KEYS if key in entry}
    return check(where.Where, said, document, path, context={GIVEN: given})


def _beside(entry: dict[str, Any], document: Document, path: Path) -> tuple[dict[str, Any], list[Problem]]:
    """Read what a step says beside its kind."""
    said: dict[str, Any] = {}
    problems: list[Problem] = []
    for key in _BESIDE.keys() & entry.keys():
        adapter, code, sentence = _BESIDE[key]
        try:
            said[key] = adapter.validate_python(entry[key])
        except ValidationError:
            problems.append(document.problem((*path, key), code, f"{shown((*path, key))} {sentence}"))
    return said, problems
