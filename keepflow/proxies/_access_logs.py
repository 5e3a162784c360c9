"""What the main file of somebody else's nginx says about access logs: a site with one of its own must repeat them."""

from __future__ import annotations

import re

_PIECE = re.compile(r"""#[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[{};]|(?:\$\{[^}]*\}|\\.|[^\s;{}"'\\])+""")


def access_logs(main: str) -> tuple[str, ...]:
    """Return the access_log directives that stand directly in `http { }`, as they are written."""
    found: list[str] = []
    blocks: list[str] = []
    words: list[str] = []
    for piece in _PIECE.findall(main):
        if piece.startswith("#"):
            continue
        if piece == "{":
            blocks.append(words[0] if words else "")
        elif piece == "}":
            del blocks[-1:]
        elif piece != ";":
            words.append(piece)
            continue
        if piece == ";" and blocks == ["http"] and words[:1] == ["access_log"]:
            found.append(f"{' '.join(words)};")
        words = []
    return tuple(found)
