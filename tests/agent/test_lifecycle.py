"""How an agent starts, is killed, is stopped and comes back, with jobs in every state."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from keepflow.agent.state import State
from keepflow.crypto import keys, rotation
from keepflow.executors.shell import started_at
from keepflow.wire import messages
from tests.agent.processes import AgentProcess, job, number_in
from tests.fakes import FakeMaster
from tests.real.waiting import wait_until

MakeAgent = Callable[..., AgentProcess]


def finished(master: FakeMaster, fence: int) -> messages.JobFinished:
    found = master.await_report(messages.JobFinished, fence)
    assert isinstance(found, messages.JobFinished)
    return found


def test_jobs_wait_for_a_slot_and_can_be_stopped_there(
    master: FakeMaster, make_agent: MakeAgent, sha: str, tmp_path: Path
) -> None:
    agent = make_agent(file="capabilities: [run]\njobs: 1\n")
    agent.start()
    os.mkfifo(tmp_path / "fifo")
    master.send(job(1, sha, [f"cat {tmp_path}/fifo"]))
    master.send(job(2, sha, ["echo second"]))
    master.send(job(3, sha, ["echo third"]))
    master.await_report(messages.StepStarted, 1)
    master.send(messages.StopJob(fence=2, code="cancelled", sentence="cancelled by ann"))
    assert finished(master, 2).state == "cancelled"
    (tmp_path / "fifo").write_text("go\n")
    assert finished(master, 3).state == "succeeded"
    started = [body.fence for body in master.reports.values() if isinstance(body, messages.JobStarted)]
    assert started == [1, 3]
    assert "cancelled by ann" in master.await_whole_log(2)


def test_r54_a_job_goes_on_through_kill_9_of_its_agent_and_its_next_step_too(
    master: FakeMaster, make_agent: MakeAgent, sha: str, tmp_path: Path
) -> None:
    agent = make_agent()
    agent.start()
    count = f"i=$((i+1)); echo line $i; echo $i >>{tmp_path}/count; sleep 0.01"
    script = f"i=0; until [ -e {tmp_path}/go ]; do {count}; done; echo X=y >>$KEEPFLOW_ENV"
    master.send(job(1, sha, ["echo first step", script, "echo $X; cat hello.txt"]))
    master.await_log(1, b"line 20\n")
    agent.kill()
    before = number_in(tmp_path / "count")
    wait_until(lambda: number_in(tmp_path / "count") > before + 5, 10, "more lines while no agent was there")
    agent.start()
    (tmp_path / "go").touch()
    assert finished(master, 1).state == "succeeded"
    log = master.await_whole_log(1)
    numbers = [int(line.removeprefix("line ")) for line in log.split("\n") if line.startswith("line ")]
    assert numbers == list(range(1, number_in(tmp_path / "count") + 1)), "no gap and no repetition"
    assert [log.count(f"── step {n}/3 ") for n in (1, 2, 3)] == [2, 2, 2]
    assert "\ny\nhello\n── step 3/3 " in log
    assert not master.log_gaps
    ends = [body for body in master.reports.values() if isinstance(body, messages.JobFinished)]
    assert len(ends) == 1
    steps = [body.index for _, body in sorted(master.reports.items()) if isinstance(body, messages.StepFinished)]
    assert steps == [0, 1, 2]


def test_r54_a_job_that_ended_while_no_agent_was_there_ends_as_it_did(
    master: FakeMaster, make_agent: MakeAgent, sha: str, tmp_path: Path
) -> None:
    agent = make_agent()
    agent.start()
    os.mkfifo(tmp_path / "fifo")
    master.send(job(1, sha, [f"echo $$ >{tmp_path}/pid; read word <{tmp_path}/fifo; echo heard $word; exit 6"]))
    number = number_in(tmp_path / "pid")
    agent.kill()
    (tmp_path / "fifo").write_text("go\n")
    wait_until(lambda: started_at(number) is None, 10, "the end of the job")
    agent.start()
    end = finished(master, 1)
    assert (end.state, end.code, end.exit_code) == ("failed", "exit", 6)
    assert "heard go\n" in master.await_whole_log(1)


def test_a_job_whose_processes_are_gone_after_a_restart_is_lost_with_what_is_known(
    master: FakeMaster, make_agent: MakeAgent, sha: str, tmp_path: Path
) -> None:
    agent = make_agent()
    agent.start()
    master.send(job(1, sha, [f"echo begun; echo $$ >{tmp_path}/pid; sleep 600", "echo never"]))
    number = number_in(tmp_path / "pid")
    agent.kill()
    os.killpg(os.getpgid(number), signal.SIGKILL)
    agent.start()
    end = finished(master, 1)
    assert (end.state, end.code) == ("lost", "agent-restarted")
    assert end.sentence.endswith("its processes were ended while no agent was there")
    log = master.await_whole_log(1)
    assert "begun\n" in log
    assert "echo never" not in log


def test_a_job_that_was_taken_up_can_be_stopped_and_gives_its_lane_back(
    master: FakeMaster, make_agent: MakeAgent, sha: str, tmp_path: Path
) -> None:
    agent = make_agent(file="capabilities: [run]\njobs: 2\n")
    agent.start()
    master.send(job(1, sha, [f"trap '' TERM; echo $$ >{tmp_path}/pid; while :; do sleep 0.1; done"]))
    number = number_in(tmp_path / "pid")
    agent.kill()
    agent.start()
    master.send(job(2, sha, ["pwd"]))
    assert finished(master, 2).state == "succeeded"
    assert "/protected-2/work" in master.await_whole_log(2), "the lane is held by the job that goes on"
    began = time.monotonic()
    master.send(messages.StopJob(fence=1, code="cancelled", sentence="cancelled by ann", grace=0.5))
    assert finished(master, 1).state == "cancelled"
    assert time.monotonic() - began < 3
    assert started_at(number) is None
    master.send(job(3, sha, ["pwd"]))
    assert finished(master, 3).state == "succeeded"
    assert "/protected-1/work" in master.await_whole_log(3)


def test_a_job_has_no_more_time_for_a_restart_of_its_agent(
    master: FakeMaster, make_agent: MakeAgent, sha: str, tmp_path: Path
) -> None:
    agent = make_agent()
    agent.start()
    master.send(job(1, sha, [f"echo $$ >{tmp_path}/pid; sleep 600"], timeout=4.0))
    number = number_in(tmp_path / "pid")
    agent.kill()
    agent.start()
    end = finished(master, 1)
    assert (end.state, end.code) == ("failed", "timeout")
    assert started_at(number) is None


def test_a_job_whose_message_was_repeated_runs_once(
    master: FakeMaster, make_agent: MakeAgent, sha: str, tmp_path: Path
) -> None:
    agent = make_agent()
    agent.start()
    for _ in range(3):
        master.send(job(1, sha, [f"echo ran >>{tmp_path}/ran"]))
    assert finished(master, 1).state == "succeeded"
    master.await_whole_log(1)
    wait_until(lambda: not (agent.state / "attempts" / "1").exists(), 10, "the attempt was put away")
    master.send(job(1, sha, [f"echo ran >>{tmp_path}/ran"]))
    agent.kill()
    agent.start()
    master.send(job(1, sha, [f"echo ran >>{tmp_path}/ran"]))
    master.send(job(2, sha, ["true"]))
    finished(master, 2)
    wait_until(lambda: not master.outgoing, 10, "all messages were received")
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_a_restart_after_the_end_changes_nothing(master: FakeMaster, make_agent: MakeAgent, sha: str) -> None:
    agent = make_agent()
    agent.start()
    master.acks_reports = False
    master.send(job(1, sha, ["echo x; exit 4"]))
    assert finished(master, 1).exit_code == 4
    agent.kill()
    master.acks_reports = True
    agent.start()
    wait_until(lambda: not (agent.state / "attempts" / "1").exists(), 10, "the attempt was put away")
    assert [body.state for body in master.reports.values() if isinstance(body, messages.JobFinished)] == ["failed"]
    assert master.repeated_reports >= 4, "what was not confirmed was said again"


def test_a_second_process_on_the_same_directory_is_refused(agent: AgentProcess) -> None:
    done = agent.cli("run", "--config", str(agent.config))
    assert done.returncode == 7
    assert "another agent" in done.stderr
    assert "Traceback" not in done.stderr


def test_r54_sigterm_leaves_jobs_to_the_next_process_of_the_agent(
    master: FakeMaster, agent: AgentProcess, sha: str, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    master.send(job(1, sha, [f"echo begun; read word <{tmp_path}/fifo; echo heard $word"]))
    master.await_log(1, b"begun\n")
    began = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - began < 3
    assert [word.sentence for word in master.farewells] == ["the agent was stopped"]
    agent.start()
    (tmp_path / "fifo").write_text("go\n")
    assert finished(master, 1).state == "succeeded"
    assert "heard go\n" in master.await_whole_log(1)


def test_ctrl_c_ends_jobs_says_farewell_and_leaves_within_three_seconds(
    master: FakeMaster, agent: AgentProcess, sha: str, tmp_path: Path
) -> None:
    master.send(job(1, sha, [f"trap '' TERM; echo $$ >{tmp_path}/pid; echo begun; while :; do sleep 0.1; done"]))
    number = number_in(tmp_path / "pid")
    master.await_log(1, b"begun\n")
    assert agent.process is not None
    began = time.monotonic()
    agent.process.send_signal(signal.SIGINT)
    assert agent.process.wait(20) == 0
    assert time.monotonic() - began < 3
    assert "Traceback" not in agent.log
    assert started_at(number) is None
    end = finished(master, 1)
    assert (end.state, end.code) == ("lost", "agent-stopped")
    assert master.await_whole_log(1).endswith("its processes were ended\n")
    assert [word.sentence for word in master.farewells] == ["the agent was stopped"]


def test_an_idle_agent_leaves_at_once(agent: AgentProcess) -> None:
    began = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - began < 1.5


def test_an_agent_without_its_master_waits_and_takes_up_where_it_was(
    master: FakeMaster, make_agent: MakeAgent, sha: str
) -> None:
    agent = make_agent()
    agent.start()
    master.send(job(1, sha, ["for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done"]))
    master.await_log(1, b"line 1\n")
    master.refuses = messages.Refused(code="busy", sentence="not now")
    master.cut()
    wait_until(lambda: len(master.hellos) >= 2, 20, "another try of the agent")
    master.refuses = None
    assert finished(master, 1).state == "succeeded"
    assert "line 5\n" in master.await_whole_log(1)


def test_the_file_is_read_again_when_it_changes(master: FakeMaster, agent: AgentProcess, sha: str) -> None:
    agent.config.write_text(f"master: {master.url}\ncapabilities: [run]\njobs: 3\nlabels: [gpu]\n")
    hello = wait_until(lambda: [hello for hello in master.hellos if hello.labels], 60, "a new hello")[0]
    assert (hello.labels, hello.slots) == (("gpu",), 3)
    agent.config.write_text("capabilities: [fly]\n")
    hello = wait_until(
        lambda: [hello for hello in master.hellos if "is wrong" in "".join(hello.warnings)], 60, "a warning"
    )[0]
    assert hello.slots == 3
    master.send(job(1, sha, ["true"]))
    assert finished(master, 1).state == "succeeded"


@pytest.mark.usefixtures("agent")
def test_hello_says_what_the_host_can_and_what_is_weak(master: FakeMaster) -> None:
    hello = master.hellos[-1]
    assert hello.capabilities == ("run",)
    assert {"run", "build", "push"} <= set(hello.step_kinds)
    if os.geteuid() == 0:
        assert any("jobs_user" in warning for warning in hello.warnings)


def test_heartbeats_say_what_is_held(make_agent: MakeAgent, master: FakeMaster, sha: str) -> None:
    master.heartbeat = 0.1
    agent = make_agent()
    agent.start()
    master.send(job(5, sha, ["sleep 600"]))
    beat = wait_until(lambda: [beat for beat in master.heartbeats if beat.running], 10, "a heartbeat with the job")[0]
    assert beat.running == (5,)
    assert beat.free_bytes
    assert abs(beat.at - time.time_ns() // 1000) < 5_000_000


def test_a_new_order_key_outlives_the_agent_and_nobody_joins_anew(
    master: FakeMaster, make_agent: MakeAgent, sha: str
) -> None:
    agent = make_agent()
    agent.start()
    second, third = keys.generate(), keys.generate()
    master.rotations = (rotation.seal(master.key, second, 1),)
    master.send(messages.KeyRotated(envelope=master.rotations[0]))
    wait_until(lambda: not master.outgoing, 20, "the confirmation")
    master.signs_with = second
    agent.kill()
    master.rotations = (*master.rotations, rotation.seal(second, third, 2))
    master.signs_with = third
    agent.start()
    master.send(job(1, sha, ["echo still here"]))
    assert finished(master, 1).state == "succeeded"
    identity = State(agent.state).identity()
    assert identity.order_keys == (third.public,)
    assert [former.key for former in identity.former] == [master.key.public, second.public]
    assert identity.pinned.for_orders(rotation.GRACE + 3) == (third.public,)
