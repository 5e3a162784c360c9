"""What a person gives when starting a flow by hand, held against the inputs that the flow declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keepflow.core.flows import Flow
from keepflow.core.text import did_you_mean, quoted
from keepflow.errors import UsageError


def given_inputs(flow: Flow, given: Mapping[str, str]) -> dict[str, str]:
    """Return the inputs of a run: what was given, defaults for the rest; raises UsageError for what is not declared."""
    declared: Mapping[str, Mapping[str, Any]] = flow.inputs
    for name, value in given.items():
        if name not in declared:
            hint = did_you_mean(name, declared) or (
                f"; there are: {', '.join(declared)}" if declared else "; it takes none"
            )
            raise UsageError(f"{flow.name}: unknown input {quoted(name)}{hint}", code="unknown-input")
        choices = declared[name].get("choices") or ()
        if choices and value not in choices:
            allowed = ", ".join(map(str, choices))
            raise UsageError(f"{flow.name}: {name} must be one of {allowed}", code="bad-input")
    defaults = {name: str(entry["default"]) for name, entry in declared.items() if entry.get("default") is not None}
    return {**defaults, **given}
