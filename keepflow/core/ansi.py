"""Text that was made for a terminal, and may have been made to fool one."""

from __future__ import annotations

import re

#: Every escape sequence: colours, cursor moves, titles, links, and beginnings of sequences that never end.
_ESCAPE = re.compile(r"\x1b(?:\[(?P<csi>[0-?]*[ -/]*[@-~])?|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[()*+][0-9A-Za-z]|[ -~])?")
_COLOUR = re.compile(r"[0-9;:]*m")
#: Control characters but tab, line feed and carriage return; and the marks that turn text around.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Return a text without escape sequences and control characters; of a line written over, what was left."""
    shown = _CONTROL.sub("", _ESCAPE.sub("", text)).replace("\r\n", "\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in shown.split("\n"))


def colours_only(text: str) -> str:
    """Return a text whose only escape sequences are colours: it cannot move the cursor, set titles or make links."""
    return _CONTROL.sub("", _ESCAPE.sub(lambda found: found[0] if _COLOUR.fullmatch(found["csi"] or "") else "", text))
