"""Plain data from outside, read so that nobody can read it in two ways."""

from __future__ import annotations

import json
from typing import Any


def loads(text: bytes | str) -> Any:
    """Read JSON in which no name is there twice; raises ValueError for everything else."""
    try:
        return json.loads(text, object_pairs_hook=_no_twins)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found
