"""The runner of short programs."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.tools.processes import MIB, clean_env, run
from tests.real.leftovers import alive
from tests.real.waiting import wait_until


def wait_for_death(pid: int) -> None:
    wait_until(lambda: not alive(pid), 10, f"the end of process {pid}")


def test_what_the_program_wrote_comes_back_as_bytes() -> None:
    done = run(["sh", "-c", r"printf 'a\377b'; printf oops >&2"], timeout=5)
    assert (done.exit_code, done.stdout, done.stderr) == (0, b"a\xffb", b"oops")
    assert done.text == "a\N{REPLACEMENT CHARACTER}b"


def test_a_shell_never_sees_the_arguments(tmp_path: Path) -> None:
    hostile = f"$(touch {tmp_path}/x); `touch {tmp_path}/x`"
    assert run(["printf", "%s", hostile], timeout=5).text == hostile
    assert list(tmp_path.iterdir()) == []


def test_an_error_tells_the_command_the_exit_code_and_the_last_lines() -> None:
    with pytest.raises(errors.CommandFailed) as caught:
        run(["sh", "-c", "for i in $(seq 40); do echo line $i >&2; done; exit 3"], timeout=5)
    error = caught.value
    assert error.exit_status == 3
    assert error.tail.splitlines()[-1] == "line 40"
    assert "line 20" not in error.message
    assert "exit code 3" in error.message


def test_control_characters_of_a_program_do_not_reach_the_error_text() -> None:
    with pytest.raises(errors.CommandFailed) as caught:
        run(["sh", "-c", r"printf '\033]0;owned\007 x\rlast\n' >&2; exit 1"], timeout=5)
    assert "\x1b" not in caught.value.message
    assert "\x07" not in caught.value.message
    assert caught.value.tail.endswith("last")


def test_without_check_the_exit_code_is_an_answer() -> None:
    assert run(["false"], timeout=5, check=False).exit_code == 1
    assert run(["sh", "-c", "kill -9 $$"], timeout=5, check=False).exit_code == 128 + 9


def test_a_missing_program_is_named() -> None:
    with pytest.raises(errors.ProgramMissing, match="keepflow-no-such-program"):
        run(["keepflow-no-such-program"], timeout=5)


def test_a_file_that_may_not_be_executed_is_named(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("x")
    with pytest.raises(errors.ProgramMissing, match="tool"):
        run([str(tmp_path / "tool")], timeout=5)


def test_a_missing_directory_is_not_mistaken_for_a_missing_program(tmp_path: Path) -> None:
    with pytest.raises(errors.CommandFailed, match="nowhere"):
        run(["true"], timeout=5, cwd=tmp_path / "nowhere")


def test_a_nul_byte_in_an_argument_is_an_intentional_error() -> None:
    with pytest.raises(errors.CommandFailed):
        run(["echo", "a\0b"], timeout=5)


def test_the_environment_is_clean_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPFLOW_CANARY", "secret")
    assert b"CANARY" not in run(["env"], timeout=5).stdout
    assert run(["env"], timeout=5, env={"ONLY": "this"}).stdout == b"ONLY=this\n"
    assert clean_env(EXTRA="1")["EXTRA"] == "1"


def test_input_far_beyond_a_pipe_is_fed_while_output_is_read() -> None:
    data = os.urandom(3 * MIB)
    assert run(["cat"], timeout=20, input=data).stdout == data


def test_a_program_that_does_not_read_its_input_is_no_error() -> None:
    assert run(["true"], timeout=5, input=b"x" * MIB).exit_code == 0


def test_a_full_stderr_never_blocks_the_program_and_its_end_is_kept() -> None:
    code = "import sys; sys.stderr.write('x' * 5_000_000 + 'END'); print('out')"
    done = run([sys.executable, "-c", code], timeout=20)
    assert done.stdout == b"out\n"
    assert done.stderr.endswith(b"xEND")
    assert len(done.stderr) <= 64 * 1024


def test_more_output_than_the_limit_ends_the_program() -> None:
    started = time.monotonic()
    with pytest.raises(errors.TooLarge, match="yes wrote more than 1000 bytes"):
        run(["yes"], timeout=20, limit=1000)
    assert time.monotonic() - started < 10


def test_output_of_exactly_the_limit_is_fine() -> None:
    assert len(run(["head", "-c", "1000", "/dev/zero"], timeout=5, limit=1000).stdout) == 1000


def test_a_timeout_ends_the_whole_process_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sh -c 'trap \"\" TERM; echo $$ >> {pids}; sleep 60' & echo $$ >> {pids}; sleep 60"
    with pytest.raises(errors.CommandTimeout, match=r"did not end within 0\.5 s"):
        run(["sh", "-c", script], timeout=0.5)
    for pid in pids.read_text().split():
        wait_for_death(int(pid))


def test_a_timeout_lets_the_program_take_its_lock_files_away(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    script = f"trap 'rm {lock}; exit 1' TERM; touch {lock}; sleep 60 & wait"
    with pytest.raises(errors.CommandTimeout):
        run(["sh", "-c", script], timeout=0.5)
    assert not lock.exists()


def test_a_timeout_also_counts_for_a_program_that_closed_its_output() -> None:
    with pytest.raises(errors.CommandTimeout):
        run(["sh", "-c", "exec >&- 2>&-; sleep 60"], timeout=0.3)


def test_a_timeout_error_shows_what_the_program_said_so_far() -> None:
    with pytest.raises(errors.CommandTimeout) as caught:
        run(["sh", "-c", "echo connecting >&2; sleep 60"], timeout=0.5)
    assert caught.value.tail == "connecting"


def test_a_child_left_behind_that_holds_the_pipes_does_not_hold_the_caller(tmp_path: Path) -> None:
    started = time.monotonic()
    done = run(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; echo done"], timeout=30)
    assert done.stdout == b"done\n"
    assert time.monotonic() - started < 10
    wait_for_death(int((tmp_path / "pid").read_text()))


def test_an_interrupt_in_the_caller_ends_the_program(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(["sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 0.3; kill -USR1 $PPID; sleep 60"], timeout=30)
    finally:
        signal.signal(signal.SIGUSR1, before)
    wait_for_death(int((tmp_path / "pid").read_text()))
