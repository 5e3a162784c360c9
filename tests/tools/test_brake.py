"""A brake ends what waits for others, from another thread, and nothing begins after it was pulled."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.tools.brake import Brake, stoppable
from keepflow.tools.processes import run
from tests.real.leftovers import alive
from tests.real.waiting import wait_until


def under(brake: Brake, script: str, into: list[BaseException | None]) -> threading.Thread:
    """Run a shell script under a brake, in a thread of its own."""

    def work() -> None:
        try:
            with brake.applied():
                run(["sh", "-c", script], timeout=60)
            into.append(None)
        except errors.KeepflowError as error:
            into.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_a_program_under_way_is_ended_with_all_that_it_started(tmp_path: Path, trap: str) -> None:
    brake, ends, pids = Brake(), list[BaseException | None](), tmp_path / "pids"
    thread = under(brake, f"{trap}sleep 600 & echo $! $$ >{pids}; wait", ends)
    numbers = [int(text) for text in wait_until(lambda: pids.read_text().split(), 10, "the program")]
    began = time.monotonic()
    brake.pull()
    thread.join(10)
    assert time.monotonic() - began < 10
    assert [type(end) for end in ends] == [errors.Stopped]
    wait_until(lambda: not any(map(alive, numbers)), 5, "the end of the program")


def test_nothing_begins_after_the_brake_was_pulled(tmp_path: Path) -> None:
    brake, ends = Brake(), list[BaseException | None]()
    brake.pull()
    under(brake, f"sleep 0.3; touch {tmp_path}/began", ends).join(10)
    assert [type(end) for end in ends] == [errors.Stopped]
    assert not (tmp_path / "began").exists()


def test_without_a_brake_and_outside_of_it_nothing_changes() -> None:
    brake = Brake()
    with brake.applied():
        pass
    brake.pull()
    assert run(["echo", "on"], timeout=5).text == "on\n"
    with stoppable(lambda: pytest.fail("nobody pulled this")):
        pass


def test_what_fails_because_it_was_ended_is_no_fault_and_what_failed_before_is_one() -> None:
    brake = Brake()
    with brake.applied():
        with pytest.raises(ConnectionError), stoppable(lambda: None):
            raise ConnectionResetError
        with pytest.raises(errors.Stopped), stoppable(lambda: None):
            _broken_off(brake)


def _broken_off(brake: Brake) -> None:
    brake.pull()
    raise ConnectionResetError
