"""What every executor must do, whatever it is called: added executors are tested before their author writes a test."""

from __future__ import annotations

import inspect
import os
import time
from pathlib import Path
from types import ModuleType

import pytest

from keepflow.errors import ProgramMissing
from keepflow.ports import Command, Executor, Running, discover

EXECUTORS = discover("keepflow.executors")
every_executor = pytest.mark.parametrize("module", list(EXECUTORS.values()), ids=list(EXECUTORS))


def executor_of(module: ModuleType) -> Executor:
    """Make the one executor of a file, as it comes."""
    found = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__ and hasattr(kind, "start")
    ]
    assert len(found) == 1, f"{module.__name__} holds {len(found)} executors"
    made: Executor = found[0]()
    return made


def start(module: ModuleType, place: Path, *argv: str, **env: str) -> Running:
    """Start a command whose output goes to the end of the file `out`."""
    with (place / "out").open("ab") as output:
        command = Command(argv, {"PATH": os.environ["PATH"], **env}, place)
        return executor_of(module).start(command, output, place / "result")


def test_the_executors_of_today_are_found_by_file_name() -> None:
    assert {"shell"} <= set(EXECUTORS)


@every_executor
@pytest.mark.parametrize("code", [0, 7])
def test_the_exit_code_is_returned_and_written(module: ModuleType, tmp_path: Path, code: int) -> None:
    assert start(module, tmp_path, "sh", "-c", f"exit {code}").wait(30) == code
    assert (tmp_path / "result").read_text() == f"{code}\n"


@every_executor
def test_output_goes_to_the_end_of_the_file_in_order(module: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("before\n")
    start(module, tmp_path, "sh", "-c", 'echo one; echo "$WORD" >&2', WORD="$(id)").wait(30)
    assert (tmp_path / "out").read_text() == "before\none\n$(id)\n"


@every_executor
def test_a_command_runs_where_it_was_told(module: ModuleType, tmp_path: Path) -> None:
    start(module, tmp_path, "pwd").wait(30)
    assert (tmp_path / "out").read_text() == f"{tmp_path}\n"


@every_executor
def test_kill_ends_it_with_its_children_and_returns_when_they_are_gone(module: ModuleType, tmp_path: Path) -> None:
    script = "trap '' TERM; (trap '' TERM; while :; do echo x; sleep 0.02; done) & sleep 600; sleep 600"
    running = start(module, tmp_path, "sh", "-c", script)
    assert running.wait(0.3) is None
    running.kill(0.1)
    size = (tmp_path / "out").stat().st_size
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        assert (tmp_path / "out").stat().st_size == size, "something still writes"
    assert running.wait(0) is not None


@every_executor
def test_a_missing_program_is_told(module: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ProgramMissing):
        start(module, tmp_path, "no-such-program")
