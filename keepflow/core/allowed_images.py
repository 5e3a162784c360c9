"""Which images the containers of jobs may be made of, by patterns that the host's own file lists.

A pattern fits the name of an image with or without its tag, however that name is spelled: `node`, `node:22`,
`docker.io/library/node` are the same image to an engine. Words and wildcards are those of `core.patterns`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from keepflow.core.patterns import PATTERN_LIMIT, matches
from keepflow.core.releases import ImageRef
from keepflow.core.text import quoted

_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io", "")
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{4,64}")
_PATTERN = re.compile(r"!?[A-Za-z0-9*?][A-Za-z0-9*?._:/@\[\]-]*")


def allowed(patterns: Sequence[str], text: str) -> bool:
    """Say whether a list of patterns lets jobs use an image; the last pattern that fits decides.

    An id, or what an engine could take for one, names no repository and is never allowed. Raises ValueError for what is
    no reference.
    """
    if _ID.fullmatch(text):
        return False
    verdict, names = False, spellings(ImageRef.parse(text))
    for pattern in patterns:
        if any(matches(pattern.removeprefix("!"), name) for name in names):
            verdict = not pattern.startswith("!")
    return verdict


def spellings(reference: ImageRef) -> tuple[str, ...]:
    """Return every way to write an image; with a digest no tag is among them, for the digest alone decides then.

    >>> spellings(ImageRef.parse("node:22"))
    ('node', 'node:22', 'docker.io/node', 'docker.io/node:22', 'docker.io/library/node', 'docker.io/library/node:22')
    """
    names = [reference.repository]
    if reference.domain in _HUB:
        short = reference.path.removeprefix("library/") if reference.path.count("/") == 1 else reference.path
        names = [short, f"docker.io/{short}", *([f"docker.io/library/{short}"] if "/" not in short else [])]
    exact = f"@{reference.digest}" if reference.digest else f":{reference.tag or 'latest'}"
    return tuple(spelled for name in names for spelled in (name, name + exact))


def problem(pattern: str) -> str | None:
    """Return a sentence about a pattern that can never fit an image, or None."""
    if len(pattern) > PATTERN_LIMIT or not _PATTERN.fullmatch(pattern):
        return f"{quoted(pattern)} can never be an image; write a name like 'registry.example.org/*' or 'node'"
    return None
