"""Programs of another account: nothing of the agent goes with them, and whoever dies on the way, nobody is stuck."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.tools import processes
from keepflow.tools.forking import Child, Forker
from tests.real.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

NOBODY = 65534
ENV = {"PATH": os.environ["PATH"]}


@pytest.fixture
def forker() -> Iterator[Forker]:
    made = Forker()
    yield made
    made.close()


def _start(forker: Forker, script: str, output: Path, source: int | None = None, **more: object) -> Child:
    with output.open("ab") as file, Path(os.devnull).open("rb") as nothing:
        files = (nothing.fileno() if source is None else source, file.fileno(), file.fileno())
        argv = ("/bin/sh", "-c", script)
        return forker.start(argv, cwd=Path("/"), env=ENV, uid=NOBODY, gid=NOBODY, files=files, **more)  # type: ignore[arg-type]  # what start takes


def _helper_of(pid: int) -> int:
    """Return the number of the small process, the one child of a process."""
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def test_the_account_has_its_ids_no_right_and_no_file_of_the_agent(forker: Forker, tmp_path: Path) -> None:
    secret = os.open(tmp_path / "secret", os.O_RDWR | os.O_CREAT, 0o600)
    script = "id -u; id -g; id -G; grep CapEff /proc/self/status; ls /proc/self/fd | wc -l; umask; exit 7"
    child = _start(forker, script, tmp_path / "out", umask=0o027)
    assert child.wait() == 7
    os.close(secret)
    *ids, rights, files, mask = (tmp_path / "out").read_text().split("\n")[:-1]
    assert ids == [str(NOBODY)] * 3
    assert int(rights.split()[1], 16) == 0
    assert files == "4"  # three, and the directory that is being listed
    assert mask == "0027"


def test_what_starts_programs_runs_with_an_environment_of_its_own(forker: Forker, tmp_path: Path) -> None:
    """A variable of a job, such as LD_PRELOAD, must never be read by a process of root."""
    child = _start(forker, "sleep 60", tmp_path / "out")
    helper = _parent_of(child.pid)
    assert Path(f"/proc/{helper}/environ").read_bytes() == b""
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert child.returncode == -signal.SIGKILL


def test_a_program_that_cannot_be_executed_is_told(forker: Forker) -> None:
    files = (0, 1, 2)
    with pytest.raises(FileNotFoundError):
        forker.start(("/no/such",), cwd=Path("/"), env={}, uid=NOBODY, gid=NOBODY, files=files)


def test_when_it_was_killed_the_next_program_is_started_all_the_same(forker: Forker, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    child = _start(forker, "read x; exit 5", tmp_path / "out", reading, last_resort=lambda: 3)
    os.close(reading)
    helper = _parent_of(child.pid)
    os.kill(helper, signal.SIGKILL)
    wait_until(lambda: _is_gone(helper), 10, "it is gone")
    assert child.poll() is None
    os.close(writing)
    assert child.wait() == 3
    assert _start(forker, "exit 4", tmp_path / "out").wait() == 4


def test_a_stop_of_the_agents_group_does_not_end_it_and_the_agents_death_does() -> None:
    script = (
        "import os, sys, pathlib; from keepflow.tools.forking import forker\n"
        "nothing = os.open('/dev/null', os.O_RDWR)\n"
        f"argv = ('/bin/sleep', '60'); where = pathlib.Path('/')\n"
        f"child = forker.start(argv, cwd=where, env={{}}, uid={NOBODY}, gid={NOBODY}, files=(nothing,) * 3)\n"
        "print(child.pid, flush=True); sys.stdin.read()\n"
    )
    agent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert agent.stdout is not None
    child = int(agent.stdout.readline())
    helper = _parent_of(child)
    assert helper == _helper_of(agent.pid)
    os.kill(helper, signal.SIGTERM)
    assert not _is_gone(helper)
    agent.kill()
    agent.communicate()
    wait_until(lambda: _is_gone(helper), 10, "it ended with the agent")
    assert not _is_gone(child), "what it had started goes on"
    os.kill(child, signal.SIGKILL)


def test_short_programs_of_an_account_end_as_others_do() -> None:
    account = (NOBODY, NOBODY)
    done = processes.run(
        ["sh", "-c", "id -u; cat; echo no >&2; exit 3"], timeout=30, account=account, input=b"fed\n", check=False
    )
    assert (done.exit_code, done.text, done.stderr) == (3, f"{NOBODY}\nfed\n", b"no\n")
    with pytest.raises(errors.CommandTimeout):
        processes.run(["sleep", "60"], timeout=0.2, account=account)
    with pytest.raises(errors.ProgramMissing):
        processes.run(["no-such-program"], timeout=1, account=account)
