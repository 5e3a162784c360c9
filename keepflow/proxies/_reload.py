"""Reload mode: how a site comes, changes or goes, on purpose and never inside a switch.

Test the whole tree with the candidate in it, keep the previous text, move the new one into place, reload, and believe
nothing but an answer: `nginx -t` and the reload command both say "fine" when the port is taken and the old
configuration serves on. Without that answer the previous text comes back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from keepflow.errors import DeployFailed
from keepflow.tools.failpoints import fail
from keepflow.tools.files import write_atomic

PROOF_SECONDS = 5.0
_POLL = 0.01


class Tree(Protocol):
    """An nginx whose sites are files."""

    def place(self, name: str) -> Path:
        """Return where the file of a site lies."""

    def alive(self) -> bool:
        """Say whether the process that would carry out a reload is there; orphaned workers may answer without it."""

    def test(self, name: str, text: str | None) -> None:
        """Test the whole tree with this text (None: without this site); raises DeployFailed `proxy-config`."""

    def reload(self) -> None:
        """Ask nginx to read its files again, starting it when it is down; raises DeployFailed `proxy-down`."""

    def other_logs(self) -> tuple[str, ...]:
        """Return the access_log directives that hold for every site of this nginx."""

    def complaints(self) -> str:
        """Return the last errors nginx wrote since the last reload was asked for."""


def replace(tree: Tree, name: str, text: str | None, proven: Callable[[], bool]) -> None:
    """Make `text` the site `name` (None: no such site); raises DeployFailed with the previous text in force again."""
    place = tree.place(name)
    previous = place.read_bytes() if place.exists() else None
    tree.test(name, text)
    try:
        _put(place, text.encode() if text is not None else None)
        fail("reload.before")
        tree.reload()
        fail("reload.after")
        if not becomes_true(proven):
            words = tree.complaints() or "nginx wrote no error"
            raise DeployFailed(
                f"nginx took the new site file {place} but does not answer with it: {words}", code="proxy-reload"
            )
    except BaseException:
        _put(place, previous)
        if previous is not None:
            tree.reload()
        raise


def _put(place: Path, data: bytes | None) -> None:
    if data is None:
        place.unlink(missing_ok=True)
    else:
        write_atomic(place, data, 0o600)  # it holds the probe token; nginx reads it as root


def becomes_true(fact: Callable[[], bool]) -> bool:
    """Wait until a fact is true; False when it is not within `PROOF_SECONDS`."""
    deadline = time.monotonic() + PROOF_SECONDS
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True
