"""What scripts see: the promised names, the push as data, and nothing of the agent's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.agent import environment
from keepflow.agent.environment import Places
from keepflow.core.interpolation import VARIABLES
from keepflow.core.matching import OWN_EMAIL
from tests.agent.test_attempts import order
from tests.hostile import CANARY, NAMES

PLACES = Places(
    workspace=Path("/w"),
    home=Path("/h"),
    output=Path("/o"),
    env=Path("/e"),
    docker_config=Path("/d"),
    temporary=Path("/t"),
    engine=None,
)


def job_env(**more: object) -> dict[str, str]:
    return environment.of_job(order(7, **more), "build-1", "https://ci.example.org", "ann", "mark", PLACES)


def test_every_promised_name_is_there() -> None:
    found = environment.of_step(job_env(), "make")
    assert {*VARIABLES, "CI", "KEEPFLOW_OUTPUT", "KEEPFLOW_ENV", "DOCKER_CONFIG", "HOME"} <= found.keys()


def test_the_names_of_jenkins_say_the_same() -> None:
    found = job_env(run=42, env={"KEEPFLOW_RUN_URL": "https://ci.example.org/projects/shop/runs/42"})
    assert {name: found[name] for name in VARIABLES if not name.startswith("KEEPFLOW_")} == {
        "BUILD_NUMBER": "42",
        "BUILD_ID": "42",
        "BUILD_URL": "https://ci.example.org/projects/shop/runs/42",
        "BUILD_TAG": "keepflow-shop-dev-42",
        "JOB_NAME": "shop/dev",
        "NODE_NAME": "build-1",
        "WORKSPACE": "/w",
        "GIT_COMMIT": "a" * 40,
        "GIT_URL": "https://ci.example.org/git/shop",
        "JENKINS_URL": "https://ci.example.org/",
        "JENKINS_HOME": "/h",
        "GIT_BRANCH": "origin/dev",
        "BRANCH_NAME": "dev",
    }
    assert (found["CI"], found["KEEPFLOW_BRANCH"], found["KEEPFLOW_TAG"]) == ("true", "dev", "")


def test_r07_a_commit_of_a_script_without_identity_is_known_as_keepflows(tmp_path: Path) -> None:
    env = {**job_env(), "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=tmp_path, env=env, check=True, capture_output=True
        ).stdout.decode()

    git("init", "--quiet")
    git("-c", "user.name=Robot", "commit", "--quiet", "--allow-empty", "-m", "Raise the version")
    assert git("log", "-1", "--format=%ce").strip() == OWN_EMAIL
    git("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "commit", "--quiet", "--allow-empty", "-m", "More")
    assert git("log", "-1", "--format=%ce").strip() == "ann@example.org"


def test_a_tag_is_no_branch() -> None:
    found = job_env(ref="refs/tags/v1")
    assert (found["KEEPFLOW_TAG"], found["KEEPFLOW_BRANCH"], found["GIT_BRANCH"]) == ("v1", "", "")


def test_the_master_cannot_move_what_belongs_to_the_host() -> None:
    theirs = {"HOME": "/root", "WORKSPACE": "/", "DOCKER_HOST": "unix:///run/docker.sock", "KEEPFLOW_OUTPUT": "/etc/x"}
    found = job_env(env=theirs)
    assert not set(theirs.items()) & set(found.items())
    assert found["DOCKER_HOST"].startswith("unix:///nonexistent/")


def test_the_agents_own_environment_stays_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("KEEPFLOW_AGENT_STATE", "/var/lib/keepflow/agent")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert not {"NOTIFY_SOCKET", "KEEPFLOW_AGENT_STATE", "AWS_SECRET_ACCESS_KEY"} & job_env().keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_branch_arrives_as_itself_and_runs_nothing(name: str) -> None:
    env = job_env(ref=f"refs/heads/{name}", env={"KEEPFLOW_MESSAGE": name, "KEEPFLOW_ACTOR": name})
    script = 'printf %s "$KEEPFLOW_BRANCH|$BRANCH_NAME|$KEEPFLOW_MESSAGE|$KEEPFLOW_ACTOR"'
    done = subprocess.run(["sh", "-e", "-c", script], env=env, capture_output=True, check=True)
    assert done.stdout.decode() == "|".join([name] * 4)
    assert not os.path.lexists(CANARY)


@given(st.text(st.characters()), st.text(st.characters()))
def test_any_value_is_one_that_programs_can_be_started_with(name: str, value: str) -> None:
    found = environment.clean({name: value, "LONG": value * 5000})
    for key, text in found.items():
        assert key
        assert "=" not in key
        assert "\0" not in key + text
        assert len(os.fsencode(text)) < 128 * 1024
    done = subprocess.run(["env", "-0"], env={**found, "PATH": os.environ["PATH"]}, capture_output=True, check=True)
    assert b"LONG=" in done.stdout


def test_an_ordinary_value_is_not_changed() -> None:
    text = "Grüße, 世界 \n second line \t 'quoted'"
    assert environment.clean({"A": text}) == {"A": text}


def test_a_script_cannot_add_what_keepflow_says_or_what_loads_code() -> None:
    lines = {"VERSION": "2", "KEEPFLOW_SHA": "x", "LD_PRELOAD": "/evil.so", "DOCKER_HOST": "x", "HOME": "/", "CI": "0"}
    assert environment.added(lines) == {"VERSION": "2"}
