"""Files that a job keeps for people and for later jobs: what they may be called."""

from __future__ import annotations

import re

MOST = 1000  #: files of one attempt
LONGEST = 400  #: bytes of a path
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


def is_path(text: str) -> bool:
    """Say whether a text is the path of an artifact: relative, in plain parts, of printable characters."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    parts = text.split("/")
    plain = not {"", ".", ".."} & set(parts) and text.isprintable() and not _CONTROL.search(text)
    return plain and 0 < size <= LONGEST and max(len(part.encode()) for part in parts) <= 255
