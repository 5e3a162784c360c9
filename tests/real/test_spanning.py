"""Runs that span two machines: two agents, each with a place of its own, and what goes from one to the other (R32)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.processes import AgentProcess
from tests.real.several import Several
from tests.real.waiting import wait_until

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    """Two agents with nothing in common but their master."""
    found = Several(tmp_path_factory.mktemp("spanning"), linux=("linux",), gpu=("gpu",))
    try:
        yield found.start()
    finally:
        found.close()


def states(run: dict[str, object]) -> dict[str, str]:
    jobs = run["jobs"]
    assert isinstance(jobs, dict)
    return {key: job["state"] for key, job in jobs.items()}


THERE_AND_BACK = """\
flows:
  flow:
    on: manual
    jobs:
      make:
        labels: linux
        steps:
          - run: |
              printf 'one\\r\\n' >made; printf 'a\\0b' >binary; mkdir -p out/deep void; echo 1 >out/deep/é
              ln -s out/deep link; ln -s /etc/passwd outside; echo '#!/bin/sh' >tool; chmod +x tool
              echo kept >ignored.o; rm gone; echo 2 >app.c
              head -c 20000000 /dev/urandom >large; sha256sum large >sum
              echo VERSION=7 >>"$KEEPFLOW_OUTPUT"
          - artifacts: [made]
      train:
        needs: make
        labels: gpu
        steps:
          - run: |
              test "$NODE_NAME" = gpu; test "$VERSION" = 7; sha256sum -c sum; rm made
              test "$(cat app.c)" = 2; test ! -e gone; test -x tool; test -d void; test "$(cat ignored.o)" = kept
              test "$(readlink link)" = out/deep; test "$(readlink outside)" = /etc/passwd
              test "$(cat link/é)" = 1; printf 'a\\0b' | cmp - binary; test "$(wc -c <crlf.txt)" = 3
              echo trained >model; mv large moved
      ship:
        needs: train
        steps:
          - run: test "$NODE_NAME" = linux; test "$(cat model)" = trained; test -e moved; test ! -e large; cat sum
"""
FILES: dict[str, str | bytes | None] = {
    "app.c": "1",
    "gone": "x",
    ".gitignore": "*.o\n",
    ".gitattributes": "crlf.txt text eol=crlf\nmade text\n",
    "crlf.txt": "a\n",
}


def test_r32_files_variables_and_artifacts_go_to_another_machine_and_back(two: Several) -> None:
    run = two.run(THERE_AND_BACK, FILES)
    log = two.log(run["number"])
    assert run["state"] == "succeeded", log
    assert log.count("on to other machines") == 2
    wait_until(lambda: not list((two.master.home / "workspaces").iterdir()), 90, "the end of the run's repository")
    assert two.cli("storage", "-o", "json").count('"workspaces": 0') == 1


CLASH = """\
flows:
  flow:
    on: manual
    jobs:
      one: {labels: linux, steps: [run: "echo 1 >version; echo 1 >one"]}
      two: {labels: gpu, steps: [run: "echo 2 >version; echo 2 >two"]}
      both: {needs: [one, two], labels: linux, steps: [run: cat one two]}
      mail: {needs: [both, one, two], when: failure, steps: [run: 'echo "mail: $(cat one two)"']}
"""


def test_r32_files_that_jobs_on_two_machines_both_changed_are_named(two: Several) -> None:
    run = two.run(CLASH, {"version": "0"})
    assert (run["jobs"]["both"]["state"], run["jobs"]["both"]["reason_code"]) == ("failed", "conflict")
    assert run["jobs"]["both"]["reason"] == "jobs that ran side by side both changed version"
    assert states(run)["mail"] == "succeeded", two.log(run["number"])
    assert "\nmail: 1\n2\n" in two.log(run["number"])
    merged = two.run(CLASH.replace("echo 2 >version; ", ""), {"version": "1\n"})
    assert merged["state"] == "succeeded", two.log(merged["number"])
    assert "\n1\n2\n" in two.log(merged["number"])


KILLED = """\
flows:
  flow:
    on: manual
    jobs:
      make:
        labels: linux
        steps:
          - run: |
              head -c 9000000 /dev/urandom >large; sha256sum large >sum; echo made >made
              touch {place}/made; until test -e {place}/go; do sleep 0.05; done
      use:
        needs: make
        labels: gpu
        steps:
          - run: |
              touch {place}/using; until test -e {place}/end; do sleep 0.05; done
              sha256sum -c sum && cat made
"""


def said_by(agent: AgentProcess, text: str) -> bool:
    """Say whether some job's log on an agent's own disk has a text."""
    return any(text.encode() in log.read_bytes() for log in agent.state.glob("attempts/*/log"))


def test_r32_files_reach_the_other_machine_though_master_and_agents_are_killed(two: Several, tmp_path: Path) -> None:
    """The master is away when the files are to go, and the agent is killed while it waits; then the other agent is."""
    tmp_path.chmod(0o777)
    number = two.begin(KILLED.format(place=tmp_path))
    linux, gpu = two.agents["linux"], two.agents["gpu"]
    wait_until((tmp_path / "made").exists, 60, "the first job's work")
    two.master.kill()
    (tmp_path / "go").touch()
    wait_until(lambda: said_by(linux, "the master cannot be reached; waits for it"), 60, "the wait for the master")
    assert linux.process is not None
    linux.process.kill()
    linux.process.wait()
    two.master.start()
    linux.spawn()
    wait_until((tmp_path / "using").exists, 60, f"the second job: {linux.log}")
    gpu.kill()
    gpu.start()
    (tmp_path / "end").touch()
    run = two.ended(number)
    assert run["state"] == "succeeded", two.log(number)
    assert [len(job["attempts"]) for job in run["jobs"].values()] == [1, 1]
    assert "\nlarge: OK\nmade\n" in two.log(number)
    wait_until(lambda: not list((two.master.home / "workspaces").iterdir()), 90, "the end of the run's repository")


def test_r32_what_cannot_be_handed_on_fails_the_job_with_the_reason(two: Several) -> None:
    run = two.run(CLASH.replace("echo 2 >two", "truncate -s 2200000000 two"))
    job = run["jobs"]["two"]
    assert (job["state"], job["reason_code"]) == ("failed", "not-handed-on"), two.log(run["number"])
    assert "larger than the limit of 2048 MiB" in job["reason"]
    assert (states(run)["both"], states(run)["mail"]) == ("skipped", "succeeded"), two.log(run["number"])
