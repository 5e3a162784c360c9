"""Log files of runs, read from the disk: whole, by job, or only the end."""

from __future__ import annotations

from collections.abc import Iterator

from keepflow.core import ansi
from keepflow.engine.logs import Logs
from keepflow.store.jobs import Attempt

_CHUNK = 256 * 1024
_EXCERPT = 64 * 1024


def stream(logs: Logs, attempts: list[Attempt]) -> Iterator[bytes]:
    """Yield the bytes of these attempts' logs, in order, as they are on the disk now."""
    for attempt in attempts:
        start, end = 0, logs.size(attempt.log_path)
        while start < end:
            chunk = logs.read(attempt.log_path, start, min(_CHUNK, end - start))
            if not chunk:
                break
            start += len(chunk)
            yield chunk


def tail(logs: Logs, attempts: list[Attempt], lines: int) -> bytes:
    """Return the last lines of these attempts' logs."""
    found = b""
    for attempt in reversed(attempts):
        end = logs.size(attempt.log_path)
        while end > 0 and found.count(b"\n") <= lines:
            start = max(0, end - _CHUNK)
            found = logs.read(attempt.log_path, start, end - start) + found
            end = start
        if found.count(b"\n") > lines:
            break
    kept = found.splitlines(keepends=True)[-lines:]
    return b"".join(kept)


def excerpt(logs: Logs, attempt: Attempt, start: int, end: int | None, lines: int) -> str:
    """Return the last lines of one step (agent offsets) as plain text, without what only a terminal understands."""
    path = attempt.log_path
    stop = logs.size(path) if end is None else min(logs.size(path), logs.place_of(path, end))
    begin = max(logs.place_of(path, start), stop - _EXCERPT)
    data = logs.read(path, begin, stop - begin) if stop > begin else b""
    rows = ansi.plain(data.decode(errors="replace")).split("\n")
    while rows and not rows[-1].strip():
        rows.pop()
    return "\n".join(rows[-lines:])
