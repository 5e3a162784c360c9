"""Log files of runs, read from the disk: whole, by job, a range of bytes, the end, or the lines that hold a text."""

from __future__ import annotations

from collections.abc import Iterator

from keepflow.core import ansi
from keepflow.engine.logs import Logs
from keepflow.store.jobs import Attempt

_CHUNK = 256 * 1024
#: What stands for logs that the rule of retention has let go of.
GONE = "── this log was let go of, by the rule of retention ──\n".encode()
_EXCERPT = 64 * 1024


def length(logs: Logs, attempts: list[Attempt]) -> int:
    """Return how many bytes these attempts' logs are now, one behind the other."""
    return sum(logs.size(attempt.log_path) for attempt in attempts if attempt.log_path)


def stream(logs: Logs, attempts: list[Attempt], start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """Yield these attempts' logs, one behind the other, as they are on the disk now; or bytes start to stop of that."""
    before = 0
    if not any(attempt.log_path for attempt in attempts) and attempts:
        yield GONE  # of all of them; where there are some, those speak for themselves
    for attempt in attempts:
        size = logs.size(attempt.log_path)
        at, end = max(0, start - before), size if stop is None else min(size, stop - before)
        before += size
        while at < end:
            chunk = logs.read(attempt.log_path, at, min(_CHUNK, end - at))
            if not chunk:
                break
            at += len(chunk)
            yield chunk


def matching(logs: Logs, attempt: Attempt, text: str) -> Iterator[tuple[int, str]]:
    """Yield (number, line) of every line of an attempt's log that holds a text, as it reads without colours."""
    number, rest, at = 1, b"", 0
    sought = text.encode()
    while chunk := logs.read(attempt.log_path, at, _CHUNK):
        at += len(chunk)
        block, newline, rest = (rest + chunk).rpartition(b"\n")
        yield from _lines_with(block, sought, number)
        number += block.count(b"\n") + bool(newline)
    yield from _lines_with(rest, sought, number)


def _lines_with(block: bytes, sought: bytes, number: int) -> Iterator[tuple[int, str]]:
    """Find lines in whole lines; what a terminal would not show is taken out only where there may be some."""
    if b"\x1b" in block or b"\r" in block:
        block = ansi.plain(block.decode(errors="replace")).encode()
    counted, at = 0, block.find(sought)
    while at >= 0:
        begin, end = block.rfind(b"\n", 0, at) + 1, block.find(b"\n", at)
        end = end if end >= 0 else len(block)
        number, counted = number + block.count(b"\n", counted, begin), begin
        yield number, ansi.plain(block[begin:end].decode(errors="replace"))
        at = block.find(sought, end)


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
