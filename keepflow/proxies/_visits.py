"""The record of what visitors were answered: lines that nginx writes while the flag `count` stands.

    1789000000.123 200 kf_shop_main_green_net 10.213.0.3:8080, 10.213.0.2:8080

the moment of the answer, its status, the group of slots nginx chose, and the addresses it asked, the last of which
answered. The file is emptied when counting begins and whenever it was read to its end and has grown too long.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from keepflow.ports import Visit

_LONGEST = 32 * 1024 * 1024  #: bytes after which a record that was read is emptied
_PIECE = 4 * 1024 * 1024  #: bytes read at once


class Record:
    """The record of one instance; nobody but one deployment reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def clear(self) -> None:
        """Empty it; nginx, which appends, goes on at its beginning."""
        if self.path.exists():
            os.truncate(self.path, 0)

    def read(self, position: int, slots: Mapping[str, str]) -> tuple[list[Visit], int]:
        """Return the visits of whole lines from a position on and the position after them; `slots` by address."""
        try:
            with self.path.open("rb") as file:
                file.seek(position)
                data = file.read(_PIECE)
        except OSError:  # not there yet, or the disk is in trouble: the probes go on without it
            return [], position
        whole, newline, rest = data.rpartition(b"\n")
        visits = [visit for line in whole.split(b"\n") if (visit := parse(line.decode(errors="replace"), slots))]
        position += len(whole) + len(newline)
        if position > _LONGEST and not rest:
            self.clear()
            position = 0
        return visits, position


def parse(line: str, slots: Mapping[str, str]) -> Visit | None:
    """Read one line; None for one that no application was asked for, or that is torn."""
    moment, _, others = line.partition(" ")
    status, _, others = others.partition(" ")
    group, _, asked = others.partition(" ")
    if asked in ("", "-") or not status.isdigit():
        return None
    try:
        at = float(moment)
    except ValueError:
        return None
    meant = next((slot for slot in ("blue", "green") if group.removesuffix("_net").endswith(f"_{slot}")), None)
    return Visit(at, int(status), meant, slots.get(asked.replace(" : ", ", ").split(", ")[-1]))
