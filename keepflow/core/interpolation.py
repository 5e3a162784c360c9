"""`${NAME}` in the few fields that say so: replaced by values a job has; anything unknown is an error, never empty."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from keepflow.core.text import did_you_mean

_HOLE = re.compile(r"\$\{([^}]*)\}")
INPUT, MATRIX = "KEEPFLOW_INPUT_", "KEEPFLOW_MATRIX_"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

#: Variables every script job has; `interface` of the flow file: fields with `${NAME}` may use exactly these.
VARIABLES: tuple[str, ...] = (
    *(
        f"KEEPFLOW_{name}"
        for name in (
            *("PROJECT", "FLOW", "RUN", "RUN_URL", "JOB", "STEP", "ATTEMPT", "EVENT", "REF", "BRANCH", "TAG", "SHA"),
            *("MESSAGE", "ACTOR", "WORKSPACE", "REGISTRY", "IMAGE", "ENVIRONMENT"),
            *("FAILED_JOBS", "PULL_REQUEST", "TARGET_BRANCH", "HEAD_SHA", "IMAGE_TAG"),
        )
    ),
    *("BUILD_NUMBER", "BUILD_ID", "BUILD_URL", "BUILD_TAG", "JOB_NAME", "NODE_NAME", "WORKSPACE", "GIT_COMMIT"),
    *("GIT_URL", "JENKINS_URL", "JENKINS_HOME", "GIT_BRANCH", "BRANCH_NAME"),
)
#: What begins like this is given by the flow, and what it is.
_GIVEN = {INPUT: "an input of this flow", MATRIX: "an axis that every combination of this job's matrix has"}


def problem_of(text: str, given: Collection[str] | None = None) -> str | None:
    """Return a sentence about the first `${…}` that names no known variable or is not closed, or None.

    `given` are the inputs and the axes of a matrix that a job has, under their names as variables; None when that is
    not known here, and then any such name is taken.
    """
    for name in _HOLE.findall(text):
        if name in VARIABLES or (_is_input(name) if given is None else name in given):
            continue
        what = next((noun for prefix, noun in _GIVEN.items() if name.startswith(prefix)), "a variable of a job")
        return f"${{{name}}} is not {what}{did_you_mean(name, (*VARIABLES, *(given or ())))}"
    if "${" in _HOLE.sub("", text):
        return "'${' is not closed with '}'"
    return None


def interpolate(text: str, values: Mapping[str, str]) -> str:
    """Replace every `${NAME}` once; what a value contains is never looked at again.

    Raises KeyError, carrying the name, for a variable that has no value.
    """
    return _HOLE.sub(lambda hole: values[hole[1]], text)


def _is_input(name: str) -> bool:
    return name.startswith(tuple(_GIVEN)) and _NAME.fullmatch(name) is not None
