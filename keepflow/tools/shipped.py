"""The folders of files that ship beside the code: scripts, dockerfiles, nginx, agents."""

from __future__ import annotations

from pathlib import Path

import keepflow

_PACKAGE = Path(keepflow.__file__).parent
FOLDERS = ("scripts", "dockerfiles", "nginx", "agents")


def shipped(folder: str, name: str) -> Path:
    """Return the path of a shipped file: inside an installed wheel, or in the checkout this code runs from.

    Raises FileNotFoundError, which means a broken installation.
    """
    for root in (_PACKAGE / "_data", _PACKAGE.parent):
        path = root / folder / name
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder}/{name} is missing from this installation of keepflow; install it again")


def shipped_folder(folder: str) -> Path:
    """Return one of `FOLDERS`, whole; raises FileNotFoundError, which means a broken installation."""
    for root in (_PACKAGE / "_data", _PACKAGE.parent):
        if (root / folder).is_dir():
            return root / folder
    raise FileNotFoundError(f"{folder} is missing from this installation of keepflow; install it again")
