"""What every step kind must do: added kinds are tested before their author writes a test."""

from __future__ import annotations

import subprocess
import sys
import typing
from types import ModuleType

import pytest
from pydantic import BaseModel

from keepflow.core.flows import JOB_KEYS
from keepflow.ports import discover

KINDS = discover("keepflow.steps")
every_kind = pytest.mark.parametrize("kind", list(KINDS.values()), ids=list(KINDS))
HEAVY = ("docker", "sqlalchemy", "flask", "git", "requests", "paramiko", "jinja2")


def test_the_kinds_of_today_are_found_by_file_name() -> None:
    assert {"run", "build", "push"} <= set(KINDS)


def test_no_step_kind_takes_the_name_of_a_job() -> None:
    assert not JOB_KEYS & set(KINDS)


@every_kind
def test_a_kind_refuses_unknown_settings(kind: ModuleType) -> None:
    assert issubclass(kind.Spec, BaseModel)
    assert kind.Spec.model_config["extra"] == "forbid"


@every_kind
def test_a_kind_says_what_its_short_form_takes(kind: ModuleType) -> None:
    hints = typing.get_type_hints(kind.shorthand)
    assert "value" in hints, "the schema for editors is made from this annotation"
    assert callable(kind.title)
    assert callable(kind.perform)


def test_importing_every_kind_loads_nothing_heavy() -> None:
    program = (
        "import sys; from keepflow.ports import discover; discover('keepflow.steps');"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
