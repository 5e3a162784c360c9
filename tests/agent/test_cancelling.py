"""A cancel at any moment: whatever the job does then, it ends at once with everything it started (R57)."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from keepflow.executors._processes import marked
from keepflow.executors.shell import MARK
from keepflow.wire.messages import StepStarted
from tests.agent.processes import Builder
from tests.real.waiting import wait_until

#: Twenty processes, half of them away from group, session and parent, none of which hears SIGTERM.
_STUBBORN = """
trap '' TERM
for n in 1 2 3 4 5 6 7 8 9 10; do
  (trap '' TERM; while :; do sleep 0.5; done) &
  setsid sh -c "trap '' TERM; (while :; do sleep 0.5; done) & exit" &
done
echo all-there
wait
"""


def left_of(builder: Builder, fence: int) -> int:
    """Count the processes of a job that live now."""
    found = json.loads((builder.agent.state / "attempts" / str(fence) / "attempt.json").read_bytes())
    return len(marked(f"{MARK}={found['mark']}"))


def gone_after(builder: Builder, fence: int, grace: float) -> float:
    """Stop a job and return after how many seconds its last process was gone."""
    mark = json.loads((builder.agent.state / "attempts" / str(fence) / "attempt.json").read_bytes())["mark"]
    began = time.monotonic()
    builder.stop(fence, grace)
    wait_until(lambda: not marked(f"{MARK}={mark}"), grace + 20, "the end of the last process", every=0.005)
    return time.monotonic() - began


def test_r57_processes_that_ignore_sigterm_and_fork_away_are_gone_right_after_the_grace(builder: Builder) -> None:
    fence = builder.send(_STUBBORN)
    builder.master.await_log(fence, b"\nall-there\n")
    wait_until(lambda: left_of(builder, fence) >= 20, 20, "twenty processes")
    assert gone_after(builder, fence, grace=0.5) < 0.5 + 5
    ran = builder.result(fence)
    assert (ran.end.state, ran.end.code, ran.end.sentence) == ("cancelled", "cancelled", "cancelled by ann")
    assert "all-there\n" in ran.log
    assert ran.log.endswith("── cancelled: cancelled by ann\n")


def test_r57_a_script_that_hears_sigterm_has_time_to_clean_up(builder: Builder) -> None:
    fence = builder.send("trap 'echo cleaned-up; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    builder.master.await_log(fence, b"\nready\n")
    assert gone_after(builder, fence, grace=30) < 10
    assert "cleaned-up\n" in builder.result(fence).log


@contextmanager
def silent_server() -> Iterator[tuple[str, threading.Event]]:
    """Serve a git address that takes every connection and never answers; the event says that one came."""
    came = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return
                came.set()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/repo.git", came
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for connection in kept:
                connection.close()
            thread.join(10)


def test_r57_a_job_is_cancelled_while_its_code_is_fetched(builder: Builder) -> None:
    builder.run("true", trust="other")  # one lane that has a commit and asks for the next one, and one that is new
    code = builder.master.code_url
    for sha, trust in (("0" * 39 + "1", "other"), ("0" * 39 + "2", "fork")):
        with silent_server() as (url, came):
            builder.master.code_url = url
            try:
                fence = builder.send("echo never", sha=sha, trust=trust)
                assert came.wait(20)
                began = time.monotonic()
                builder.stop(fence)
                ran = builder.result(fence)
            finally:
                builder.master.code_url = code
        assert time.monotonic() - began < 10
        assert (ran.end.state, ran.end.code) == ("cancelled", "cancelled")
        assert ran.log.endswith("── cancelled: cancelled by ann\n")
        assert "never" not in ran.log
        assert not any(isinstance(body, StepStarted) for body in ran.reports)
    for trust in ("other", "fork"):  # the lanes are as good as before
        assert builder.run("cat hello.txt", trust=trust).end.state == "succeeded"


def test_r57_a_job_is_cancelled_between_two_steps_and_before_it_has_a_slot(builder: Builder) -> None:
    busy = [builder.send("sleep 600") for _ in range(2)]
    for fence in busy:
        builder.master.await_report(StepStarted, fence)
    waiting = builder.send("echo never")
    builder.stop(waiting)
    ran = builder.result(waiting)
    assert (ran.end.state, ran.log) == ("cancelled", "── cancelled: cancelled by ann\n")
    for fence in busy:
        builder.stop(fence)
        assert builder.result(fence).end.state == "cancelled"
