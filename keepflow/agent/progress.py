"""How far an attempt has come, on its disk: what the next process of the agent needs to take it up where it is.

Lines of JSON, each written before what it says is done or told. They are not synced: after a power cut there is nothing
left to take up, and an attempt that had begun is lost.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from keepflow.tools.machine import boot_id
from keepflow.wire.messages import BuiltImage


@dataclass(frozen=True, slots=True)
class Stop:
    """Somebody wants the job to end now. `state` is what it will have been."""

    code: str
    sentence: str
    grace: float
    state: Literal["cancelled", "lost", "failed"] = "cancelled"
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended."""

    state: Literal["succeeded", "failed", "cancelled", "lost"]
    code: str = ""
    sentence: str = ""
    exit_code: int | None = None
    images: tuple[BuiltImage, ...] = ()
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Start:
    """Where the steps of a job run, and since when it has time, on the clock that begins with the machine."""

    workspace: str
    at: float


@dataclass(frozen=True, slots=True)
class StepEnd:
    """How a step ended: its exit code, its last line in the log, and the end of the whole job when it brought that."""

    code: int
    line: str
    ending: Ending | None = None


class Progress:
    """The notes of one attempt; made anew they are what an earlier process wrote.

    `start` is None until its steps began. `marks` is the count of marks in the log when the `ending` was decided.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.start: Start | None = None
        self.same_boot = True  #: whether this machine still runs since the steps began
        self.stop: Stop | None = None
        self.began: dict[int, float] = {}  #: step → when, on the clock that begins with the machine
        self.ended: dict[int, StepEnd] = {}
        self.ending: Ending | None = None
        self.marks = 0
        self.complete = False  #: whether the log holds everything
        for line in path.read_text().split("\n")[:-1] if path.exists() else ():
            self._take(json.loads(line))

    def begin(self, start: Start) -> None:
        """Note that the steps begin."""
        self._note({"start": asdict(start), "boot": boot_id()})

    def begin_step(self, index: int, at: float) -> None:
        """Note that a step begins."""
        self._note({"step": index, "at": at})

    def end_step(self, index: int, end: StepEnd) -> None:
        """Note how a step ended."""
        self._note({"step": index, "end": asdict(end) | {"ending": _plain(end.ending)}})

    def stop_for(self, stop: Stop) -> None:
        """Note that the job is to end; the first reason stays."""
        self._note({"stop": asdict(stop)})

    def end(self, ending: Ending, marks: int) -> None:
        """Note how the job ended; only its last words are still to be said."""
        self._note({"ending": _plain(ending), "marks": marks})

    def complete_log(self) -> None:
        """Note that everything is in the log; only the end is still to be reported."""
        self._note({"complete": True})

    def _note(self, note: dict[str, Any]) -> None:
        line = json.dumps(note).encode() + b"\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
        self._take(note)

    def _take(self, note: dict[str, Any]) -> None:
        match note:
            case {"start": start, "boot": boot}:
                self.start, self.same_boot = Start(**start), boot == boot_id()
            case {"step": index, "at": at}:
                self.began[index] = at
            case {"step": index, "end": end}:
                self.ended[index] = StepEnd(**end | {"ending": _ending(end["ending"])})
            case {"stop": stop}:
                self.stop = self.stop or Stop(**stop)
            case {"ending": ending, "marks": marks}:
                self.ending, self.marks = _ending(ending), marks
            case {"complete": complete}:
                self.complete = complete


def _plain(ending: Ending | None) -> dict[str, Any] | None:
    if ending is None:
        return None
    images = [image.model_dump(mode="json") for image in ending.images]
    plain = {name: getattr(ending, name) for name in ("state", "code", "sentence", "exit_code")}
    return {**plain, "images": images, "outputs": dict(ending.outputs)}


def _ending(plain: dict[str, Any] | None) -> Ending | None:
    if plain is None:
        return None
    return Ending(**plain | {"images": tuple(BuiltImage.model_validate(image) for image in plain["images"])})
