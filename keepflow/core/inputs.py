"""What a person gives when starting a flow by hand, held against the inputs that the flow declares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from keepflow.core.flows import Flow
from keepflow.core.text import did_you_mean, quoted
from keepflow.errors import UsageError

TEXT, BOOLEAN, NUMBER = "text", "boolean", "number"  #: what an input may be
LIMIT = 16_384  #: characters of a value
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17})(?:\.\d{1,17})?")

Declared = Mapping[str, Any]  #: one input as the flow file says it: type, choices, default, required, help


def given_inputs(flow: Flow, given: Mapping[str, str]) -> dict[str, str]:
    """Return the inputs of a run: what was given, defaults for the rest.

    Raises UsageError with everything that is wrong: what is not declared, does not fit, or is required and missing.
    """
    declared: Mapping[str, Declared] = flow.inputs
    problems = [_unknown(name, declared) for name in given if name not in declared]
    for name, entry in declared.items():
        if name in given:
            problem = problem_of(entry, given[name])
            problems += [("bad-input", f"{name} {problem}")] if problem else []
        elif entry.get("required"):
            problems.append(("missing-input", f"{name} must be given{_help(entry)}"))
    if problems:
        raise UsageError(f"{flow.name}: " + "; ".join(sentence for _, sentence in problems), code=problems[0][0])
    return {name: given.get(name, default_of(entry)) for name, entry in declared.items()}


def default_of(declared: Declared) -> str:
    """Return what an input is when nobody says; a boolean is false then."""
    return str(declared.get("default") or ("false" if declared.get("type") == BOOLEAN else ""))


def problem_of(declared: Declared, value: str) -> str | None:
    """Return what is wrong with a value, as the rest of a sentence that begins with the input's name, or None."""
    choices, kind = declared.get("choices") or (), declared.get("type", TEXT)
    if choices and value not in choices:
        return f"must be one of {', '.join(map(str, choices))}"
    if kind == BOOLEAN and value not in ("true", "false"):
        return "must be true or false"
    if kind == NUMBER and not _NUMBER.fullmatch(value) and (value or declared.get("required")):
        return "must be a number, like 12 or 0.5"
    if declared.get("required") and not value:
        return "must not be empty"
    if len(value) > LIMIT or "\0" in value:
        return f"must be text of at most {LIMIT} characters, without NUL"
    return None


def _unknown(name: str, declared: Mapping[str, Declared]) -> tuple[str, str]:
    known = f"; there are: {', '.join(declared)}" if declared else "; it takes none"
    return "unknown-input", f"unknown input {quoted(name)}{did_you_mean(name, declared) or known}"


def _help(declared: Declared) -> str:
    return f" ({declared['help']})" if declared.get("help") else ""
