"""Patterns of branches, tags and paths: `*` stops at a slash, `**` does not, `?` is one character, `!` takes away.

The last pattern that fits decides, so `[release/*, "!release/old"]` means what it says. Matching walks every character
once over a set of positions: no pattern, however hostile, takes more than length × length steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keepflow.core.text import quoted

PATTERN_LIMIT = 255
_FORBIDDEN = frozenset(" ~^:[]\\\x7f")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a list of patterns selects a name, and the pattern that decided (None when no pattern fits)."""

    selected: bool
    by: str | None = None


def matches(pattern: str, name: str) -> bool:
    """Say whether one pattern (without a leading `!`) fits the whole name."""
    parts = _parts(pattern)
    positions = _past_stars(parts, {0})
    for character in name:
        following = {
            position if parts[position] in ("*", "**") else position + 1
            for position in positions
            if position < len(parts) and _fits(parts[position], character)
        }
        positions = _past_stars(parts, following)
        if not positions:
            return False
    return len(parts) in positions


def decide(patterns: Sequence[str], name: str) -> Verdict:
    """Return what a list of patterns says about a name; the last pattern that fits decides."""
    verdict = Verdict(False)
    for pattern in patterns:
        if matches(pattern.removeprefix("!"), name):
            verdict = Verdict(not pattern.startswith("!"), pattern)
    return verdict


def decide_path(patterns: Sequence[str], name: str) -> Verdict:
    """Return what a list of path patterns says about a file; `docs/` means all below it, `**/x` also `x` at the top."""
    verdict = Verdict(False)
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        whole = bare + "**" if bare.endswith("/") else bare
        if matches(whole, name) or (whole.startswith("**/") and matches(whole.removeprefix("**/"), name)):
            verdict = Verdict(not pattern.startswith("!"), pattern)
    return verdict


def path_pattern_problem(pattern: str) -> str | None:
    """Return a sentence about a pattern that can never fit a file of a repository, or None."""
    bare = pattern.removeprefix("!")
    if not bare or len(bare) > PATTERN_LIMIT:
        return f"a pattern has 1 to {PATTERN_LIMIT} characters"
    if bare.startswith(("/", "./")):
        return f"write the path from the top of the repository, {quoted(bare.lstrip('./'))}, without a slash before it"
    if "//" in bare or ".." in bare.split("/") or not bare.isprintable():
        return f"{quoted(bare)} can never be a file of a repository"
    return None


def branch_allowed(patterns: Sequence[str], branch: str) -> bool:
    """Say whether an environment's `branches` let this branch reach it."""
    return decide(patterns, branch).selected


def pattern_problem(pattern: str) -> str | None:
    """Return a sentence about a pattern that can never fit a branch or tag, or None."""
    bare = pattern.removeprefix("!")
    if not bare or len(bare) > PATTERN_LIMIT:
        return f"a pattern has 1 to {PATTERN_LIMIT} characters"
    if bare.startswith("refs/"):
        return f"write the branch or tag alone, without {quoted(bare[: bare.rfind('/') + 1])}"
    if bare.startswith("origin/"):
        return "write the branch without 'origin/'"
    if any(character in _FORBIDDEN or character < " " for character in bare):
        return f"{quoted(bare)} holds a character no branch can have; wildcards are *, ** and ?"
    if bare.startswith("/") or bare.endswith("/") or "//" in bare or ".." in bare or bare.endswith(".lock"):
        return f"{quoted(bare)} can never be a branch"
    return None


def _parts(pattern: str) -> list[str]:
    parts: list[str] = []
    for character in pattern:
        if character == "*" and parts and parts[-1] in ("*", "**"):
            parts[-1] = "**"
        else:
            parts.append(character)
    return parts


def _fits(part: str, character: str) -> bool:
    if part == "**":
        return True
    return character != "/" if part in ("*", "?") else part == character


def _past_stars(parts: list[str], positions: set[int]) -> set[int]:
    """Add the positions reached by letting stars stand for nothing."""
    reached = set(positions)
    for position in sorted(positions):
        while position < len(parts) and parts[position] in ("*", "**"):
            position += 1
            reached.add(position)
    return reached
