"""What a job hands on to other machines besides its files: who changed what, and what git cannot carry."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keepflow.core.sharing import Left

LARGE = 8 * 1024 * 1024  #: bytes from which on a file goes by its digest, beside git
MOST_FILES = 200_000  #: entries of one workspace
MOST_PACK = 1024**3  #: bytes of one workspace as git packs it
MOST_OF_RUN = 10 * 1024**3  #: bytes that all jobs of a run hand on

_LONGEST = 4096  #: bytes of a path
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Large:
    """A large file: its digest and its size in bytes."""

    sha256: str
    size: int
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Handed:
    """What stands in the message of a workspace's commit: `large` files by path, and directories with nothing in."""

    left: Left
    large: Mapping[str, Large] = field(default_factory=dict)
    empty: tuple[str, ...] = ()


def is_inside(path: str) -> bool:
    """Say whether a path stays inside of a workspace, and is none that git gives a meaning to."""
    parts = path.split("/")
    return (
        not {"", ".", ".."} & set(parts)
        and ".git" not in {part.lower() for part in parts}
        and "\0" not in path
        and len(path) <= _LONGEST
    )


def to_text(handed: Handed) -> str:
    """Return it as the message of a commit."""
    left = handed.left
    plain = {
        "history": sorted(left.history),
        "stamps": {path: job for path, job in sorted(left.stamps.items()) if is_inside(path)},
        "large": {path: [one.sha256, one.size, one.executable] for path, one in sorted(handed.large.items())},
        "empty": list(handed.empty),
    }
    return json.dumps(plain) + "\n"


def from_text(text: str) -> Handed:
    """Read the message of a commit that another machine made.

    Raises ValueError when it is none, or when a path in it leads out of the workspace.
    """
    try:
        plain = json.loads(text)
        stamps = {str(path): str(job) for path, job in plain["stamps"].items()}
        large = {str(path): _large(*one) for path, one in plain["large"].items()}
        empty = tuple(map(str, plain["empty"]))
        history = frozenset(map(str, plain["history"]))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it does not say what was handed on: {error!r}") from None
    for path in (*stamps, *large, *empty):
        if not is_inside(path):
            raise ValueError(f"{path[:80]!r} leads out of the workspace")
    return Handed(Left(history, stamps), large, empty)


def _large(sha256: Any, size: Any, executable: Any) -> Large:
    if not isinstance(sha256, str) or not _DIGEST.fullmatch(sha256) or type(size) is not int or size < 0:
        raise ValueError("a large file has no digest and size")
    return Large(sha256, size, executable is True)
