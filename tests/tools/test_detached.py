"""Detached programs: found again, ended whole, never mistaken."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepflow.tools.detached import Detached
from tests.real.leftovers import alive
from tests.real.waiting import wait_until


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Detached]:
    made = Detached(tmp_path / "it.pid", tmp_path / "it.log")
    yield made
    made.stop(grace=0.2)


def test_a_started_program_is_found_by_its_pid_file_alone(program: Detached) -> None:
    program.start(["sleep", "60"])
    pid = program.pid()
    assert pid is not None
    started = Path(f"/proc/{pid}/cmdline")
    wait_until(
        lambda: started.read_bytes() == b"sleep\x0060\0", 5, "the program in the place of the shell that began it"
    )
    assert Detached(program.pid_file, program.log_file).pid() == pid


def test_it_has_a_session_of_its_own_and_is_no_child_of_ours(program: Detached) -> None:
    program.start(["sleep", "60"])
    pid = program.pid()
    assert pid is not None
    assert os.getsid(pid) == pid
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_what_it_prints_goes_to_its_private_log(program: Detached) -> None:
    program.start(["sh", "-c", "echo out; echo err >&2"])
    wait_until(lambda: program.last_words() == "out\nerr", 5, "the log")
    assert program.log_file.stat().st_mode & 0o077 == 0
    assert program.pid_file.stat().st_mode & 0o077 == 0


def test_stopping_ends_it_and_stopping_again_is_harmless(program: Detached) -> None:
    program.start(["sleep", "60"])
    pid = program.pid()
    assert program.stop()
    assert pid is not None
    assert not alive(pid)
    assert program.pid() is None
    assert not program.stop()
    assert not program.pid_file.exists()


def test_one_that_ignores_the_first_signal_is_killed(program: Detached) -> None:
    program.start(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"])
    wait_until(lambda: program.last_words() == "ready", 5, "the trap")
    assert program.stop(grace=0.2)
    assert program.pid() is None


def test_children_of_a_killed_program_are_ended_too(program: Detached) -> None:
    program.start(["sh", "-c", "sleep 60 & echo $!; wait"])
    child = int(wait_until(program.last_words, 5, "the child"))
    leader = program.pid()
    assert leader is not None
    os.kill(leader, signal.SIGKILL)
    wait_until(lambda: program.pid() is None, 5, "the death of the leader")
    assert alive(child)
    assert program.stop()
    wait_until(lambda: not alive(child), 5, "the death of the child")


def test_starting_again_replaces_the_running_one(program: Detached) -> None:
    program.start(["sleep", "60"])
    first = program.pid()
    program.start(["sleep", "61"])
    assert first is not None
    assert not alive(first)
    assert program.pid() not in (None, first)


def test_a_reused_process_number_is_never_touched(program: Detached) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        try:
            program.start(["sleep", "60"])
            pid = program.pid()
            _, start, boot = program.pid_file.read_text().split()
            program.stop()
            assert pid is not None
            for text in (
                f"{stranger.pid} {int(start) - 100} {boot}\n",  # started a second earlier than the stranger
                f"{stranger.pid} 0 {boot}\n",
                f"{stranger.pid} {start} another-boot\n",
                f"{stranger.pid}\n",
                "rubbish",
                "",
            ):
                program.pid_file.write_text(text)
                assert program.pid() is None
                program.send(signal.SIGKILL)
                assert not program.stop(grace=0.1)
                assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_program_that_ends_at_once_is_not_running_and_its_words_are_kept(program: Detached) -> None:
    program.start(["sh", "-c", "echo no such option >&2; exit 2"])
    wait_until(lambda: program.pid() is None, 5, "its end")
    assert program.last_words() == "no such option"


def test_a_program_that_does_not_exist_says_so_in_its_log(program: Detached) -> None:
    program.start(["keepflow-no-such-program"])
    wait_until(lambda: "not found" in program.last_words(), 5, "the shell's words")
    assert program.pid() is None


def test_hostile_arguments_and_paths_are_only_text(tmp_path: Path) -> None:
    home = tmp_path / "a b'\"$(touch x);"
    home.mkdir()
    program = Detached(home / "p.pid", home / "p.log")
    program.start(["printf", "%s", "$(id) `id` ; 'x' \"y\""])
    wait_until(lambda: program.last_words() == "$(id) `id` ; 'x' \"y\"", 5, "the log")
    assert sorted(entry.name for entry in home.iterdir()) == ["p.log", "p.pid"]
