"""The journals of deployments: what was meant, then what was done, each line on the disk before the next act.

    journal/open/kf-shop-main@17@d-4711.jsonl     a deployment that has not ended, or whose end was not yet reported
    journal/closed/…                              the last ones that ended, so that asking again never runs twice
    journal/fences.json                           the highest fence accepted per instance

A line that a crash tore off is dropped: nothing was done on its word, for every act comes after the fsync of its line.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from keepflow import errors
from keepflow.agent.deployment import Deployment, Outcome
from keepflow.core import names
from keepflow.core.states import Phase
from keepflow.tools.files import sync_directory, write_atomic

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_KEPT = 200  #: closed journals per instance
_WRITE = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class Journal:
    """The records of one deployment, in the order they were written. Each has `kind` and `at` (UTC microseconds)."""

    def __init__(self, path: Path, *, write: bool) -> None:
        """Read a journal file; only who holds its instance may open it to `write`, which cuts a torn last line off."""
        self.path = path
        self._descriptor = os.open(path, _WRITE if write else os.O_RDONLY | os.O_CLOEXEC, 0o600)
        try:
            self.records, good = _read(path)
        except FileNotFoundError:  # closed, and so moved, in this moment
            os.close(self._descriptor)
            raise
        if write and good < os.fstat(self._descriptor).st_size:
            os.ftruncate(self._descriptor, good)
            os.fsync(self._descriptor)

    def append(self, kind: str, **facts: Any) -> None:
        """Write one record and return when it is on the disk; raises OutOfSpace."""
        record = {"kind": kind, "at": time.time_ns() // 1000, **facts}
        line = json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        before = os.fstat(self._descriptor).st_size
        try:
            complete = os.write(self._descriptor, line) == len(line)
        except OSError:
            complete = False
        if not complete:
            os.ftruncate(self._descriptor, before)
            raise errors.OutOfSpace(f"{self.path}: the journal cannot be written; free some space")
        os.fsync(self._descriptor)
        self.records.append(record)

    def last(self, kind: str) -> dict[str, Any] | None:
        """Return the newest record of a kind, or None."""
        return next((record for record in reversed(self.records) if record["kind"] == kind), None)

    def has_act(self, act: str) -> bool:
        """Say whether an act was at least meant."""
        return any(record["kind"] == "intent" and record["act"] == act for record in self.records)

    def is_unfinished(self, act: str) -> bool:
        """Say whether an act was meant and nobody wrote that it was done."""
        return self.has_act(act) and not any(one["kind"] == "done" and one["act"] == act for one in self.records)

    @property
    def deployment(self) -> Deployment:
        """What this journal is about."""
        return Deployment.from_json(self.records[0]["deployment"])

    @property
    def outcome(self) -> Outcome | None:
        """How it ended, or None while it has not."""
        ended = self.last("outcome")
        return Outcome.from_json(ended["outcome"]) if ended else None

    @property
    def phase(self) -> Phase:
        """The phase entered last."""
        entered = self.last("phase")
        return Phase(entered["phase"]) if entered else Phase.ACCEPTED

    def entered(self, phase: Phase) -> int | None:
        """Return when a phase was first entered (UTC microseconds), or None."""
        times = (record["at"] for record in self.records if record["kind"] == "phase" and record["phase"] == phase)
        return next(times, None)

    def end(self) -> None:
        """Give the file back; it stays where it is."""
        os.close(self._descriptor)


class Journals:
    """All journals of one agent. Methods may be called from every thread and from several processes of the host."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open = root / "open"
        self._closed = root / "closed"
        for directory in (root, self._open, self._closed):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._nonces: dict[str, str] = {}  #: of every journal here, by deployment id
        with self._locked():
            for path in self._all():
                self._learn(path)

    def accept(self, deployment: Deployment) -> Journal:
        """Take a deployment on: from here it ends on this host, whatever happens.

        What a person on this host asks for has no number of the master's and shares the last one accepted. Raises
        StaleFence for an order that is not newer than all accepted before, Refused `known-deployment` or
        `replayed-nonce` for one that was here already, UsageError for an id that cannot be a file name.
        """
        if _ID.fullmatch(deployment.id) is None:
            raise errors.UsageError(f"not a deployment id: {deployment.id[:80]!r}")
        with self._locked():
            self._refuse_known(deployment)
            instance = f"{deployment.service}/{deployment.instance}"
            highest = self._fences().get(instance, 0)
            if deployment.fence < highest or (deployment.fence == highest and not deployment.by):
                raise errors.StaleFence(
                    f"order {deployment.id} has fence {deployment.fence}, but {highest} was already accepted for "
                    f"{instance}: a newer order was here first"
                )
            journal = Journal(self._path(deployment), write=True)
            journal.append("accepted", deployment=deployment.to_json())
            sync_directory(self._open)
            self._raise_fence(instance, deployment.fence)
            self._nonces[deployment.id] = deployment.nonce
        return journal

    def open_deployments(self) -> list[Deployment]:
        """Return the deployments that have not ended or whose end was not told, oldest fence first."""
        found = [one for one in _all_of(self._open.glob("*.jsonl")) if one.records]
        found.sort(key=lambda one: (one.deployment.fence, one.records[0]["at"]))
        return [one.deployment for one in found]

    def reopen(self, deployment: Deployment) -> Journal | None:
        """Open the journal of a deployment that has not ended; None when it has by now. Hold its instance for this."""
        path = self._path(deployment)
        return Journal(path, write=True) if path.exists() else None

    def is_open(self, service: str, instance: str) -> bool:
        """Say whether an instance has a deployment that has not ended; one whose end is still to be told has."""
        return not all(self._ends(service, instance).values())

    def has_untold(self, service: str, instance: str) -> bool:
        """Say whether an instance has a deployment that has not ended, or whose end was not told."""
        return any(self._open.glob(f"{names.prefix(service, instance)}@*.jsonl"))

    def at_work(self, service: str, instance: str) -> Deployment | None:
        """Return the deployment of an instance that was accepted last and has not ended, or None."""
        ends = self._ends(service, instance)
        under_way = list(_all_of(self._open / name for name, ended in ends.items() if not ended))
        return max(under_way, key=lambda one: one.records[0]["at"]).deployment if under_way else None

    def mark(self, service: str, instance: str) -> tuple[int, frozenset[tuple[str, bool]]]:
        """Return what is another one as soon as a deployment of an instance begins or ends: a look before is old then.

        The end of any other deployment here changes it as well.
        """
        return self._closed.stat().st_mtime_ns, frozenset(self._ends(service, instance).items())

    def find(self, deployment_id: str) -> tuple[Deployment, Phase, Outcome | None] | None:
        """Return what is known about a deployment that was accepted here, or None."""
        for found in _all_of(path for path in self._all() if path.name.endswith(f"@{deployment_id}.jsonl")):
            return found.deployment, found.phase, found.outcome
        return None

    def close(self, journal: Journal) -> None:
        """Put an ended and reported journal with the closed ones."""
        journal.end()
        journal.path.rename(self._closed / journal.path.name)
        sync_directory(self._closed)
        sync_directory(self._open)
        self._prune(journal.path.name.partition("@")[0])

    def highest_fence(self, service: str, instance: str) -> int:
        """Return the highest fence accepted for an instance, 0 when none was."""
        return self._fences().get(f"{service}/{instance}", 0)

    def highest_of_all(self) -> int:
        """Return the highest fence accepted on this host."""
        return max(self._fences().values(), default=0)

    def _path(self, deployment: Deployment) -> Path:
        prefix = names.prefix(deployment.service, deployment.instance)
        return self._open / f"{prefix}@{deployment.fence}@{deployment.id}.jsonl"

    def _ends(self, service: str, instance: str) -> dict[str, bool]:
        """Return of each journal that is not closed, by file name, whether its deployment has ended."""
        found = _all_of(self._open.glob(f"{names.prefix(service, instance)}@*.jsonl"))
        return {one.path.name: one.outcome is not None for one in found}

    def _all(self) -> list[Path]:
        return [*self._open.glob("*.jsonl"), *self._closed.glob("*.jsonl")]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _refuse_known(self, deployment: Deployment) -> None:
        if deployment.id in self._nonces:
            raise errors.Refused(f"deployment {deployment.id} was here already", code="known-deployment")
        if deployment.nonce in self._nonces.values():
            raise errors.Refused(f"the nonce of order {deployment.id} was used before", code="replayed-nonce")

    def _learn(self, path: Path) -> None:
        """Learn from a journal what was here; one torn in its first line was never promised to anybody, and goes."""
        records, _ = _read(path)
        if not records:
            path.unlink()
            return
        known = Deployment.from_json(records[0]["deployment"])
        self._nonces[known.id] = known.nonce
        self._raise_fence(f"{known.service}/{known.instance}", known.fence)

    def _fences(self) -> dict[str, int]:
        try:
            fences: dict[str, int] = json.loads((self._root / "fences.json").read_bytes())
        except FileNotFoundError:
            return {}
        return fences

    def _raise_fence(self, instance: str, fence: int) -> None:
        fences = self._fences()
        if fence <= fences.get(instance, 0):
            return
        fences[instance] = fence
        write_atomic(self._root / "fences.json", json.dumps(fences, indent=1, sort_keys=True).encode(), 0o600)

    def _prune(self, prefix: str) -> None:
        closed = sorted(self._closed.glob(f"{prefix}@*.jsonl"), key=lambda path: int(path.name.split("@")[1]))
        for path in closed[:-_KEPT]:
            path.unlink(missing_ok=True)


def _all_of(paths: Iterable[Path]) -> Iterator[Journal]:
    """Read journals; one that was closed, and so moved, since its name was listed is looked for where it is now."""
    for path in paths:
        for place in (path, path.parent.with_name("closed") / path.name):
            with suppress(FileNotFoundError):
                journal = Journal(place, write=False)
                journal.end()
                yield journal
                break


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the whole records of a file and how many bytes they take."""
    records: list[dict[str, Any]] = []
    good = 0
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            record = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            record = None
        if not isinstance(record, dict) or "kind" not in record:
            break
        records.append(record)
        good += len(line)
    return records, good
