"""Which jobs a flow becomes and in what order."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.events import Event, EventKind
from keepflow.core.flows import (
    Container,
    Flow,
    FlowFile,
    JobKind,
    JobPart,
    PlannedJob,
    Step,
    Strategy,
    Trigger,
    Volume,
)
from keepflow.core.planning import Hosts, plan, plan_from_json, plan_to_json, spread

SHA = "a" * 40


def step(name: str = "make") -> JobPart:
    return JobPart(JobKind.SCRIPT, Step("run", name, {"script": name}))


def deploy(target: str = "dev") -> JobPart:
    return JobPart(JobKind.DEPLOY, target=target)


def flow(name: str = "dev", on: Trigger | None = None, *parts: JobPart) -> Flow:
    return Flow(name, on or Trigger(push=(name,)), parts or (step(),))


def file(*flows: Flow) -> FlowFile:
    return FlowFile({found.name: found for found in flows})


def test_neighbouring_steps_are_one_job_and_a_deploy_waits_for_them() -> None:
    jobs = plan(flow("dev", None, step("a"), step("b"), deploy(), step("c")), FlowFile({})).jobs
    assert [(job.key, job.kind, job.needs) for job in jobs] == [
        ("steps", JobKind.SCRIPT, ()),
        ("deploy-dev", JobKind.DEPLOY, ("steps",)),
        ("steps-2", JobKind.SCRIPT, ("deploy-dev",)),
    ]
    assert [found.name for found in jobs[0].steps] == ["a", "b"]
    assert jobs[1].target == "dev"


parts = st.lists(
    st.builds(step, st.text(max_size=5)) | st.builds(deploy, st.sampled_from(["dev", "dev-2", "test"])),
    min_size=1,
    max_size=9,
)
containers = st.none() | st.builds(
    Container,
    env=st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
    volumes=st.lists(st.builds(Volume, st.text(max_size=3), st.text(max_size=3), st.booleans()), max_size=2).map(tuple),
    strategy=st.sampled_from(Strategy),
)


@given(parts, containers, st.none() | st.text(max_size=5))
def test_a_plan_keeps_every_part_once_in_order_under_keys_of_its_own(
    given_parts: list[JobPart], container: Container | None, image: str | None
) -> None:
    made = plan(flow("x", None, *given_parts), FlowFile({}, image=image, container=container))
    keys = [job.key for job in made.jobs]
    assert len(set(keys)) == len(keys)
    assert [job.needs for job in made.jobs] == [(), *((key,) for key in keys[:-1])]
    flat = [part for job in made.jobs for part in (job.steps or (job.target,))]
    assert flat == [part.step or part.target for part in given_parts]
    assert (made.image, made.container) == (image, container)


@given(parts, containers, st.none() | st.text(max_size=5))
def test_a_plan_survives_the_store_unchanged(
    given_parts: list[JobPart], container: Container | None, image: str | None
) -> None:
    made = plan(flow("x", None, *given_parts), FlowFile({}, image=image, container=container))
    assert plan_from_json(json.loads(json.dumps(plan_to_json(made)))) == made


def test_an_event_survives_the_store_unchanged() -> None:
    event = Event(EventKind.TAG, "refs/tags/v1", SHA, before="b" * 40, forced=True, message="m", inputs={"a": "b"})
    assert Event.from_json(json.loads(json.dumps(event.to_json()))) == event
    assert (event.tag, event.branch) == ("v1", None)


def test_a_deploy_goes_to_every_host_of_its_environment_in_batches() -> None:
    made = plan(flow("dev", None, step(), deploy("dev"), step("tell")), file())
    spread_out = spread(made, {"dev": Hosts(("a", "b", "c"), at_once=2)})
    found = [(job.key, job.host, job.needs) for job in spread_out.jobs]
    assert found == [
        ("steps", "", ()),
        ("deploy-dev-a", "a", ("steps",)),
        ("deploy-dev-b", "b", ("steps",)),
        ("deploy-dev-c", "c", ("deploy-dev-a", "deploy-dev-b")),
        ("steps-2", "", ("deploy-dev-a", "deploy-dev-b", "deploy-dev-c")),
    ]
    assert {job.group for job in spread_out.jobs if job.kind == JobKind.DEPLOY} == {"deploy-dev"}


def test_a_deploy_to_one_host_keeps_its_name_and_one_to_no_environment_keeps_no_host() -> None:
    made = plan(flow("dev", None, deploy("dev"), deploy("nowhere")), file())
    found = spread(made, {"dev": Hosts(("local",), at_once=3)})
    assert [(job.key, job.host) for job in found.jobs] == [("deploy-dev", "local"), ("deploy-nowhere", "")]


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True),
    st.integers(1, 9),
    st.integers(0, 2),
)
def test_every_host_is_named_once_and_no_batch_is_larger_than_allowed(
    hosts: list[str], at_once: int, more: int
) -> None:
    made = plan(flow("dev", None, *[deploy("dev")] * (more + 1)), file())
    found = spread(made, {"dev": Hosts(tuple(hosts), at_once)})
    keys = [job.key for job in found.jobs]
    assert len(set(keys)) == len(keys)
    for group in {job.group for job in found.jobs}:
        of_group = [job for job in found.jobs if job.group == group]
        assert [job.host for job in of_group] == hosts
        batches: dict[tuple[str, ...], list[PlannedJob]] = {}
        for job in of_group:
            batches.setdefault(job.needs, []).append(job)
        assert all(len(batch) <= at_once for batch in batches.values())
    assert all(need in keys[: keys.index(job.key)] for job in found.jobs for need in job.needs)
    assert spread(found, {}) == found
    assert plan_from_json(plan_to_json(found)) == found
