"""Script jobs as another account: they own what they work on, and reach nothing of the agent."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.agent.accounts import jobs_account
from keepflow.config.agent_file import load_agent
from keepflow.executors.shell import started_at
from tests.agent.conftest import running_master
from tests.agent.processes import AgentProcess, Builder

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
ENGINE_GROUP = 987_654  #: a group nobody else is in
MASTER = "master: https://ci.example.org\ncapabilities: [run]\n"


@pytest.fixture(scope="module")
def builder() -> Iterator[Builder]:
    """An agent whose jobs run as `nobody`, in a place that account can enter."""
    place = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="kf-test-"))
    place.chmod(0o755)
    with running_master(place) as (master, sha), socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(place / "engine.sock"))
        os.chown(place / "engine.sock", 0, ENGINE_GROUP)
        agent = AgentProcess(
            master,
            place,
            file=f"capabilities: [run]\njobs_user: nobody\ndocker_for: [shop/dev]\ndocker: {{host: unix://{place}/engine.sock}}\n",
        )
        agent.start()
        try:
            yield Builder(master, agent, sha)
        finally:
            agent.close()
            shutil.rmtree(place)


@ROOT_ONLY
def test_a_job_is_that_account_and_owns_its_places(builder: Builder) -> None:
    write = 'for place in . "$HOME" "$TMPDIR"; do echo x >"$place/written"; done; echo key=value >>"$KEEPFLOW_OUTPUT"'
    ran = builder.run("id -un; whoami", write, "cat hello.txt >copy; echo changed >hello.txt")
    assert ran.end.state == "succeeded", ran.log
    assert "$ id -un; whoami\nnobody\nnobody\n" in ran.log
    again = builder.run("cat hello.txt; ls", "echo more >>hello.txt")
    assert "\nhello\n" in again.log
    assert "copy" not in again.log
    assert again.end.state == "succeeded"


@ROOT_ONLY
def test_its_output_streams_can_be_opened_anew(builder: Builder) -> None:
    ran = builder.run("echo one >/dev/stderr; echo two | tee /dev/stderr")
    assert ran.end.state == "succeeded", ran.log
    assert "\none\n" in ran.log


@ROOT_ONLY
def test_it_reaches_nothing_of_the_agent(builder: Builder) -> None:
    state = builder.agent.state
    for script in (
        f"ls {state}",
        f"cat {state}/key.pem",
        f"ls {state}-jobs/lanes/shop/protected-1/git",
        "ls $HOME/../..",
    ):
        assert builder.run(script).end.state == "failed", script
    assert (state.stat().st_mode & 0o777) == 0o700


@ROOT_ONLY
def test_only_listed_flows_are_in_the_engines_group(builder: Builder) -> None:
    group = str(ENGINE_GROUP)
    listed, other = builder.run("id -G", flow="dev"), builder.run("id -G", flow="checks")
    fork = builder.run("id -G", flow="dev", trust="fork")
    assert group in listed.log.partition("$ id -G\n")[2].split("\n")[0].split()
    for ran in (other, fork):
        assert group not in ran.log.partition("$ id -G\n")[2].split("\n")[0].split()
        assert "succeeded" in ran.end.state


@ROOT_ONLY
def test_what_it_leaves_running_is_ended_all_the_same(builder: Builder) -> None:
    ran = builder.run("setsid sleep 600 >/dev/null 2>&1 & echo $! >/proc/self/fd/1; sleep 0.2")
    number = int(next(line for line in ran.log.split("\n") if line.isdigit()))
    assert started_at(number) is None


@ROOT_ONLY
def test_what_hides_from_the_end_of_its_job_is_ended_all_the_same(builder: Builder) -> None:
    """Without a mark, in a session of its own, left to init: it would wait for the login that the next job is lent."""
    hiding = "(setsid env -i sh -c 'echo $$ >left; exec sleep 600' </dev/null >/dev/null 2>&1 &)"
    ran = builder.run(f"{hiding}; while ! [ -s left ]; do sleep 0.05; done; cat left")
    number = int(next(line for line in ran.log.split("\n") if line.isdigit()))
    assert ran.end.state == "succeeded", ran.log
    assert started_at(number) is None


@ROOT_ONLY
def test_a_job_nobody_trusts_reaches_no_home_and_no_lane_of_a_trusted_one(builder: Builder) -> None:
    assert builder.run("echo 'touch here' >$HOME/.profile").end.state == "succeeded"
    home, lane = "$HOME/../protected", "$WORKSPACE/../../protected-1"
    for script in (f"echo x >>{home}/.profile", f"ls {home}", f"ls {lane}/work", f"cat {lane}/git/config"):
        assert builder.run(script, trust="other").end.state == "failed", script
    assert "touch here" in builder.run("cat $HOME/.profile").log


@ROOT_ONLY
def test_the_host_has_nothing_to_warn_of(builder: Builder) -> None:
    assert not [word for word in builder.master.hellos[-1].warnings if "jobs" in word]


def test_an_account_that_does_not_exist_is_told_with_the_command_that_makes_it() -> None:
    with pytest.raises(errors.UsageError, match=r"useradd --system .* no-such-account"):
        jobs_account(load_agent(f"{MASTER}jobs_user: no-such-account\n"))


def test_the_agents_own_account_needs_no_change() -> None:
    own = pwd.getpwuid(os.geteuid()).pw_name
    assert jobs_account(load_agent(f"{MASTER}jobs_user: {own}\n")).account is None


def test_an_agent_that_cannot_withhold_the_engine_says_so(tmp_path: Path) -> None:
    (tmp_path / "docker.sock").write_text("")
    found = jobs_account(load_agent(f"{MASTER}docker: {{host: 'unix://{tmp_path}/docker.sock'}}\n"))
    assert any("docker_for" in warning for warning in found.warnings(()))


def test_without_an_engine_there_is_nothing_to_withhold(tmp_path: Path) -> None:
    found = jobs_account(load_agent(f"{MASTER}docker: {{host: 'unix://{tmp_path}/docker.sock'}}\n"))
    assert not any("docker_for" in warning for warning in found.warnings(()))
