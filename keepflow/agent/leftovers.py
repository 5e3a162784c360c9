"""What attempts at jobs have on the engine, found by labels and removed: when a job ends, and when the agent starts."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection

from keepflow import errors
from keepflow.core import boxes, names
from keepflow.tools.engine import Engine


def remove(engine: Engine, mark: str) -> None:
    """Remove everything that was made for one attempt, by Compose as well. Raises Unavailable, CommandFailed."""
    engine.remove_labelled({names.LABEL_ATTEMPT: mark})
    _remove_compose(engine, lambda project: project == boxes.compose_project(mark))


def end_compose(engine: Engine, mark: str) -> None:
    """End at once what Compose runs for an attempt that was stopped and had its time for it. Raises nothing."""
    with contextlib.suppress(errors.KeepflowError):  # what is left is taken down with the job
        project = f"label={names.LABEL_COMPOSE}={boxes.compose_project(mark)}"
        if running := engine.docker("container", "ls", "--quiet", "--filter", project).text.split():
            engine.docker("kill", *running, check=False)


def sweep(engine: Engine, agent: str, going_on: Collection[str]) -> int:
    """Remove what jobs of an agent that was killed left, whether it still knows them or not, and return the count.

    `agent` is the id of its key; `going_on` are the marks of the attempts that it takes up.
    """
    found = engine.remove_labelled({names.LABEL_AGENT: agent, names.LABEL_ATTEMPT: ""}, spare=going_on.__contains__)
    ours = re.compile(boxes.compose_project(boxes.mark_pattern(agent)))
    spared = {boxes.compose_project(mark) for mark in going_on}
    found += _remove_compose(engine, lambda project: bool(ours.fullmatch(project)) and project not in spared)
    return len(found)


def _remove_compose(engine: Engine, wanted: Callable[[str], bool]) -> list[str]:
    """Remove what Compose made under the names of these projects, and the images that it named after them."""
    found = engine.remove_labelled({names.LABEL_COMPOSE: ""}, spare=lambda project: not wanted(project))
    named = ("--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={boxes.compose_project('*')}")
    listed = engine.docker("image", "ls", *named).text.split()  # by name: others may have built the same
    images = [image for image in listed if wanted(boxes.project_of(image))]
    if images:
        engine.docker("image", "rm", "--force", *images, check=False)
    return [*found, *images]
