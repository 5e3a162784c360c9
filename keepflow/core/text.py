"""Text from outside, made fit to be shown: one line, no control characters, bounded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def one_line(text: str, limit: int = 200) -> str:
    """Return a text without control characters, line breaks and surrogates, cut with an ellipsis after `limit`."""
    cleaned = "".join(character if character.isprintable() else " " for character in text[: limit * 2])
    squeezed = " ".join(cleaned.split())
    return squeezed if len(squeezed) <= limit else squeezed[: limit - 1] + "…"


def quoted(text: str, limit: int = 80) -> str:
    """Return a text in single quotes for a sentence, made one line first."""
    return f"'{one_line(text, limit)}'"


def listed(names: Sequence[str]) -> str:
    """Return names as they are said: `a`, `a and b`, `a, b and c`."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def words(seconds: float) -> str:
    """Return a length of time as the flow file writes it: `90s` is `1m30s`, `7200` is `2h`."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    whole, rest = divmod(seconds, 1)
    minutes, secs = divmod(int(whole), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "m"), (round(secs + rest, 3), "s")]
    return "".join(f"{count:g}{unit}" for count, unit in parts if count)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` when a known word is close to this one, else the empty text."""
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def innermost_words(error: BaseException) -> str:
    """Return what the innermost of an HTTP client's errors says; such a client wraps them several times."""
    cause = error.args[0] if error.args else error
    return one_line(str(getattr(cause, "reason", cause)).rpartition(">: ")[2])
