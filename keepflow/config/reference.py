"""The reference of a file's keys, made from its models: what a key is for stands at its field, as a `#:` comment.

A page holds it between `<!-- keys: NAME -->` and `<!-- end -->`; `filled` writes what stands there anew.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from keepflow.config.flow_models import Deploy, File
from keepflow.errors import UsageError

Models = Mapping[str, type[BaseModel]]  #: models by the name a page calls them by

_MARKED = re.compile(r"(<!-- keys: (?P<name>[^\n]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_SCALE = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def models_of(model: type[BaseModel], name: str) -> dict[str, type[BaseModel]]:
    """Return a model and all models below it, by their names."""
    found = {name: model}
    for field in model.model_fields.values():
        for inner in _inner(field.annotation):
            found |= {key: one for key, one in models_of(inner, inner.__name__).items() if key not in found}
    return found


def flow_models(kinds: Mapping[str, Any]) -> dict[str, type[BaseModel]]:
    """Return every model of the flow file with the step kinds that are installed; those are called `step KIND`."""
    found = models_of(File, "File") | {"Deploy": Deploy}
    for kind, module in sorted(kinds.items()):
        found |= {key: one for key, one in models_of(module.Spec, f"step {kind}").items() if key not in found}
    return found


def filled(page: str, models: Models) -> str:
    """Return a page with every marked part written anew; raises UsageError for a part of no model."""
    links = {match["name"]: _anchor(page[: match.start()]) for match in _MARKED.finditer(page)}

    def fill(match: re.Match[str]) -> str:
        if match["name"] not in models:
            raise UsageError(f"there is nothing called {match['name']!r}; there are: {', '.join(models)}")
        return match[1] + table(models[match["name"]], links) + match[3]

    return _MARKED.sub(fill, page)


def marked(page: str) -> list[str]:
    """Return the names of the parts of a page."""
    return [match["name"] for match in _MARKED.finditer(page)]


def _anchor(before: str) -> str:
    """Return the anchor of the last heading of a text, as forges make it."""
    heading = re.findall(r"^#+ (.*)$", before, re.MULTILINE)[-1].lower()
    return re.sub(r"[^a-z0-9 _-]", "", heading).replace(" ", "-")


def table(model: type[BaseModel], links: Mapping[str, str]) -> str:
    """Return the keys of one model as a table of Markdown; `links` are the anchors of other models, by their names."""
    schema = model.model_json_schema(ref_template="{model}")
    texts, lines = descriptions(model), ["| key | written as | meaning | default |", "|---|---|---|---|"]
    for key, field in model.model_fields.items():
        shape = schema["properties"][field.alias or key]
        cells = [
            f"`{field.alias or key}`",
            _written(shape, schema.get("$defs", {}), links),
            texts.get(key, ""),
            _default(field.get_default(call_default_factory=True), shape),
        ]
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(lines) + "\n"


@cache
def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return what is said of the fields of a model: the `#:` comment behind each, or above it."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found |= dict(_comments_of(base))
    return {name: text for name, text in found.items() if name in model.model_fields}


def _comments_of(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    source = inspect.getsource(sys.modules[model.__module__])
    comments = {
        token.start[0]: token.string.removeprefix("#:").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and token.string.startswith("#:")
    }
    tree = next(
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == model.__name__
    )
    for node in tree.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        behind = comments.get(node.end_lineno or node.lineno)
        above: list[str] = []
        line = node.lineno - 1
        while line in comments and not _is_behind(line, tree):
            above.insert(0, comments[line])
            line -= 1
        yield node.target.id, behind or " ".join(above)


def _is_behind(line: int, tree: ast.ClassDef) -> bool:
    """Say whether a comment stands behind a field, and so says nothing about the one below it."""
    return any((node.end_lineno or 0) == line for node in tree.body)


def _inner(annotation: Any) -> Iterator[type[BaseModel]]:
    """Return the models that a type names, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _inner(part)


def _written(shape: Mapping[str, Any], definitions: Mapping[str, Any], links: Mapping[str, str]) -> str:
    """Say in words how a value is written."""
    if "$ref" in shape:
        name = shape["$ref"].removeprefix("#/$defs/")
        return f"[{name.lower()}](#{links[name]})" if name in links else _written(definitions[name], definitions, links)
    if "anyOf" in shape:
        ways = [one for one in shape["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(_written(one, definitions, links) for one in ways))
    if "enum" in shape:
        return ", ".join(f"`{value}`" for value in shape["enum"])
    if "const" in shape:
        return f"`{shape['const']}`"
    return _plain(shape, definitions, links)


def _plain(shape: Mapping[str, Any], definitions: Mapping[str, Any], links: Mapping[str, str]) -> str:
    kind = shape.get("type")
    if kind == "array":
        items = shape.get("items", {})
        return f"list of {_written(items, definitions, links)}" if items else "list"
    if kind == "object":
        values = shape.get("additionalProperties", {})
        return (
            f"mapping to {_written(values, definitions, links)}" if isinstance(values, dict) and values else "mapping"
        )
    if kind == "boolean":
        return "`true`, `false`"
    if kind == "integer":
        return "number"
    return "time" if _is_time(shape) else "text" if kind else "anything"


def _is_time(shape: Mapping[str, Any]) -> bool:
    return r"\d+h" in str(shape.get("pattern", ""))


def _default(value: Any, shape: Mapping[str, Any]) -> str:
    if value is PydanticUndefined:
        return "required"
    if value in (None, (), {}, "") or isinstance(value, BaseModel):
        return "none" if not isinstance(value, BaseModel) else "every default below"
    if _is_time(shape):
        return f"`{_time(float(value))}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _time(seconds: float) -> str:
    for size, unit in _SCALE:
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds * 1000:g}ms"
