"""The host's own environment for a service: lines `NAME=value`, nothing interpreted."""

from __future__ import annotations

import re
from pathlib import Path

from keepflow.errors import DeployFailed

_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def read(path: Path) -> dict[str, str]:
    """Return the variables of an env file; empty lines and lines that begin with # are skipped.

    Raises DeployFailed `env-file` with the number of the first line that is neither; never with its text.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DeployFailed(f"the host's env_file {path} cannot be read: {error}", code="env-file") from error
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or "\0" in line:
            raise DeployFailed(f"{path}:{number}: not a line like NAME=value", code="env-file")
        found[match[1]] = match[2]
    return found
