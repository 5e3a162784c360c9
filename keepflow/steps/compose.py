"""`compose:` runs a Compose file until one of its services ends; that one's exit code is the step's.

It uses the host's engine, so its flow must be in `docker_for`. The project's name belongs to this attempt alone, and
everything of it is taken down when the step ends, however it ends.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from keepflow.config.fields import Line, Model, OneOrMany, RelativePath
from keepflow.core.boxes import compose_project
from keepflow.core.text import quoted
from keepflow.errors import ProgramMissing
from keepflow.executors.shell import MARK
from keepflow.ports import StepContext
from keepflow.steps._docker import call, need_engine

_PLUGIN = ("docker", "compose")
_PROGRAM = ("docker-compose",)
_FOUND = '"$@" version >/dev/null 2>&1'


class Spec(Model):
    """Which files, and which service decides."""

    #: Compose files inside the repository; later ones add to the ones before
    file: Annotated[tuple[RelativePath, ...], Field(min_length=1), OneOrMany()]
    service: Line | None = None  #: the service whose end and exit code are the step's; without it the first that ends


def shorthand(value: str | list[str]) -> dict[str, Any]:
    """Read `compose: test-compose.yml`."""
    return {"file": value}


def title(spec: Spec) -> str:
    """Return what people see in a list."""
    return f"compose {' '.join(spec.file)}"


def perform(spec: Spec, context: StepContext) -> int:
    """Bring the services up, wait for the end, and take all of it down.

    Raises ProgramMissing without Compose, Refused when the job may not use the engine.
    """
    need_engine(context)
    argv = [*_program(context), "--project-name", compose_project(context.env[MARK])]
    argv += [part for file in spec.file for part in ("--file", file)]
    context.at_end([*argv, "down", "--volumes", "--remove-orphans", "--rmi", "local", "--timeout", "5"])
    decides = ["--exit-code-from", spec.service] if spec.service else []
    return call([*argv, "up", "--build", "--abort-on-container-exit", "--no-color", *decides], context)


def _program(context: StepContext) -> tuple[str, ...]:
    for program in (_PLUGIN, _PROGRAM):
        if context.sh(["sh", "-c", _FOUND, "sh", *program], {}) == 0:
            return program
    names = " nor ".join(quoted(" ".join(program)) for program in (_PLUGIN, _PROGRAM))
    raise ProgramMissing(f"this machine has neither {names}; on Debian: apt-get install docker-compose")
