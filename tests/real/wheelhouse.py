"""Wheels of what keepflow needs, made from what is installed here: a host without a package index, and no network."""

from __future__ import annotations

import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def fill(folder: Path) -> None:
    """Write a wheel of every distribution that the base of keepflow needs, keepflow itself excepted."""
    for name in sorted(_needed("keepflow") - {"keepflow"}):
        _repack(distribution(name), folder)


def _needed(name: str) -> set[str]:
    found: set[str] = set()
    waiting = [(name, "")]
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        found.add(name)
        for text in distribution(name).requires or ():
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(wanted.name), one) for one in ("", *wanted.extras)]
    return found


def _repack(known: Distribution, folder: Path) -> None:
    tags = [
        line.partition(": ")[2] for line in (known.read_text("WHEEL") or "").splitlines() if line.startswith("Tag: ")
    ]
    name = str(known.metadata["Name"]).replace("-", "_")
    with zipfile.ZipFile(folder / f"{name}-{known.version}-{tags[0]}.whl", "w") as wheel:
        for file in known.files or ():
            if not str(file).startswith("..") and "__pycache__" not in file.parts and file.name not in ("INSTALLER",):
                wheel.write(str(file.locate()), str(file))
