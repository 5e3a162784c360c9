"""The flag directory of one instance: what nginx looks at per request, switched by one rename.

    <root>/kf-shop-main/
        states/0041-blue/        each state is a directory of empty files, complete before it gets its name,
        states/0042-green-net/   never edited afterwards
        cur -> states/0042-green-net     the only thing a switch changes

Every level is 0755, whatever the umask: nginx's workers must be able to look, and one that cannot says nothing.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from keepflow.core import names
from keepflow.core.canary import PERCENTS
from keepflow.ports import Traffic
from keepflow.tools.failpoints import fail
from keepflow.tools.files import sync_directory

CANARY_PERCENT = PERCENTS
#: Words of a canary: the percent, and the slot they go to.
CANARY = {f"c{percent}{slot[0]}": (percent, slot) for percent in CANARY_PERCENT for slot in names.SLOTS}
_WORDS = frozenset({*names.SLOTS, "net", "maint", "count", *CANARY})
_STATE_NAME = re.compile(r"([0-9]{4,})-[a-z0-9-]+")
_KEPT_STATES = 5  #: a few, for a person who looks at what happened


class Flags:
    """The states of one instance; every method works on the disk alone."""

    def __init__(self, root: Path, name: str) -> None:
        self.place = root / name
        self.current = self.place / "cur"
        self._states = self.place / "states"

    def read(self) -> frozenset[str] | None:
        """Return the words in force, or None when there is no state (never switched, or `cur` points nowhere)."""
        try:
            return frozenset(path.name for path in self.current.iterdir()) & _WORDS
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put(self, words: Iterable[str]) -> None:
        """Put a state in force, durably; on a full disk a kept one of the same words, so that going back works there.

        Raises ValueError for words that are no state, and OSError with the old state in force.
        """
        chosen = checked(words)
        moves = {*chosen} - {"count"} != (self.read() or set()) - {"count"}
        for directory in (*reversed(self._missing_parents()), self.place, self._states):
            directory.mkdir(exist_ok=True)
            directory.chmod(0o755)
            sync_directory(directory.parent)
        number = self._last_number() + 1
        name = self._laid_down(f"{number:04d}", "-".join(chosen), chosen)
        if moves:
            fail("flags.before-rename")
        link = self.place / f".cur-{name}"
        link.unlink(missing_ok=True)
        link.symlink_to(Path("states") / name)
        link.replace(self.current)
        if moves:
            fail("flags.after-rename")
        sync_directory(self.place)
        self._prune(number)

    def remove(self) -> None:
        """Take everything away; gone already is fine."""
        shutil.rmtree(self.place, ignore_errors=True)

    def _missing_parents(self) -> list[Path]:
        return [parent for parent in self.place.parents if not parent.exists()]

    def _last_number(self) -> int:
        return max((number for number, _ in self._numbered()), default=0)

    def _numbered(self) -> list[tuple[int, Path]]:
        found = ((_STATE_NAME.fullmatch(path.name), path) for path in self._states.iterdir())
        return sorted((int(match[1]), path) for match, path in found if match)

    def _laid_down(self, number: str, words: str, chosen: Iterable[str]) -> str:
        """Write a state and return its name; without room for it, return that of the newest kept one of these words."""
        try:
            self._write_state(f"{number}-{words}", chosen)
        except OSError as error:
            kept = [path.name for _, path in self._numbered() if path.name.partition("-")[2] == words]
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not kept:
                raise
            return kept[-1]
        return f"{number}-{words}"

    def _write_state(self, name: str, words: Iterable[str]) -> None:
        unfinished = self._states / f".{name}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        unfinished.chmod(0o755)
        for word in words:
            with (unfinished / word).open("wb") as file:
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
        sync_directory(unfinished)
        unfinished.replace(self._states / name)
        sync_directory(self._states)

    def _prune(self, newest: int) -> None:
        current = self.current.readlink().name
        for number, path in self._numbered():
            if number <= newest - _KEPT_STATES and path.name != current:
                shutil.rmtree(path, ignore_errors=True)


def checked(words: Iterable[str]) -> tuple[str, ...]:
    """Return the words of a state in their fixed order: the slot first. Raises ValueError when they are no state."""
    chosen = set(words)
    if strange := chosen - _WORDS:
        raise ValueError(f"not a flag: {', '.join(sorted(strange))}")
    slots = chosen & set(names.SLOTS)
    if chosen != {"maint"} and len(slots) != 1:
        raise ValueError("a state names exactly one of blue and green, or is maint alone")
    canaries = chosen & CANARY.keys()
    if len(canaries) > 1 or any(CANARY[word][1] in slots for word in canaries):
        raise ValueError("a state has at most one canary, and it goes to the other slot")
    return (*sorted(slots), *sorted(chosen - slots))


def words_of(traffic: Traffic) -> tuple[str, ...]:
    """Return the words of a traffic; raises ValueError for one that sends visitors nowhere."""
    words = {traffic.slot} if traffic.slot else set()
    for word, wanted in (("net", traffic.net), ("maint", traffic.maintenance), ("count", traffic.counted)):
        if wanted:
            words.add(word)
    if traffic.canary:
        words.add(f"c{traffic.canary}{names.other_slot(traffic.slot or '')[0]}")
    return checked(words)


def traffic_of(words: frozenset[str] | None) -> Traffic | None:
    """Return what a state on disk means, or None when it is none that keepflow would write."""
    if words is None:
        return None
    try:
        checked(words)
    except ValueError:
        return None
    slot = next(iter(words & set(names.SLOTS)), None)
    canary = next((CANARY[word][0] for word in words & CANARY.keys()), 0)
    return Traffic(slot, net="net" in words, maintenance="maint" in words, canary=canary, counted="count" in words)
