"""The OpenAPI document, made from the table of endpoints."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from keepflow import __version__
from keepflow.web.api.endpoint import Endpoint, Endpoints
from keepflow.wire.api import Problem

_VALUE = re.compile(r"<(?:(?P<kind>\w+):)?(?P<name>\w+)>")
_REF = "#/components/schemas/{model}"
Mode = Literal["validation", "serialization"]


@cache
def document(subjects: tuple[Endpoints, ...], base: str) -> str:
    """Return the OpenAPI 3.1 document as JSON text; the same subjects always give the same text."""
    used = _models(subjects)
    refs, schemas = models_json_schema(used, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for subject in subjects:
        for endpoint in subject.all:
            address = base + endpoint.shown
            paths.setdefault(address, {})[endpoint.method.lower()] = _operation(subject.title, endpoint, refs)
    return json.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "keepflow", "version": __version__, "license": {"name": "Apache-2.0"}},
            "paths": paths,
            "security": [{"bearer": []}],
            "components": {
                "schemas": schemas.get("$defs", {}),
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            },
        },
        indent=1,
    )


def _models(subjects: Sequence[Endpoints]) -> list[tuple[type[BaseModel], Mode]]:
    found: dict[tuple[type[BaseModel], Mode], None] = {(Problem, "serialization"): None}
    for endpoint in (endpoint for subject in subjects for endpoint in subject.all):
        if endpoint.body:
            found[endpoint.body, "validation"] = None
        if endpoint.answer:
            found[endpoint.answer, "serialization"] = None
    return list(found)


def _operation(title: str, endpoint: Endpoint, refs: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": refs[Problem, "serialization"]}}
    content: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    if endpoint.answer:
        content = {"application/json": {"schema": refs[endpoint.answer, "serialization"]}}
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "tags": [title],
        "summary": endpoint.summary,
        "x-keepflow-verb": endpoint.verb,
        "parameters": [*_path_values(endpoint.path), *_query_values(endpoint.query)],
        "responses": {
            str(endpoint.status): {"description": "done", "content": content},
            "default": {"description": "an error", "content": problem},
        },
    }
    if endpoint.body:
        schema = {"schema": refs[endpoint.body, "validation"]}
        operation["requestBody"] = {"required": True, "content": {"application/json": schema}}
    return operation


def _path_values(path: str) -> list[dict[str, Any]]:
    return [
        {
            "name": found["name"],
            "in": "path",
            "required": True,
            "schema": {"type": "integer", "minimum": 0} if found["kind"] == "int" else {"type": "string"},
        }
        for found in _VALUE.finditer(path)
    ]


def _query_values(model: type[BaseModel] | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    schema = model.model_json_schema()
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": value}
        for name, value in schema.get("properties", {}).items()
    ]
