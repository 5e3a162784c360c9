"""`artifacts:` files of the checkout that are kept: for people to download, and for jobs that need this one."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from keepflow.config.fields import Model, OneOrMany, RelativePath, SpelledDuration
from keepflow.ports import StepContext


class Spec(Model):
    """Which files, and for how long."""

    #: paths or patterns inside the checkout: `*` stops at a slash, `**` does not, a directory is everything in it; each
    #: must fit at least one file
    paths: Annotated[tuple[RelativePath, ...], Field(min_length=1), OneOrMany()]
    #: how long they are kept, like `30d`; without it as long as the log of the run
    expire: SpelledDuration | None = None


def shorthand(value: str | list[str]) -> dict[str, Any]:
    """Read `artifacts: dist/*` and `artifacts: [dist/*, report.html]`."""
    return {"paths": value}


def title(spec: Spec) -> str:
    """Return what people see in a list."""
    return f"keep {', '.join(spec.paths)}"


def perform(spec: Spec, context: StepContext) -> int:
    """Keep the files; raises UsageError when a path fits none."""
    context.keep(spec.paths, spec.expire or 0.0)
    return 0
