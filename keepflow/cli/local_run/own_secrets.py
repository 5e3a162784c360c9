"""What a local run has instead of the master's secrets: variables of the person's own environment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from keepflow.core.job_secrets import SecretUse
from keepflow.core.text import quoted

_NO_VARIABLE = re.compile(r"[^A-Za-z0-9_]")


def variable(name: str) -> str:
    """Return a variable for a secret whose own name is none that a shell could set: `api-key` is `API_KEY`."""
    return _NO_VARIABLE.sub("_", name).upper()


def held(names: Iterable[str]) -> dict[str, str]:
    """Return the values that the environment holds, by secret; one of the secret's own name counts first."""
    found = {name: os.environ.get(name, os.environ.get(variable(name))) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def missing(uses: Iterable[SecretUse]) -> Iterator[str]:
    """Return a sentence for every secret that is needed and not there, with what to set."""
    needed = {use.name for use in uses if not use.optional}
    for name in sorted(needed - held(needed).keys()):
        yield f"your environment has no value for the secret {quoted(name)}: set {variable(name)}"
