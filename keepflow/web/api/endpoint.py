"""One table says everything about the API: address, verb, models. Routes, guards, checks and OpenAPI are made from it.

An endpoint is a function that takes the address's own values, `query` and `body` as models, and returns a model.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Response, request
from pydantic import BaseModel
from werkzeug.exceptions import UnsupportedMediaType
from werkzeug.wrappers import Response as AnyResponse

from keepflow.errors import UsageError
from keepflow.web.access import needs

_VALUE = re.compile(r"<(?:\w+:)?(?P<name>\w+)>")
View = Callable[..., BaseModel | AnyResponse]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address and method; `summary` is the first line of the view's docstring."""

    method: str
    path: str
    verb: str
    view: View
    answer: type[BaseModel] | None
    query: type[BaseModel] | None
    body: type[BaseModel] | None
    status: int

    @property
    def name(self) -> str:
        """The unique name of this endpoint."""
        return self.view.__name__

    @property
    def shown(self) -> str:
        """The path as people and OpenAPI write it: `/runs/{number}`."""
        return _VALUE.sub(r"{\g<name>}", self.path)

    @property
    def summary(self) -> str:
        """What it does, in one sentence."""
        return (self.view.__doc__ or "").partition("\n")[0]


class Endpoints:
    """The endpoints of one subject, in the order they are shown."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.all: list[Endpoint] = []

    def add(
        self,
        method: str,
        path: str,
        verb: str,
        answer: type[BaseModel] | None = None,
        *,
        query: type[BaseModel] | None = None,
        body: type[BaseModel] | None = None,
        status: int = 200,
    ) -> Callable[[View], View]:
        """Add the decorated function as an endpoint below `/api/v1`."""

        def declare(view: View) -> View:
            self.all.append(Endpoint(method, path, verb, view, answer, query, body, status))
            return view

        return declare


def flask_view(endpoint: Endpoint) -> Callable[..., AnyResponse]:
    """Return the Flask view of an endpoint: it reads the request into models and writes the answer."""

    @needs(endpoint.verb)
    def view(**values: Any) -> AnyResponse:
        values.pop("project", None)  # the guard has read it: state.project()
        if endpoint.query is not None:
            values["query"] = endpoint.query.model_validate(_single_values())
        if endpoint.body is not None:
            if not request.is_json:
                raise UnsupportedMediaType
            values["body"] = endpoint.body.model_validate_json(request.get_data())
        result = endpoint.view(**values)
        if isinstance(result, BaseModel):
            return Response(result.model_dump_json(), endpoint.status, mimetype="application/json")
        return result

    view.__name__ = endpoint.name
    return view


def _single_values() -> dict[str, str]:
    for name in request.args:
        if len(request.args.getlist(name)) > 1:
            raise UsageError(f"the parameter {name[:40]!r} is there more than once", code="invalid")
    return request.args.to_dict()
