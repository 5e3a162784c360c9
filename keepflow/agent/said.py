"""What the steps of a job say in their files, taken out of them: images, and variables for the jobs behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keepflow.agent import environment, outputs
from keepflow.agent.masks import masked
from keepflow.agent.recording import Recording
from keepflow.agent.task import Task
from keepflow.wire.messages import BuiltImage


@dataclass(frozen=True, slots=True)
class Said:
    """Reads the files of one job; what is wrong in them is said in its log."""

    task: Task
    recording: Recording

    def read(self, path: Path) -> list[tuple[str, str]]:
        """Return the names and values of a file, in their order."""
        pairs, complaints = outputs.read(path)
        for complaint in complaints:
            self.recording.say_line(complaint)
        return pairs

    def outputs(self, told: Sequence[tuple[str, str]]) -> dict[str, str]:
        """Return what the job tells the jobs behind it; a value that holds a lent secret stays here."""
        found = environment.added({key: value for key, value in told if key not in outputs.WORDS})
        for key in [key for key, value in found.items() if masked(value, self.task.needles) != value]:
            self.recording.say_line(f"{key} holds a secret and is not given to other jobs")
            del found[key]
        return found

    def images(self, told: Sequence[tuple[str, str]]) -> tuple[BuiltImage, ...]:
        """Return the images that engine and registry know by the words of the job; raises what they raise."""
        found = self.task.host.images.resolve(told, self.task.order, with_engine=self.task.engine)
        for image in found:
            self.task.host.kept_images.came(image.image_id, image.reference, built=True)
        return found
