"""What an environment demands of a promote, as the server file says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keepflow.core.freeze import Window, window_from_json, window_to_json

LAPSE_AFTER = 14 * 86400.0  #: seconds an open gate waits for a person


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules beside `promote_from`, `branches` and the two lists of groups. Times are seconds."""

    four_eyes: bool = False
    max_age: float | None = None
    freeze: tuple[Window, ...] = ()
    lapse_after: float = LAPSE_AFTER


def to_json(rules: Rules) -> dict[str, Any]:
    """Return rules as plain data, only those that are set."""
    data: dict[str, Any] = {}
    if rules.four_eyes:
        data["four_eyes"] = True
    if rules.max_age is not None:
        data["max_age"] = rules.max_age
    if rules.freeze:
        data["freeze"] = [window_to_json(window) for window in rules.freeze]
    if rules.lapse_after != LAPSE_AFTER:
        data["lapse_after"] = rules.lapse_after
    return data


def from_json(data: dict[str, Any]) -> Rules:
    """Read rules back from plain data."""
    return Rules(
        four_eyes=bool(data.get("four_eyes", False)),
        max_age=data.get("max_age"),
        freeze=tuple(window_from_json(window) for window in data.get("freeze", ())),
        lapse_after=data.get("lapse_after", LAPSE_AFTER),
    )
