"""What the steps that call the `docker` command share: filled-in references, a shown command line, said outputs."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Sequence

from keepflow.core.interpolation import interpolate
from keepflow.core.releases import ImageRef
from keepflow.core.text import quoted
from keepflow.errors import Refused, UsageError
from keepflow.ports import StepContext

_APPEND = 'printf "%s\\n" "$1" >>"$2"'
_OUTPUT_LIMIT = 64 * 1024  #: bytes


def filled(text: str, context: StepContext) -> str:
    """Replace `${NAME}` by what the job has; raises UsageError for a name that has no value in this job."""
    try:
        return interpolate(text, context.env)
    except KeyError as error:
        raise UsageError(f"${{{error.args[0]}}} has no value in this job") from None


def reference(text: str, context: StepContext) -> ImageRef:
    """Return a filled-in image reference; raises UsageError when what came out is none."""
    name = filled(text, context)
    try:
        return ImageRef.parse(name)
    except ValueError:
        hint = "a branch name may hold characters no tag can have: use ${BUILD_NUMBER} or ${KEEPFLOW_SHA}"
        raise UsageError(f"{quoted(name)} is not an image reference ({hint})") from None


def need_engine(context: StepContext) -> None:
    """Raise Refused before a command is begun that can only end with an engine that cannot be reached."""
    if context.no_engine:
        raise Refused(context.no_engine, code="no-engine")


def call(argv: Sequence[str], context: StepContext) -> int:
    """Show a command, then run it; returns its exit code."""
    context.say(f"$ {shlex.join(argv)}\n")
    return context.sh(argv, {})


def output(context: StepContext, key: str, value: str) -> int:
    """Tell later steps and the agent one thing; returns an exit code.

    Written by the job's own account, not by the agent: the file is the job's, so it may have become a link to anywhere.
    """
    return context.sh(["sh", "-c", _APPEND, "sh", f"{key}={value}", str(context.output_file)], {})


def last_output(context: StepContext, key: str) -> str | None:
    """Return what was told last under a key, or None; only a plain file of a sane size is read."""
    try:
        descriptor = os.open(context.output_file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        plain = stat.S_ISREG(os.fstat(descriptor).st_mode)
        text = os.pread(descriptor, _OUTPUT_LIMIT, 0).decode(errors="replace") if plain else ""
    finally:
        os.close(descriptor)
    values = [
        value.strip() for name, _, value in (line.partition("=") for line in text.split("\n")) if name.strip() == key
    ]
    return values[-1] if values else None
