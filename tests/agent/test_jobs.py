"""Jobs on a real agent: what scripts find, what people see of them, and that nothing of a job outlives it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from keepflow.executors.shell import started_at
from keepflow.wire import messages
from keepflow.wire.messages import StepFinished, StepStarted
from tests.agent.processes import Builder, number_in
from tests.hostile import CANARY, NAMES
from tests.real.waiting import wait_until


def test_r62_a_job_runs_its_steps_in_order_and_the_log_names_start_and_end_of_each(
    builder: Builder,
) -> None:
    ran = builder.run("cat hello.txt", "sh scripts/greet.sh world")
    assert (ran.end.state, ran.end.code, ran.end.exit_code) == ("succeeded", "", 0)
    assert re.sub(r"\(\d+\.\d s\)", "(0.0 s)", ran.log).split("\n")[1:9] == [
        "── step 1/2 cat hello.txt",
        "$ cat hello.txt",
        "hello",
        "── step 1/2 cat hello.txt done (0.0 s)",
        "── step 2/2 sh scripts/greet.sh world",
        "$ sh scripts/greet.sh world",
        "hello world",
        "── step 2/2 sh scripts/greet.sh world done (0.0 s)",
    ]
    kinds = [type(body).__name__ for body in ran.reports]
    assert kinds == ["JobStarted", *["StepStarted", "StepFinished"] * 2, "JobFinished"]


def test_each_step_says_where_its_log_is(builder: Builder) -> None:
    ran = builder.run("echo one", "printf two", "echo three")
    log = ran.log.encode()
    steps = [body for body in ran.reports if isinstance(body, StepStarted | StepFinished)]
    parts = [log[start.offset : end.offset].decode() for start, end in zip(steps[::2], steps[1::2], strict=True)]
    for index, (part, word) in enumerate(zip(parts, ("one", "two", "three"), strict=True), 1):
        assert part.startswith(f"── step {index}/3 ")
        assert f"\n{word}\n── step {index}/3 " in part
        assert part.endswith(" s)\n")


def test_the_first_failing_step_ends_the_job_with_its_exit_code(builder: Builder) -> None:
    ran = builder.run("true", "false\necho not-reached", "echo never")
    assert (ran.end.state, ran.end.code, ran.end.exit_code) == ("failed", "exit", 1)
    assert ran.end.sentence.startswith("step 2/3 ")
    assert "failed: exit 1" in ran.log
    assert "\nnot-reached\n" not in ran.log
    assert "step 3/3" not in ran.log


def test_an_exit_code_is_explained_where_it_means_something(builder: Builder) -> None:
    assert "not found" in builder.run("exit 127").end.sentence
    assert "memory" in builder.run("kill -9 $$").end.sentence


def test_secrets_never_leave_the_host(builder: Builder) -> None:
    login = messages.Login(address="registry.example.org", username="push", password="pass-word-1")
    script = 'echo "$SECRET"; printf hunter2-; echo 9; cat "$DOCKER_CONFIG/config.json"; echo kf_job_secret; exit 3'
    ran = builder.run(script, mask=("s3cret value", "hunter2-9"), env={"SECRET": "s3cret value"}, logins=(login,))
    told = ran.log + "".join(body.model_dump_json() for body in ran.reports)
    for secret in ("s3cret value", "hunter2-9", "pass-word-1", "cHVzaDpwYXNzLXdvcmQtM", "kf_job_secret"):
        assert secret not in told
    assert ran.log.count("[MASKED]") >= 4
    scratch = builder.agent.state / "scratch"
    left = subprocess.run(["grep", "-rl", "pass-word-1", scratch], capture_output=True, check=False)
    assert left.stdout == b"", "the lent login stayed on the disk"


def test_r32_a_job_tells_variables_and_sees_those_of_the_jobs_before(builder: Builder) -> None:
    ran = builder.run(
        'echo "[$VERSION] [$LD_PRELOAD] [$KEEPFLOW_RUN]"; echo "NEXT=$VERSION.1" >>"$KEEPFLOW_OUTPUT"',
        'printf "image=\nKEEPFLOW_RUN=7\nLEAK=s3cret-value\n" >>"$KEEPFLOW_OUTPUT"; exit 3',
        given={"VERSION": "1.2", "LD_PRELOAD": "/evil.so", "KEEPFLOW_RUN": "9"},
        mask=("s3cret-value",),
    )
    assert "\n[1.2] [] [1]\n" in ran.log
    assert (ran.end.state, ran.end.outputs) == ("failed", {"NEXT": "1.2.1"})
    assert "LEAK holds a secret and is not given to other jobs" in ran.log


def test_the_token_that_fetches_code_is_in_no_process_list(builder: Builder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    fence = builder.send(f"cat {tmp_path}/fifo")
    builder.master.await_report(messages.StepStarted, fence)
    seen = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    (tmp_path / "fifo").write_text("go\n")
    builder.result(fence)
    assert "kf_job_secret" not in seen


def test_output_that_opens_its_own_stream_anew_loses_nothing(builder: Builder) -> None:
    ran = builder.run(
        "echo one; echo two >/dev/stderr; echo three >/dev/stdout; echo four | tee /dev/stderr; echo five"
    )
    for word in ("one", "two", "three", "five"):
        assert f"\n{word}\n" in ran.log
    assert ran.log.count("four") >= 3


def test_a_line_is_seen_while_the_step_still_runs(builder: Builder) -> None:
    fence = builder.send("echo visible; sleep 600")
    builder.master.await_log(fence, b"\nvisible\n")
    builder.stop(fence)
    finished = [body for body in builder.result(fence).reports if isinstance(body, StepFinished)]
    assert [body.exit_code for body in finished] != [0]


def test_a_stopped_job_ends_with_everything_it_started(builder: Builder, tmp_path: Path) -> None:
    pids = tmp_path / "pid", tmp_path / "daemon"
    fence = builder.send(
        f"setsid sh -c 'echo $$ >{pids[1]}; exec sleep 600' & echo $$ >{pids[0]}; echo before; wait", "echo never"
    )
    numbers = [number_in(path) for path in pids]
    builder.stop(fence)
    ran = builder.result(fence)
    assert (ran.end.state, ran.end.code, ran.end.sentence) == ("cancelled", "cancelled", "cancelled by ann")
    assert [started_at(number) for number in numbers] == [None, None]
    assert "before\n" in ran.log
    assert ran.log.endswith("── cancelled: cancelled by ann\n")


def test_a_stop_that_comes_after_the_end_changes_nothing(builder: Builder) -> None:
    ran = builder.run("true")
    builder.stop(ran.fence)
    assert builder.run("true").end.state == "succeeded"
    assert builder.result(ran.fence).end.state == "succeeded"


def test_a_daemon_left_behind_ends_with_the_job(builder: Builder, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    fence = builder.send(f"setsid sh -c 'echo $$ >{pid}; exec sleep 600' >/dev/null 2>&1 & sleep 0.2")
    number = number_in(pid)
    assert builder.result(fence).end.state == "succeeded"
    assert started_at(number) is None


def test_a_lane_is_given_back_only_when_nothing_of_the_job_is_left_in_it(builder: Builder) -> None:
    deaf = "trap '' TERM; while :; do echo x >>intruder; sleep 0.01; done"
    first = builder.send(f'setsid sh -c "{deaf}" >/dev/null 2>&1 & sleep 0.1')
    builder.master.await_report(StepFinished, first)
    ran = builder.run("sleep 0.3; ls")
    assert "hello.txt" in ran.log
    assert "intruder" not in ran.log
    assert builder.result(first).end.state == "succeeded"


def test_a_daemon_of_one_step_serves_the_next(builder: Builder, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    ran = builder.run(f"(read word <{fifo}; echo heard $word) & true", f"echo hello >{fifo}; sleep 0.2")
    assert ran.end.state == "succeeded"
    assert "heard hello\n" in ran.log


def test_a_job_that_runs_too_long_is_ended(builder: Builder) -> None:
    ran = builder.run("echo begun; sleep 600", timeout=1.0)
    assert (ran.end.state, ran.end.code, ran.end.exit_code) == ("failed", "timeout", 124)
    assert "begun\n" in ran.log


def test_r58_a_step_that_runs_too_long_is_ended_and_its_log_is_kept(builder: Builder) -> None:
    steps = tuple(
        messages.StepOrder(kind="run", name=script, spec={"script": script}, timeout=limit)
        for script, limit in (("echo quick", 30.0), ("echo begun; sleep 600", 0.5), ("echo never", 0.0))
    )
    ran = builder.run(steps=steps)
    assert (ran.end.state, ran.end.code, ran.end.exit_code) == ("failed", "timeout", 124)
    assert ran.end.sentence == "step 2/3 echo begun; sleep 600 did not end within 500ms"
    assert "quick\n" in ran.log
    assert "begun\n" in ran.log
    assert "step 3/3" not in ran.log
    assert ran.log.endswith("── failed: step 2/3 echo begun; sleep 600 did not end within 500ms\n")
    ends = [body.exit_code for body in ran.reports if isinstance(body, StepFinished)]
    assert ends == [0, 124]


def test_jobs_at_once_have_different_lanes(builder: Builder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    fences = [builder.send("pwd", f"cat {tmp_path}/fifo"), builder.send("pwd", f"echo go >{tmp_path}/fifo")]
    places = {builder.result(fence).log.split("$ pwd\n")[1].split("\n")[0] for fence in fences}
    assert {Path(place).parent.name for place in places} == {"protected-1", "protected-2"}


def test_a_lane_is_clean_for_the_next_job_and_has_no_git_in_it(builder: Builder) -> None:
    builder.run("echo left >left-behind; rm hello.txt; mkdir -p .git/hooks deep/.git; chmod 0 deep")
    ran = builder.run("find . | sort", "git status || true")
    assert ran.log.partition("$ find . | sort\n")[2].partition("──")[0].split() == [
        ".",
        "./hello.txt",
        "./scripts",
        "./scripts/greet.sh",
    ]
    assert "not a git repository" in ran.log


def test_files_of_a_checkout_may_be_read_by_everybody(builder: Builder) -> None:
    assert "644 hello.txt" in builder.run("stat -c '%a %n' hello.txt").log


def test_forks_and_branches_meet_in_no_lane_and_no_home(builder: Builder) -> None:
    for trust in ("protected", "fork", "other"):
        log = builder.run('echo "$PWD $HOME"', trust=trust).log
        assert f"/lanes/shop/{trust}-1/work " in log
        assert f"/homes/shop/{trust}\n" in log


def test_the_log_is_never_read_for_commands(builder: Builder) -> None:
    forged = ("::set-env name=X::y", "image=shop:1", "pushed=registry/shop:1", "##keepflow[image=shop:1]")
    ran = builder.run("; ".join(f"echo '{line}'" for line in forged), images=("shop",))
    assert (ran.end.state, ran.end.images) == ("succeeded", ())


def test_a_flow_that_is_not_in_docker_for_gets_no_engine_and_can_claim_no_image(builder: Builder) -> None:
    ran = builder.run('echo "$DOCKER_HOST"; echo image=shop:1 >>"$KEEPFLOW_OUTPUT"', images=("shop",))
    assert "unix:///nonexistent/" in ran.log
    assert ran.end.state == "failed"
    assert "docker_for" in ran.end.sentence


@pytest.mark.parametrize(
    ("kind", "spec"), [("build", {}), ("compose", {"file": ["test.yml"]}), ("push", {"image": "shop:1"})]
)
@pytest.mark.parametrize(("trust", "words"), [("protected", "add it to docker_for"), ("fork", "code from a fork")])
def test_a_step_that_needs_the_engine_says_who_lends_it_and_begins_nothing(
    builder: Builder, kind: str, spec: dict[str, object], trust: str, words: str
) -> None:
    step = messages.StepOrder(kind=kind, name=kind, spec=spec)
    ran = builder.run(steps=(step,), trust=trust)
    assert (ran.end.state, ran.end.code) == ("failed", "no-engine")
    assert words in ran.end.sentence
    assert "Traceback" not in ran.log
    assert "$ docker" not in ran.log


def test_a_step_can_tell_later_steps(builder: Builder) -> None:
    lines = ("VERSION=7", "KEEPFLOW_SHA=forged", "nonsense")
    tell = "; ".join(f'echo {line} >>"$KEEPFLOW_ENV"' for line in lines)
    ran = builder.run(tell, 'echo "version $VERSION of $KEEPFLOW_SHA"')
    assert f"version 7 of {builder.sha}\n" in ran.log
    assert "env:3: not a line of the form key=value" in ran.log


def test_hostile_names_reach_scripts_as_data_and_run_nothing(builder: Builder) -> None:
    script = 'printf "%s\\n" "$KEEPFLOW_BRANCH" "$GIT_BRANCH" "$KEEPFLOW_MESSAGE"; test "$KEEPFLOW_BRANCH" = "$WANTED"'
    fences = {}
    for name in NAMES:
        env = {"KEEPFLOW_MESSAGE": f"{name}\n{name}", "KEEPFLOW_ACTOR": name, "WANTED": name}
        fences[name] = builder.send(script, ref=f"refs/heads/{name}", env=env)
    for name, fence in fences.items():
        ran = builder.result(fence)
        assert ran.end.state == "succeeded", name
        assert f"\n{name}\norigin/{name}\n{name}\n{name}\n" in ran.log
    assert not os.path.lexists(CANARY)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"project": "../../etc"}, "bad-job"),
        ({"sha": "--upload-pack=x"}, "bad-job"),
        ({"code_path": "@evil.example.org/x"}, "bad-job"),
        ({"steps": (messages.StepOrder(kind="no-such-step", name="x", spec={}),)}, "unknown-step"),
    ],
)
def test_a_job_this_host_cannot_run_is_refused_with_the_reason(
    builder: Builder, more: dict[str, object], code: str
) -> None:
    refused = builder.master.await_report(messages.JobRefused, builder.send("true", **more))
    assert refused.code == code
    assert refused.sentence


def test_a_commit_that_cannot_be_fetched_fails_the_job_with_gits_words(builder: Builder) -> None:
    ran = builder.run("true", sha="b" * 40)
    assert (ran.end.state, ran.end.code) == ("failed", "system")
    assert "git fetch" in ran.end.sentence
    assert "git fetch" in ran.log
    assert "kf_job_secret" not in ran.end.sentence


def test_a_program_that_is_missing_fails_the_step_and_not_the_agent(builder: Builder) -> None:
    ran = builder.run("#!/no/such/interpreter\necho x")
    assert ran.end.state == "failed"
    assert builder.run("true").end.state == "succeeded"


def test_settings_this_version_does_not_know_fail_the_step_as_configuration(builder: Builder) -> None:
    step = messages.StepOrder(kind="run", name="x", spec={"script": "true", "colour": "blue"})
    ran = builder.run("true", steps=(step,))
    assert (ran.end.state, ran.end.code) == ("failed", "config")


def test_an_attempt_is_put_away_when_the_master_has_it_all(builder: Builder) -> None:
    ran = builder.run("true")
    place = builder.agent.state / "attempts" / str(ran.fence)
    wait_until(lambda: not place.exists(), 10, "the attempt was put away")


def test_a_flood_is_cut_its_end_is_kept_and_the_step_goes_on(builder: Builder) -> None:
    flood = "yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -c 60000000"
    ran = builder.run(f"{flood}; echo the-end; exit 5")
    assert ran.end.exit_code == 5
    assert len(ran.log) < 54_000_000
    assert "log is cut here" in ran.log
    assert "the-end\n── step 1/1" in ran.log
