"""Graphs of jobs on a real agent, among them the flows of T1-CICD and flow-build-server as their authors wrote them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.up import PROJECT, Up

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A master and an agent that runs four jobs at once."""
    found = Up(tmp_path_factory.mktemp("graphs"))
    try:
        yield found.start()
    finally:
        found.close()


def states(run: dict[str, Any]) -> dict[str, str]:
    return {key: job["state"] for key, job in run["jobs"].items()}


#: Section `jobs` of T1-CICD's own example; what its images do is done by the shell.
T1 = """\
flows:
  pipeline-example:
    on: manual
    stages: [build, test, documentation]
    jobs:
      validation: {stage: build, steps: [{run: [echo check, mkdir -p build]}]}
      compile: {stage: build, needs: validation, steps: [{run: "test -d build && echo classes >build/classes"}]}
      testing: {stage: test, steps: [{run: [cat build/classes, "false"]}], allow_failure: true}
      javadoc:
        stage: documentation
        steps: [{run: "mkdir -p build/docs/javadoc && cp build/classes build/docs/javadoc/"}]
"""


def test_t1_cicd_stages_run_in_order_and_a_job_that_may_fail_stops_nothing(up: Up) -> None:
    """R19, R21: the flow of T1-CICD's README."""
    run = up.run(T1, "pipeline-example")
    assert states(run) == {
        "validation": "succeeded",
        "compile": "succeeded",
        "testing": "failed",
        "javadoc": "succeeded",
    }
    assert (run["state"], run["reason"]) == ("succeeded", "testing failed, and may (allow_failure)")
    jobs = list(run["jobs"].values())
    assert all(before["finished_at"] <= after["started_at"] for before, after in itertools.pairwise(jobs))


#: flow-build-server's sample: its repeated key `job:` became names, its compose files became scripts.
SUPPER = """\
flows:
  supper-workflow:
    on: manual
    inputs: {breaks: {default: none}}
    jobs:
      git: {success: build, failure: email, steps: [{run: ./step git}]}
      build: {success: deploy, failure: email, steps: [{run: ./step build}]}
      deploy: {success: integration-tests, failure: email, steps: [{run: ./step qa-deploy}]}
      integration-tests: {failure: email, steps: [{run: ./step integration}]}
      email: {steps: [{run: 'echo "mail: $KEEPFLOW_FAILED_JOBS failed after $(cat done)"'}]}
"""
STEP = '#!/bin/sh\nset -eu\necho "$1" >>done\ntest "$1" != "$(cat breaks)"\n'


@pytest.mark.parametrize("breaks", ["none", "qa-deploy"])
def test_flow_build_server_jobs_follow_each_other_and_email_is_the_handler_of_any_failure(up: Up, breaks: str) -> None:
    """R22, R32: edges, and the workspace that the steps share."""
    files: dict[str, str | bytes | None] = {"step": STEP, "breaks": breaks}
    run = up.run(SUPPER.replace("./step", "sh step"), "supper-workflow", files)
    if breaks == "none":
        assert (run["state"], states(run)["email"]) == ("succeeded", "skipped")
        assert states(run)["integration-tests"] == "succeeded"
    else:
        assert states(run) == {
            "git": "succeeded",
            "build": "succeeded",
            "deploy": "failed",
            "integration-tests": "skipped",
            "email": "succeeded",
        }
        assert run["jobs"]["integration-tests"]["reason"] == "because deploy failed"
        assert run["state"] == "failed"
        assert "\nmail: deploy failed after git build qa-deploy\n" in up.log(run["number"]).replace(
            "git\nbuild\nqa-deploy", "git build qa-deploy"
        )


def test_r20_r32_jobs_side_by_side_overlap_and_the_next_one_has_the_work_of_all(up: Up, tmp_path: Path) -> None:
    """Each of two jobs waits for the other one: only together do they end. A third needs a failure that never comes."""
    tmp_path.chmod(0o777)
    meet = (
        f"touch {tmp_path}/$KEEPFLOW_JOB; for i in $(seq 300); do test -e {tmp_path}/$OTHER && exit 0; sleep 0.1; done"
    )
    text = f"""\
flows:
  graph:
    on: manual
    jobs:
      make: {{steps: [{{run: ["echo 1 >made", 'echo "VERSION=1.2" >>"$KEEPFLOW_OUTPUT"']}}]}}
      left:
        needs: make
        steps: [{{run: "cat made && echo l >left"}}, {{run: "OTHER=right; {meet}; exit 1"}}]
      right:
        needs: make
        steps: [{{run: "cat made && echo r >right"}}, {{run: "OTHER=left; {meet}; exit 1"}}]
      pack: {{needs: [left, right], steps: [{{run: 'echo "packed $(cat made left right | tr -d "\\n") $VERSION"'}}]}}
      undo: {{needs: [left, right, pack], when: failure, steps: [{{run: exit 1}}]}}
      clean: {{needs: [pack, undo], when: always, steps: [{{run: "test -e left && test -e right"}}]}}
"""
    run = up.run(text, "graph")
    assert (run["state"], states(run)) == (
        "succeeded",
        {
            "make": "succeeded",
            "left": "succeeded",
            "right": "succeeded",
            "pack": "succeeded",
            "undo": "skipped",
            "clean": "succeeded",
        },
    ), up.log(run["number"])
    assert "\npacked 1lr 1.2\n" in up.log(run["number"])
    kept = list(up.master.home.rglob("kept.json"))
    assert kept == [], "nothing is kept for a run that has ended"


def test_why_says_in_words_what_became_of_each_job(up: Up) -> None:
    text = "flows: {a: {on: manual, jobs: {x: {steps: [run: exit 7]}, y: {needs: x, steps: [run: echo]}}}}\n"
    run = up.run(text, "a")
    argv = [sys.executable, "-m", "keepflow.cli.main", "why", f"{PROJECT}#{run['number']}"]
    done = subprocess.run(
        argv, env={"KEEPFLOW_HOME": str(up.master.home), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "exit code 7" in done.stdout
    assert "skipped: because x failed" in done.stdout
    shown = subprocess.run(
        [*argv[:3], "show", argv[4], "-o", "json"],
        env={"KEEPFLOW_HOME": str(up.master.home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    jobs = json.loads(shown.stdout)["jobs"]
    assert [(job["key"], job["level"], job["needs"]) for job in jobs] == [("x", 1, []), ("y", 2, ["x"])]
