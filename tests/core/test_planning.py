"""Which flows an event starts and why; which jobs a flow becomes and in what order."""

from __future__ import annotations

import json

import pytest
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
from keepflow.core.planning import (
    Hosts,
    broken_flow_file,
    match,
    no_flow_file,
    plan,
    plan_from_json,
    plan_to_json,
    skip_word,
    spread,
)
from tests import hostile

SHA = "a" * 40


def step(name: str = "make") -> JobPart:
    return JobPart(JobKind.SCRIPT, Step("run", name, {"script": name}))


def deploy(target: str = "dev") -> JobPart:
    return JobPart(JobKind.DEPLOY, target=target)


def flow(name: str = "dev", on: Trigger | None = None, *parts: JobPart) -> Flow:
    return Flow(name, on or Trigger(push=(name,)), parts or (step(),))


def file(*flows: Flow) -> FlowFile:
    return FlowFile({found.name: found for found in flows})


def push(branch: str) -> Event:
    return Event(EventKind.PUSH, f"refs/heads/{branch}", SHA)


KEEPWORK = file(
    flow("dev"), flow("test", Trigger(push=("master", "main"))), flow("wip", Trigger(push=("wip/**", "!wip/x")))
)


def test_the_branch_selects_the_flow_and_every_flow_says_why_or_why_not() -> None:
    decision = match(push("dev"), KEEPWORK)
    assert [(found.flow, found.why) for found in decision.matches] == [("dev", "branch 'dev' fits push: dev")]
    assert decision.why_not == {
        "test": "branch 'dev' fits none of push: master, main",
        "wip": "branch 'dev' fits none of push: wip/**, !wip/x",
    }
    assert decision.reason is None


def test_an_exception_is_named_as_the_reason() -> None:
    assert match(push("wip/x"), KEEPWORK).why_not["wip"] == "branch 'wip/x' is taken out by push: !wip/x"


def test_a_branch_that_no_flow_wants_is_decided_and_no_failure() -> None:
    decision = match(push("other"), KEEPWORK)
    assert decision.matches == ()
    assert decision.reason is not None
    assert (decision.reason.code, decision.failed) == ("no-match", False)
    assert decision.reason.sentence == "no flow starts for a push to branch 'other'"


def test_one_event_may_start_several_flows() -> None:
    both = file(flow("a", Trigger(push=("**",))), flow("b", Trigger(push=("dev",))))
    assert [found.flow for found in match(push("dev"), both).matches] == ["a", "b"]


@pytest.mark.parametrize(
    ("event", "on"),
    [
        (Event(EventKind.TAG, "refs/tags/v1", SHA), Trigger(tag=("v*",))),
        (Event(EventKind.PULL_REQUEST, "refs/pull/7/head", SHA), Trigger(pull_request=True)),
        (Event(EventKind.MANUAL, "refs/heads/x", SHA), Trigger(manual=True)),
        (Event(EventKind.SCHEDULE, "refs/heads/x", SHA), Trigger(cron="0 2 * * *")),
    ],
)
def test_each_kind_of_event_starts_what_names_it_and_nothing_else(event: Event, on: Trigger) -> None:
    both = file(flow("yes", on), flow("no", Trigger(push=("dev",))))
    decision = match(event, both)
    assert [found.flow for found in decision.matches] == ["yes"]
    assert decision.why_not == {"no": f"its 'on' does not name {event.kind.value}"}


@pytest.mark.parametrize("branch", hostile.NAMES)
def test_a_hostile_branch_is_answered_in_printable_lines(branch: str) -> None:
    decision = match(push(branch), KEEPWORK)
    sentences = [*decision.why_not.values(), *(found.why for found in decision.matches)]
    assert len(sentences) == 3
    assert all(sentence.isprintable() for sentence in sentences)


@given(st.builds(push, st.text(max_size=40)), st.lists(st.text(max_size=10), max_size=4))
def test_every_flow_gets_exactly_one_sentence(event: Event, patterns: list[str]) -> None:
    flows = file(flow("one", Trigger(push=tuple(patterns))), flow("two", Trigger(manual=True)))
    decision = match(event, flows)
    assert {found.flow for found in decision.matches} | set(decision.why_not) == {"one", "two"}
    assert not {found.flow for found in decision.matches} & set(decision.why_not)


def test_a_missing_flow_file_is_a_failure_that_says_so() -> None:
    decision = no_flow_file(".keepflow.yml", SHA)
    assert decision.failed
    assert decision.reason is not None
    assert decision.reason.code == "no-flow-file"
    assert decision.reason.sentence == "there is no .keepflow.yml at commit aaaaaaaaaaaa"


def test_a_broken_flow_file_shows_its_first_problem_and_counts_the_others() -> None:
    decision = broken_flow_file([".keepflow.yml:3:1: missing 'flows' is missing", "b", "c"])
    assert decision.failed
    assert decision.reason is not None
    assert decision.reason.sentence == ".keepflow.yml:3:1: missing 'flows' is missing (and 2 more)"


@pytest.mark.parametrize("word", ["skip ci", "ci skip", "no ci", "skip-ci", "ci-skip", "Skip CI", "CI-SKIP"])
def test_a_skip_word_is_found_anywhere_in_the_message(word: str) -> None:
    assert skip_word(f"Mend the page\n\n[{word}]") == f"[{word}]".lower()


@pytest.mark.parametrize("message", ["", "skip ci", "[skip]", "[skip  ci]", "(skip ci)", "[skipci]"])
def test_other_words_skip_nothing(message: str) -> None:
    assert skip_word(message) is None


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
