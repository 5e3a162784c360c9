"""What a step tells keepflow: the files behind `$KEEPFLOW_OUTPUT` and `$KEEPFLOW_ENV`. The log is never read for it."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

LIMIT = 64 * 1024  #: bytes of one file
WORDS = frozenset({"image", "pushed"})  #: keys of `$KEEPFLOW_OUTPUT` that speak to keepflow, not to other jobs
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def read(path: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Read `key=value` lines; returns the pairs in order, and a sentence for everything that was not taken.

    The file belongs to the job, so it may be anything: a link, a pipe, endless. Only a plain file within LIMIT counts.
    """
    data = _bytes(path)
    if data is None:
        return [], [f"{path.name} is not a plain file and was not read"]
    if len(data) > LIMIT:
        return [], [f"{path.name} holds more than {LIMIT} bytes and was not read"]
    pairs, complaints = [], []
    # A line ends where a shell's line does and nowhere else: a commit's subject that holds a U+2028 or a form feed is
    # one line to the script that writes it down, and may not become a second pair here.
    for number, line in enumerate(data.decode(errors="replace").split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if equals and _KEY.fullmatch(key.strip()):
            pairs.append((key.strip(), value.strip()))
        else:
            complaints.append(f"{path.name}:{number}: not a line of the form key=value")
    return pairs, complaints


def _bytes(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return os.pread(descriptor, LIMIT + 1, 0)
    finally:
        os.close(descriptor)
