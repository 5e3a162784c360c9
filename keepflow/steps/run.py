"""`run:` a shell script that stops at its first failing line and shows each command before its output.

The whole step is one `sh -e -c PROGRAM`: the program is the script with a `printf` before each command, so showing
costs no process, and quotes, variables and directories behave as in the script itself. A script that begins with its
own `#!` line is written to a file and given to its interpreter instead; then failing is the interpreter's business.
"""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from keepflow.config.fields import Model, bad
from keepflow.core.text import one_line
from keepflow.ports import StepContext
from keepflow.steps._commands import commands, prompted, shown

CONTAINED = True  #: `image:` says in which container
_ARGUMENT_LIMIT = 120_000  #: bytes; Linux refuses to start a program with one argument of 128 KiB
_SHEBANG = re.compile(r"#![ \t]*(\S+)(?:[ \t]+(\S[^\n]*?))?[ \t]*(?:\n|\Z)")
_OWN_INTERPRETER = """directory=$(mktemp -d) || exit
trap 'rm -rf "$directory"' EXIT
printf '%s' "$1" >"$directory/script" || exit
printf '%s\\n' "$2" >&2
shift 2
"$@" "$directory/script"
"""


def _joined(value: Any) -> Any:
    """Make one script of a list of lines."""
    if not isinstance(value, list | tuple):
        return value
    for number, line in enumerate(value, start=1):
        if not isinstance(line, str | int | float) or isinstance(line, bool):
            raise bad("wrong-type", f"line {number} of the script is not text; put a line that holds ': ' in quotes")
    return "\n".join(str(line) for line in value)


def _runnable(script: str) -> str:
    if "\0" in script or (not any(shown(piece) for piece in commands(script)) and not script.startswith("#!")):
        raise bad("empty", "the script holds no command")
    if max(len(part.encode()) for part in argv(script)) > _ARGUMENT_LIMIT:
        raise bad("too-long", "the script is too long; put it into a file of the repository and run that")
    return script


class Spec(Model):
    """A script, as text or as a list of lines."""

    #: the commands; the first one that fails fails the step
    script: Annotated[
        str,
        BeforeValidator(_joined),
        AfterValidator(_runnable),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
    ]


def shorthand(value: str | list[str]) -> dict[str, Any]:
    """Read `run: make` and `run: [make, make install]`."""
    return {"script": value}


def title(spec: Spec) -> str:
    """Return the first line that does something, with an ellipsis when it is not all, as people see it in a list."""
    pieces = [spec.script] if spec.script.startswith("#!") else [shown(piece) for piece in commands(spec.script)]
    first, _, rest = "\n".join(filter(None, pieces)).removeprefix("$ ").strip().partition("\n")
    line = one_line(first, 76)
    return line if line.endswith("…") or not rest else f"{line} …"


def perform(spec: Spec, context: StepContext) -> int:
    """Run the script; its exit code is the step's."""
    return context.sh(argv(spec.script), {})


def argv(script: str) -> tuple[str, ...]:
    """Return the one command that is this whole script."""
    interpreter = _SHEBANG.match(script)
    if interpreter:
        parts = [part for part in interpreter.groups() if part]
        return ("sh", "-c", _OWN_INTERPRETER, "sh", script, prompted(script.split("\n")), *parts)
    return ("sh", "-e", "-c", "".join(_announced(piece) for piece in commands(script)))


def _announced(piece: str) -> str:
    text = shown(piece)
    return f"printf '%s\\n' {shlex.quote(text)} >&2 || :\n{piece}" if text else piece
