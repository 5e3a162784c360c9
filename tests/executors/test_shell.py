"""Commands run as plain processes: what they print, how they end, and that all they started ends with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.executors.shell import MARK, Account, Process, Shell, end_marked, read_result, started_at
from keepflow.ports import Command
from tests.real.waiting import wait_until

NOBODY = 65534
STARTER = """
import os, pathlib, sys
from keepflow.executors.shell import Shell
from keepflow.ports import Command
root = pathlib.Path(sys.argv[1])
env = {"PATH": os.environ["PATH"], "KEEPFLOW_MARK": sys.argv[2]}
Shell().start(Command(("sh", "-c", "read x <fifo; exit 5"), env, root), open(root / "out", "ab"), root / "result")
os.kill(os.getpid(), 9)
"""


@dataclass
class Bench:
    """A place to run scripts in; everything left behind is ended afterwards."""

    root: Path
    account: Account | None = None
    mark: str = field(default_factory=lambda: f"test-{os.getpid()}-{time.monotonic_ns()}")
    started: list[Process] = field(default_factory=list)

    def start(self, script: str, **env: str) -> Process:
        full = {"PATH": os.environ["PATH"], MARK: self.mark, **env}
        with (self.root / "out").open("ab", buffering=0) as output:
            command = Command(("sh", "-c", script), full, self.root)
            self.started.append(Shell(self.account).start(command, output, self.root / "result"))
        return self.started[-1]

    def run(self, script: str) -> int | None:
        return self.start(script).wait(30)

    @property
    def output(self) -> str:
        return (self.root / "out").read_text()

    def pid_in(self, name: str) -> int:
        """Return the process number a script wrote to a file."""
        return int(wait_until(lambda: (self.root / name).read_text().strip(), 10, f"a number in {name}"))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    place = Bench(tmp_path)
    yield place
    end_marked(place.mark, 0)
    for process in place.started:
        process.wait(10)


def is_gone(pid: int) -> bool:
    return started_at(pid) is None


@pytest.mark.parametrize("code", [0, 1, 2, 3, 77, 126, 127, 130, 137, 255])
def test_the_exit_code_is_returned_and_written(bench: Bench, code: int) -> None:
    assert bench.run(f"exit {code}") == code
    assert read_result(bench.root / "result") == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_death_by_a_signal_is_128_and_the_number(bench: Bench, number: signal.Signals) -> None:
    assert bench.run(f"kill -{int(number)} $$") == 128 + number
    assert read_result(bench.root / "result") == 128 + number


def test_wait_gives_up_after_its_time_and_can_be_asked_again(bench: Bench) -> None:
    process = bench.start("read x <fifo; exit 4" if os.mkfifo(bench.root / "fifo") is None else "")
    assert process.wait(0) is None
    assert process.wait(0.05) is None
    (bench.root / "fifo").write_text("go\n")
    assert process.wait(10) == 4
    assert process.wait() == 4


def test_both_streams_come_in_order_and_input_is_empty(bench: Bench) -> None:
    assert bench.run("echo one; echo two >&2; cat; echo three") == 0
    assert bench.output == "one\ntwo\nthree\n"


def test_only_the_given_environment_is_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "secret of the agent")
    bench.start("env | sort", NAME="$(id)").wait(10)
    names = {line.partition("=")[0] for line in bench.output.splitlines()}
    assert names == {"PATH", MARK, "NAME", "PWD"}
    assert "NAME=$(id)\n" in bench.output


def test_a_missing_program_is_told_before_anything_runs(bench: Bench) -> None:
    for program in ("no-such-program", "./no-such-script"):
        with (bench.root / "out").open("ab") as output, pytest.raises(errors.ProgramMissing, match=program):
            Shell().start(Command((program,), {"PATH": "/usr/bin:/bin"}, bench.root), output, bench.root / "result")
    assert not (bench.root / "result").exists()


def test_what_the_kernel_refuses_is_unavailable(bench: Bench) -> None:
    with (bench.root / "out").open("ab") as output, pytest.raises(errors.Unavailable, match="could not be started"):
        Shell().start(Command(("true", "x" * 200_000), {"PATH": "/bin"}, bench.root), output, bench.root / "result")


def test_kill_asks_first_and_lets_a_command_tidy_up(bench: Bench) -> None:
    process = bench.start("trap 'echo tidy; exit 9' TERM; echo up >up; while :; do sleep 0.05; done")
    wait_until((bench.root / "up").exists, 10, "the command")
    process.kill(10)
    assert process.wait(0) == 9
    assert bench.output.endswith("tidy\n")
    assert read_result(bench.root / "result") == 9


def test_kill_ends_a_command_that_does_not_listen(bench: Bench) -> None:
    process = bench.start("trap '' TERM; echo $$ >pid; while :; do sleep 0.05; done")
    pid = bench.pid_in("pid")
    began = time.monotonic()
    process.kill(0.2)
    assert time.monotonic() - began < 5
    assert process.wait(0) == 137
    assert is_gone(pid)
    assert read_result(bench.root / "result") is None


@pytest.mark.parametrize(
    "daemon",
    [
        pytest.param("sleep 600 & echo $! >pid", id="a child in the background"),
        pytest.param("setsid sleep 600 & echo $! >pid", id="a child with a session of its own"),
        pytest.param("(setsid sh -c 'echo $$ >pid; exec sleep 600' &)", id="a daemon nobody is parent of"),
        pytest.param("sh -c 'trap \"\" TERM HUP; echo $$ >pid; sleep 600; sleep 600' &", id="a child that is deaf"),
        pytest.param("env -i setsid sleep 600 & echo $! >pid", id="a child without our environment"),
    ],
)
def test_kill_ends_everything_the_command_started(bench: Bench, daemon: str) -> None:
    process = bench.start(f"{daemon}\nwait; sleep 600")
    pid = bench.pid_in("pid")
    wait_until(
        lambda: (
            b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes()
            or b"trap" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ),
        10,
        "the daemon",
    )
    process.kill(0.3)
    assert is_gone(pid)
    assert process.wait(0) is not None


def test_what_outlives_its_command_is_found_by_its_mark(bench: Bench) -> None:
    assert bench.run("setsid sh -c 'echo $$ >pid; exec sleep 600' >/dev/null 2>&1 & sleep 0") == 0
    pid = bench.pid_in("pid")
    assert end_marked("some-other-mark", 0)
    assert not is_gone(pid)
    assert end_marked(bench.mark, 5)
    assert is_gone(pid)


def test_a_mark_that_only_begins_alike_is_not_ours(bench: Bench) -> None:
    process = bench.start("sleep 600")
    assert end_marked(bench.mark[:-1], 0)
    assert process.wait(0) is None


def test_a_command_outlives_who_started_it(bench: Bench) -> None:
    os.mkfifo(bench.root / "fifo")
    done = subprocess.run([sys.executable, "-c", STARTER, str(bench.root), bench.mark], check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_result(bench.root / "result") is None
    (bench.root / "fifo").write_text("go\n")
    assert wait_until(lambda: read_result(bench.root / "result"), 10, "the result") == 5


def forsaken(bench: Bench) -> Process:
    """Return a command that is found again after the process that started it was killed; it reads `fifo`."""
    os.mkfifo(bench.root / "fifo")
    done = subprocess.run([sys.executable, "-c", STARTER, str(bench.root), bench.mark], check=False)
    assert done.returncode == -signal.SIGKILL
    found = Shell().find(bench.mark, bench.root / "result")
    assert found is not None
    return found


def test_r54_a_command_is_found_again_by_another_process(bench: Bench) -> None:
    found = forsaken(bench)
    assert found.wait(0) is None
    (bench.root / "fifo").write_text("go\n")
    assert found.wait(30) == 5


def test_r54_a_command_that_was_found_again_is_ended_like_any_other(bench: Bench) -> None:
    found = forsaken(bench)
    began = time.monotonic()
    found.kill(20)
    assert time.monotonic() - began < 20, "it ended by itself when it was asked to"
    assert found.wait(0) == 128 + signal.SIGTERM


def test_r54_a_shim_is_found_by_its_mark_when_nobody_wrote_down_what_it_is(bench: Bench) -> None:
    pid = forsaken(bench).pid
    (bench.root / "result.started").unlink()
    found = Shell().find(bench.mark, bench.root / "result")
    assert found is not None
    assert found.pid == pid


@pytest.mark.parametrize("written", [None, "", "4711"])
def test_r54_what_began_before_anybody_wrote_it_down_is_ended_with_its_job(bench: Bench, written: str | None) -> None:
    os.mkfifo(bench.root / "fifo")
    subprocess.run([sys.executable, "-c", STARTER, str(bench.root), bench.mark], check=False)
    note = bench.root / "result.started"
    note.unlink() if written is None else note.write_text(written)  # torn by the kill of who wrote it
    found = Shell().find(bench.mark, bench.root / "result")
    assert found is not None
    assert end_marked(bench.mark, 5)
    assert is_gone(found.pid)


def test_r54_a_process_that_has_the_number_of_a_shim_is_not_the_shim(bench: Bench) -> None:
    found = forsaken(bench)
    (bench.root / "result.started").write_text(f"{found.pid} 1\n")
    with pytest.raises(errors.Unavailable, match="no agent was there"):
        Shell().find(bench.mark, bench.root / "result")
    found.kill(0)


def test_a_result_that_is_not_whole_is_none(tmp_path: Path) -> None:
    path = tmp_path / "result"
    assert read_result(path) is None
    path.write_text("")
    assert read_result(path) is None
    path.write_text("4711\n")
    assert read_result(path) is None
    path.write_text("4711\n13")
    assert read_result(path) is None
    path.write_text("4711\n13\n")
    assert read_result(path) == 13


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_account_gets_its_groups_and_nothing_else(bench: Bench) -> None:
    bench.root.chmod(0o777)
    bench.account = Account(NOBODY, NOBODY, (12345,))
    assert bench.run("id -u; id -g; id -G") == 0
    assert bench.output.split("\n")[:3] == [str(NOBODY), str(NOBODY), f"{NOBODY} 12345"]
    assert read_result(bench.root / "result") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_account_cannot_write_its_own_result(bench: Bench) -> None:
    bench.root.chmod(0o755)
    bench.account = Account(NOBODY, NOBODY)
    assert bench.run("echo 0 >result; echo 0 >/proc/$PPID/fd/3; exit 6") == 6
    assert read_result(bench.root / "result") == 6
    assert (bench.root / "result").stat().st_mode & 0o077 == 0
