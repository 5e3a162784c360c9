"""The images that this agent pulled for jobs, or that jobs built here: the only ones it ever removes for room."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from keepflow import errors
from keepflow.core import names
from keepflow.core.pruning import Item
from keepflow.core.releases import ImageRef
from keepflow.tools.engine import Engine
from keepflow.tools.files import write_atomic

KIND = "image"
_FRESH = 3600.0  #: seconds after its last use in which an image is some job's that has not begun with it yet
_FACTS = "{{.Id}}\t{{.Size}}\t{{json .RepoTags}}"


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of an image: the name it was pulled or built under, and its last use (UTC seconds)."""

    reference: str
    built: bool
    used_at: float


class KeptImages:
    """The record on disk, by image id; processes may use it side by side."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock

    def came(self, image_id: str, reference: str, *, built: bool = False) -> None:
        """Note an image that was pulled or built for a job just now."""
        with self._changing() as records:
            records[image_id] = Record(reference, built, self._clock())

    def used(self, image_id: str) -> None:
        """Note that a job uses an image; of one that somebody else brought nothing is noted."""
        with self._changing() as records:
            if (known := records.get(image_id)) is not None:
                records[image_id] = Record(known.reference, known.built, self._clock())

    def items(self, engine: Engine) -> list[Item]:
        """List the images that are still there, and why those stay that must. Raises Unavailable, CommandFailed."""
        with self._changing() as records:
            there = _facts(engine, records)
            for image_id in records.keys() - there.keys():
                del records[image_id]
            known = dict(records)
        in_use = _in_use(engine) if known else set()
        newest = _newest_built(known)
        return [
            Item(
                KIND,
                image_id,
                there[image_id][0],
                record.used_at,
                self._why(record, tags=there[image_id][1], in_use=image_id in in_use, newest=image_id in newest),
            )
            for image_id, record in known.items()
        ]

    def remove(self, engine: Engine, image_id: str) -> bool:
        """Take away the name it came under, and it, unless it has others; False when a container has it after all."""
        with self._changing() as records:
            record = records.get(image_id)
            if record is None:
                return False
            if engine.image_id(record.reference) == image_id:
                engine.docker("image", "rm", "--", record.reference, check=False)
            there = _facts(engine, [image_id]).get(image_id)
            if there is not None and not there[1]:
                engine.docker("image", "rm", "--", image_id, check=False)
                there = _facts(engine, [image_id]).get(image_id)
            if there is not None and record.reference in there[1]:
                return False
            del records[image_id]
            return there is None

    def named(self, image_id: str) -> str:
        """Return the name that an image came under."""
        record = self._read().get(image_id)
        return record.reference if record else image_id

    def _why(self, record: Record, *, tags: list[str], in_use: bool, newest: bool) -> str:
        if in_use:
            return "a container has it"
        if any(names.is_keep_tag(tag) for tag in tags):
            return "a service here may go back to it"
        if newest:
            return "the newest that was built of its name"
        return "a job used it just now" if self._clock() - record.used_at < _FRESH else ""

    def _read(self) -> dict[str, Record]:
        try:
            return {key: Record(**one) for key, one in json.loads(self._path.read_bytes()).items()}
        except FileNotFoundError:
            return {}

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Record]]:
        """Hold the record for a change, which is written when there was one."""
        lock = os.open(self._path.with_name(f"{self._path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            records = self._read()
            before = dict(records)
            yield records
            if records != before:
                plain = {key: asdict(one) for key, one in records.items()}
                write_atomic(self._path, json.dumps(plain, indent=1).encode(), 0o600)
        finally:
            os.close(lock)


def _facts(engine: Engine, image_ids: Mapping[str, Record] | list[str]) -> dict[str, tuple[int, list[str]]]:
    """Return size and tags of those images that are on the engine; raises Unavailable when it does not answer."""
    if not image_ids:
        return {}
    engine.docker("version", "--format", "{{.Server.Version}}")  # raises: no answer is not "all of them are gone"
    done = engine.docker("image", "inspect", "--format", _FACTS, "--", *image_ids, check=False)
    found = {}
    for line in filter(None, done.text.splitlines()):  # an empty line stands for what is not there
        image_id, size, tags = line.split("\t")
        found[image_id] = (int(size), json.loads(tags) or [])
    return found


def _in_use(engine: Engine) -> set[str]:
    """Return the ids of the images of all containers, running or not."""
    containers = engine.docker("container", "ls", "--all", "--quiet", "--no-trunc").text.split()
    if not containers:
        return set()
    done = engine.docker("container", "inspect", "--format", "{{.Image}}", *containers, check=False)
    if done.exit_code and b"o such" not in done.stderr:
        raise errors.Unavailable("the engine does not say which images its containers have", code="engine")
    return set(done.text.split())


def _newest_built(records: Mapping[str, Record]) -> set[str]:
    """Return the newest image of each repository that jobs built here."""
    newest: dict[str, str] = {}
    for image_id, record in sorted(records.items(), key=lambda pair: -pair[1].used_at):
        if record.built:
            repository = ImageRef.parse(record.reference).repository
            newest.setdefault(repository, image_id)
    return set(newest.values())
