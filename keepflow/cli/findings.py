"""Problems as text: for people, for programs, for GitHub's annotations, and as SARIF."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from keepflow import __version__
from keepflow.errors import Problem

FORMATS = ("text", "json", "github", "sarif")
_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"


def render(problems: Sequence[Problem], form: str) -> str:
    """Return problems in one of `FORMATS`; an empty text when there is nothing to print."""
    if form == "json":
        return json.dumps([_plain(problem) for problem in problems], indent=2)
    if form == "sarif":
        return json.dumps(_sarif(problems), indent=2)
    if form == "github":
        return "\n".join(_annotation(problem) for problem in problems)
    return "\n".join(str(problem) for problem in problems)


def _plain(problem: Problem) -> dict[str, Any]:
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "code": problem.code,
        "message": problem.message,
    }


def _annotation(problem: Problem) -> str:
    """Return GitHub's workflow command; everything in it is escaped, so that no message can start another one."""
    message = problem.message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    place = {"file": problem.file, "line": problem.line, "col": problem.column, "title": problem.code}
    settings = ",".join(f"{key}={_property(str(value))}" for key, value in place.items())
    return f"::error {settings}::{message}"


def _property(value: str) -> str:
    for character in "%\r\n:,":
        value = value.replace(character, f"%{ord(character):02X}")
    return value


def _sarif(problems: Sequence[Problem]) -> dict[str, Any]:
    rules = [{"id": code} for code in sorted({problem.code for problem in problems})]
    driver = {"name": "keepflow", "version": __version__, "rules": rules}
    return {
        "$schema": _SARIF,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": [_result(problem) for problem in problems]}],
    }


def _result(problem: Problem) -> dict[str, Any]:
    region = {"startLine": problem.line, "startColumn": problem.column}
    location = {"artifactLocation": {"uri": problem.file}, "region": region}
    return {
        "ruleId": problem.code,
        "level": "error",
        "message": {"text": problem.message},
        "locations": [{"physicalLocation": location}],
    }
