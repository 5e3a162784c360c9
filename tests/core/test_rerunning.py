"""Which jobs of a run work anew when it runs again, and which ones count as they ended (R59)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.flows import JobKind, Plan, PlannedJob
from keepflow.core.planning import Hosts, spread
from keepflow.core.rerunning import anew, succeeded, unspread
from keepflow.core.sharing import bases
from keepflow.core.states import State


def script(key: str, *needs: str) -> PlannedJob:
    return PlannedJob(key, JobKind.SCRIPT, needs)


def deploy(key: str, *needs: str) -> PlannedJob:
    return PlannedJob(key, JobKind.DEPLOY, needs, target="dev")


JOBS = (
    script("lint"),
    script("build"),
    script("test", "build"),
    deploy("dev", "build", "test"),
    script("smoke", "dev"),
)


@pytest.mark.parametrize(
    ("failed", "first", "work"),
    [
        ({"dev", "smoke"}, None, {"dev", "smoke", "build", "test"}),  # smoke goes on with files of build and test
        ({"smoke"}, None, {"smoke", "build", "test"}),
        ({"lint"}, None, {"lint"}),
        (set(), None, set()),
        (set(), "lint", {"lint"}),
        (set(), "test", {"test", "dev", "smoke", "build"}),
        ({"lint"}, "smoke", {"lint", "smoke", "build", "test"}),
    ],
)
def test_r59_what_did_not_succeed_and_what_hangs_on_it_works_anew(
    failed: set[str], first: str | None, work: set[str]
) -> None:
    assert anew(JOBS, {job.key: job.key not in failed for job in JOBS}, first) == work


def test_r59_a_deploy_alone_needs_no_new_build() -> None:
    jobs = (script("build"), deploy("dev", "build"))
    assert anew(jobs, {"build": True, "dev": False}, None) == {"dev"}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[PlannedJob, ...]:
    """Draw a graph of jobs, needs before those that need them."""
    made: list[PlannedJob] = []
    for number in range(draw(st.integers(1, 8))):
        needs = tuple(sorted(draw(st.sets(st.sampled_from([job.key for job in made]), max_size=3)))) if made else ()
        make = draw(st.sampled_from((script, deploy)))
        made.append(make(f"j{number}", *needs))
    return tuple(made)


@given(graphs(), st.data())
def test_r59_no_job_that_works_anew_misses_the_files_it_goes_on_with(
    jobs: tuple[PlannedJob, ...], data: st.DataObject
) -> None:
    well = {job.key: data.draw(st.booleans()) for job in jobs}
    first = data.draw(st.none() | st.sampled_from([job.key for job in jobs]))
    work = anew(jobs, well, first)
    files = bases(jobs)
    for job in jobs:
        if not well[job.key] or job.key == first:
            assert job.key in work
        if job.key in work:
            assert set(files.get(job.key, ())) <= work


@given(graphs(), st.integers(1, 3), st.integers(1, 2))
def test_a_plan_that_was_spread_over_hosts_is_gathered_again(
    jobs: tuple[PlannedJob, ...], hosts: int, at_once: int
) -> None:
    plan = Plan("dev", jobs)
    places = {"dev": Hosts(tuple(f"h{number}" for number in range(hosts)), at_once)}
    gathered = unspread(spread(plan, places))
    assert [(job.key, set(job.needs), job.host, job.group) for job in gathered.jobs] == [
        (job.key, set(job.needs), "", "") for job in jobs
    ]


def test_a_deploy_succeeded_when_it_did_on_all_hosts() -> None:
    plan = spread(Plan("dev", (script("build"), deploy("dev", "build"))), {"dev": Hosts(("a", "b"))})
    states = {"build": State.SUCCEEDED, "dev-a": State.SUCCEEDED, "dev-b": State.FAILED}
    assert succeeded(plan, states) == {"build": True, "dev": False}
