"""The one place where a loaded file meets its model: every mistake becomes a problem at its line and column."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, core_schema

from keepflow.config.yaml_loader import Document, Path
from keepflow.core.text import did_you_mean, one_line, quoted
from keepflow.errors import ConfigError, Problem

M = TypeVar("M", bound=BaseModel)

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
}
_LIMITS = {
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "string_too_long": "must have at most {max_length} characters",
}
_EMPTY = frozenset({"too_short", "string_too_short"})
_OF_PYDANTIC = frozenset(get_args(core_schema.ErrorType))


def check(
    model: type[M],
    value: Any,
    document: Document,
    at: Path = (),
    *,
    skip: int = 0,
    context: Mapping[str, Any] | None = None,
) -> tuple[M | None, list[Problem]]:
    """Validate a part of a document and return the typed object, or None and every problem.

    `at` is the path of `value` in the document. `skip` drops that many leading parts of pydantic's own paths, for a
    value that was written short (`run: make` stands for `run: {script: make}`).
    """
    try:
        return model.model_validate(value, context=dict(context or {})), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True, include_input=True)
        return None, [_problem(model, detail, document, at, skip) for detail in details if not _echo(detail)]


def finish(document: Document, problems: Sequence[Problem]) -> None:
    """Raise ConfigError with the document's own problems and these, when there are any."""
    every = [*document.problems, *problems]
    if every:
        raise ConfigError(every)


def shown(path: Path) -> str:
    """Return a path as people write it: `flows.dev.steps[1].run`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{one_line(part, 60)}" if text else one_line(part, 60)
    return text or "the file"


def kind_of(value: Any) -> str:
    """Return what a loaded value is, in words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list) else "a mapping"


def _problem(model: type[BaseModel], detail: ErrorDetails, document: Document, at: Path, skip: int) -> Problem:
    on_key = detail["loc"][-1:] == ("[key]",)
    inner = tuple(part for part in detail["loc"] if part != "[key]")
    path = (*at, *inner[skip:]) if inner else at
    code, sentence, key = _words(model, detail, inner, path)
    return document.problem(path, code, sentence, key=key or on_key)


def _words(model: type[BaseModel], detail: ErrorDetails, inner: Path, path: Path) -> tuple[str, str, bool]:
    """Return the code, the sentence, and whether the key (not the value) is what is wrong."""
    kind, place = detail["type"], shown(path)
    if kind == "extra_forbidden":
        hint = did_you_mean(str(inner[-1]), _known_keys(model, inner[:-1]))
        return "unknown-key", f"{_before(path)}unknown key {quoted(str(inner[-1]))}{hint}", True
    if kind == "missing":
        return "missing", f"{_before(path)}{str(inner[-1])!r} is missing", False
    if kind in _WANTED:
        given = kind_of(detail["input"])
        quotes = "; write it in quotes" if kind == "string_type" and isinstance(detail["input"], bool) else ""
        return "wrong-type", f"{place} must be {_WANTED[kind]}, not {given}{quotes}", False
    if kind in ("literal_error", "enum"):
        return "bad-value", _choice_sentence(detail, place), False
    if kind in _EMPTY:
        return "empty", f"{place} must not be empty", False
    if kind in _LIMITS:
        return "out-of-range", f"{place} {_LIMITS[kind].format(**detail.get('ctx', {}))}", False
    return ("bad-value" if kind in _OF_PYDANTIC else kind), f"{place}: {detail['msg']}", False


def _before(path: Path) -> str:
    return f"{shown(path[:-1])}: " if len(path) > 1 else ""


def _echo(detail: ErrorDetails) -> bool:
    """Say whether an error only repeats others: a list counts as too short when its items are wrong."""
    return detail["type"] == "too_short" and bool(detail["input"])


def _choice_sentence(detail: ErrorDetails, place: str) -> str:
    expected = str(detail.get("ctx", {}).get("expected", ""))
    words = [word.strip(" '") for word in expected.replace(" or ", ", ").split(",")]
    given = detail["input"]
    hint = did_you_mean(given, words) if isinstance(given, str) else ""
    value = quoted(str(given), 40) if isinstance(given, str | int | float) else kind_of(given)
    return f"{place} must be {' or '.join(words)}, not {value}{hint}"


def _known_keys(model: Any, inner: Path) -> list[str]:
    """Return the keys that are allowed at a path inside a model; empty where any key is."""
    for part in inner:
        model = _step_into(_bare(model), part)
    bare = _bare(model)
    return list(bare.model_fields) if isinstance(bare, type) and issubclass(bare, BaseModel) else []


def _bare(annotation: Any) -> Any:
    """Take `Annotated[…]` and `… | None` off a type."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _bare(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _bare(next((kind for kind in get_args(annotation) if kind is not type(None)), None))
    return annotation


def _step_into(annotation: Any, part: str | int) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        known = annotation.model_fields.get(str(part))
        return known.annotation if known else None
    arguments = get_args(annotation)
    return arguments[-1] if isinstance(part, str) and arguments else next(iter(arguments), None)
