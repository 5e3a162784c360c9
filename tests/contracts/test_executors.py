"""What every executor must do, whatever it is called: added executors are tested before their author writes a test."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Protocol

import pytest

from keepflow.errors import ProgramMissing, Unavailable
from keepflow.executors.docker import Docker
from keepflow.executors.shell import Shell
from keepflow.executors.ssh import Ssh
from keepflow.ports import Command, Executor, Running, discover
from keepflow.tools.engine import Engine
from tests.real.boxes import box
from tests.real.engines import Engine as RealEngine
from tests.real.sshd import Sshd, remote, sshd

EXECUTORS = discover("keepflow.executors")
pytestmark = pytest.mark.real


class Bench(Protocol):
    """What makes the executor of one file ready to run commands in a place. New executors are entered in BENCHES."""

    def __call__(self, place: Path, request: pytest.FixtureRequest) -> AbstractContextManager[Executor]: ...


@contextmanager
def in_a_shell(_place: Path, _request: pytest.FixtureRequest) -> Iterator[Executor]:
    """Run on this machine."""
    yield Shell()


@contextmanager
def in_a_box(place: Path, request: pytest.FixtureRequest) -> Iterator[Executor]:
    """Run in a container that has the place where it is here."""
    engine: RealEngine = request.getfixturevalue("engine")
    made = box(engine, place)
    handed = place.parent / "handed"
    handed.mkdir()
    docker = Docker(made, Engine(engine.host), handed)
    try:
        yield docker
    finally:
        docker.remove()


@contextmanager
def over_ssh(place: Path, request: pytest.FixtureRequest) -> Iterator[Executor]:
    """Run on a host that is this one, reached through a real sshd."""
    server: Sshd = request.getfixturevalue("server")
    handed = place.parent / "handed"
    handed.mkdir()
    yield Ssh(remote(server), str(place), handed)


BENCHES: dict[str, Bench] = {"shell": in_a_shell, "docker": in_a_box, "ssh": over_ssh}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A real sshd on loopback."""
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(params=sorted(EXECUTORS))
def executor(request: pytest.FixtureRequest, place: Path) -> Iterator[Executor]:
    """Each executor there is."""
    with BENCHES[request.param](place, request) as made:
        yield made


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where commands run."""
    made = tmp_path / "place"
    made.mkdir()
    return made


def start(executor: Executor, place: Path, *argv: str, **env: str) -> Running:
    """Start a command whose output goes to the end of the file `out`."""
    with (place / "out").open("ab") as output:
        command = Command(argv, {"PATH": os.environ["PATH"], **env}, place)
        return executor.start(command, output, place / "result")


@pytest.mark.parametrize("module", list(EXECUTORS.values()), ids=list(EXECUTORS))
def test_a_file_holds_one_executor_and_it_is_tried_here(module: ModuleType) -> None:
    found = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__ and hasattr(kind, "start")
    ]
    assert len(found) == 1, f"{module.__name__} holds {len(found)} executors"
    assert set(EXECUTORS) == set(BENCHES)


def test_the_executors_of_today_are_found_by_file_name() -> None:
    assert {"shell", "docker", "ssh"} <= set(EXECUTORS)


@pytest.mark.parametrize("code", [0, 7])
def test_the_exit_code_is_returned_and_written(executor: Executor, place: Path, code: int) -> None:
    assert start(executor, place, "sh", "-c", f"exit {code}").wait(30) == code
    found = executor.find(None, place / "result")
    assert found is not None
    assert found.wait(0) == code


def test_output_goes_to_the_end_of_the_file_in_order(executor: Executor, place: Path) -> None:
    (place / "out").write_text("before\n")
    start(executor, place, "sh", "-c", 'echo one; echo "$WORD" >&2', WORD="$(id)").wait(30)
    assert (place / "out").read_text() == "before\none\n$(id)\n"


def test_a_command_runs_where_it_was_told(executor: Executor, place: Path) -> None:
    start(executor, place, "pwd").wait(30)
    assert (place / "out").read_text() == f"{place}\n"


def test_kill_ends_it_with_its_children_and_returns_when_they_are_gone(executor: Executor, place: Path) -> None:
    script = "trap '' TERM; (trap '' TERM; while :; do echo x; sleep 0.02; done) & sleep 600; sleep 600"
    running = start(executor, place, "sh", "-c", script)
    assert running.wait(0.3) is None
    running.kill(0.1)
    size = (place / "out").stat().st_size
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        assert (place / "out").stat().st_size == size, "something still writes"
    assert running.wait(0) is not None


def test_r54_a_command_that_never_began_is_not_found(executor: Executor, place: Path) -> None:
    assert executor.find("some mark", place / "result") is None
    (place / "result").touch()
    assert executor.find("some mark", place / "result") is None


def test_r54_a_command_whose_end_nobody_knows_is_said_to_be_gone(executor: Executor, place: Path) -> None:
    start(executor, place, "sleep", "600", KEEPFLOW_MARK="some mark").kill(0)
    (place / "result").write_text("4711\n")
    with pytest.raises(Unavailable, match="ended while no agent was there") as caught:
        executor.find("some mark", place / "result")
    assert caught.value.code == "processes-gone"


def test_a_missing_program_is_told(executor: Executor, place: Path) -> None:
    """At once, or by the exit code every shell has for it when only the place it runs in can know."""
    try:
        code = start(executor, place, "no-such-program").wait(30)
    except ProgramMissing:
        return
    assert code == 127
    assert "no-such-program" in (place / "out").read_text()


def test_variables_of_any_content_arrive(executor: Executor, place: Path) -> None:
    value = "two\nlines 'and' \"quotes\" $(id) `id` \\ ä ="
    start(executor, place, "sh", "-c", 'printf "%s" "$ODD"', ODD=value).wait(30)
    assert (place / "out").read_text() == value


def test_commands_of_one_executor_see_what_the_ones_before_left(executor: Executor, place: Path) -> None:
    start(executor, place, "sh", "-c", "echo kept >file").wait(30)
    start(executor, place, "cat", "file").wait(30)
    assert (place / "out").read_text() == "kept\n"
