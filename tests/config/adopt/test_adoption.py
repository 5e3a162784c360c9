"""Flow files of other systems: what they become, and that everything else is said with its line."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from keepflow.config.adoption import Adopted, adopted, formats
from keepflow.config.flow_file import load_flow
from keepflow.core.events import Event, EventKind
from keepflow.core.flows import FlowFile, Plan
from keepflow.core.matching import match
from keepflow.core.planning import plan
from keepflow.errors import ConfigError, KeepflowError, UsageError
from keepflow.ports import discover
from tests.config.adopt import samples

KINDS = discover("keepflow.steps")


def adopt(text: str, file: str = "ci.yml") -> tuple[FlowFile, Adopted]:
    found = adopted(text.encode(), file, KINDS, "shop")
    return load_flow(found.text, KINDS), found


def planned(flow_file: FlowFile, flow: str) -> Plan:
    return plan(flow_file.flows[flow], flow_file)


def starts(flow_file: FlowFile, kind: EventKind, ref: str) -> set[str]:
    decision = match(Event(kind, ref, "0" * 40), flow_file)
    return {found.flow for found in decision.matches}


def lost(found: Adopted) -> dict[str, int]:
    return {loss.what: loss.line for loss in found.losses}


def scripts(of: Plan) -> list[str]:
    return [str(step.spec.get("script", step.kind)) for job in of.jobs for step in job.steps]


def test_a_caicloud_file_keeps_its_order_its_containers_and_its_services() -> None:
    flow_file, found = adopt(samples.CAICLOUD, "caicloud.yml")
    released = planned(flow_file, "release")
    steps = [step for job in released.jobs for step in job.steps]
    assert [step.name for step in steps][:1] == ["pre_build"]
    assert [step.kind for step in steps] == ["run", "build", "run", "push", "run"]
    assert steps[0].where == {"image": {"name": "golang:1.6", "at": "/go/src/github.com/caicloud/ci-demo-go"}}
    assert steps[0].spec["script"].endswith('code/app "/go/src/github.com/caicloud/ci-demo-go/"\n')
    assert steps[1].spec == {"context": "publish", "dockerfile": "publish/Dockerfile_publish"}
    assert set(steps[2].where["services"]) == {"postgres", "app"}
    assert steps[2].where["services"]["app"]["image"] == "BUILT_IMAGE"
    assert steps[2].spec["script"].startswith("export CGO_ENABLED=0\n")
    assert starts(flow_file, EventKind.PUSH, "refs/heads/x") == {"integration"}
    assert starts(flow_file, EventKind.TAG, "refs/tags/v1") == {"release"}
    assert lost(found) == {"deploy (kubernetes)": 14}
    assert "T-in-clear" not in found.text


def test_named_steps_of_a_caicloud_section_keep_their_order_and_an_idle_section_is_said() -> None:
    text = "pre_build:\n  b: {image: a:1, commands: make}\n  a: {image: a:1, commands: [make x]}\npost_build: {x: 1}\n"
    flow_file, found = adopt(text, "caicloud.yml")
    names = [step.name for job in planned(flow_file, "integration").jobs for step in job.steps]
    assert names[:2] == ["pre_build.b", "pre_build.a"]
    assert lost(found) == {}


def test_what_no_flow_file_may_ask_for_is_said_with_its_line() -> None:
    text = "integration:\n  image: a:1\n  commands: [make]\n  privileged: true\n  volumes: [/:/host]\n"
    text += "  services:\n    db: {image: b:1, links: [x]}\n"
    _, found = adopt(text, "caicloud.yml")
    assert lost(found) == {"integration.privileged": 4, "integration.volumes": 5, "integration.services.db.links": 7}


def test_a_pipeline_of_t1cicd_keeps_stages_needs_and_images() -> None:
    flow_file, found = adopt(samples.T1CICD)
    jobs = {job.key: job for job in planned(flow_file, "pipeline-example").jobs}
    assert jobs["compile"].needs == ("validation",)
    assert set(jobs["testing"].needs) == {"validation", "compile"}
    assert jobs["javadoc"].needs == ("testing",)
    assert jobs["testing"].allow_failure
    assert jobs["testing"].where["image"] == {"name": "openjdk:8", "at": "/app"}
    assert scripts(planned(flow_file, "pipeline-example"))[0] == "echo check\ngradle checkstyleMain\n"
    assert lost(found)["jobs.testing.allow_failure"] == 7


def test_r28_a_script_of_t1cicd_that_is_text_is_one_line_and_not_its_letters() -> None:
    text = "name: p\njobs:\n  a: {stage: build, script: gradle test}\n"
    flow_file, _ = adopt(text)
    assert scripts(planned(flow_file, "p")) == ["gradle test\n"]


def test_r22_no_job_of_a_workflow_is_lost_although_all_have_the_same_key() -> None:
    flow_file, found = adopt(samples.FLOW_BUILD_SERVER)
    jobs = {job.key: job for job in planned(flow_file, "supper-workflow").jobs}
    assert list(jobs) == ["git", "build", "deploy", "integration-tests", "email"]
    assert (jobs["build"].needs, jobs["deploy"].needs) == (("git",), ("build",))
    assert set(jobs["email"].needs) == {"git", "build", "deploy", "integration-tests"}
    assert jobs["email"].when == "failure"
    assert lost(found) == {"flow 'supper workflow'": 3}


@pytest.mark.parametrize(
    "jobs",
    [
        "[{name: a, action: a.yml, success: [b]}, {name: b, action: b.yml}]",
        "[{job: {name: a, action: a.yml, success: b}}, {job: {name: b, action: b.yml}}]",
        "{a: {action: a.yml, success: [b]}, b: {action: b.yml}}",
    ],
)
def test_jobs_of_a_workflow_may_be_written_as_a_list_too(jobs: str) -> None:
    flow_file, _ = adopt(f"workflows: [{{workflow: {{name: w, jobs: {jobs}}}}}]\n")
    assert [(job.key, job.needs) for job in planned(flow_file, "w").jobs] == [("a", ()), ("b", ("a",))]


def test_a_job_that_nobody_leads_to_never_ran_and_is_left_out() -> None:
    jobs = "    - {name: a, action: a.yml}\n    - {name: b, action: b.yml}\n"
    text = f"workflows:\n- workflow:\n    name: w\n    jobs:\n{jobs}"
    flow_file, found = adopt(text)
    assert [job.key for job in planned(flow_file, "w").jobs] == ["a"]
    assert lost(found) == {"job b": 6}


def test_a_woodpecker_file_keeps_steps_conditions_services_and_secrets() -> None:
    flow_file, found = adopt(samples.WOODPECKER, ".woodpecker.yml")
    jobs = {job.key: job for job in planned(flow_file, "pipeline").jobs}
    assert list(jobs) == ["install", "unit-tests", "lint", "publish", "complain"]
    assert jobs["unit-tests"].needs == ("install",)
    assert (jobs["complain"].when, jobs["lint"].allow_failure) == ("failure", True)
    test = jobs["unit-tests"].steps[0]
    assert test.spec["script"] == 'export NODE_ENV=test\nnpm test -- --grep "it\'s fine"\n'
    assert [(use.name, use.env) for use in test.secrets] == [("npm_token", "NPM_TOKEN")]
    assert jobs["install"].where["services"]["database"]["image"] == "postgres:16"
    assert starts(flow_file, EventKind.PUSH, "refs/heads/main") == {"pipeline"}
    assert starts(flow_file, EventKind.PUSH, "refs/heads/release/old") == set()
    said = lost(found)
    assert said["step on tags only"] == 30
    assert said["step slack"] == 38
    assert said["matrix"] == 41
    assert said["services.database.ports"] == 11


def test_a_drone_file_becomes_a_flow_for_every_pipeline() -> None:
    flow_file, found = adopt(samples.DRONE, ".drone.yml")
    assert list(flow_file.flows) == ["default", "nightly"]
    assert starts(flow_file, EventKind.MANUAL, "refs/heads/master") == {"nightly"}
    jobs = {job.key: job for job in planned(flow_file, "default").jobs}
    assert jobs["frontend"].needs == ("backend",)
    assert starts(flow_file, EventKind.PUSH, "refs/heads/master") == {"default"}
    said = lost(found)
    assert said["platform"] == 4
    assert said["step backend.volumes"] == 10
    assert said["the events.event: cron"] == 19
    assert said["kind: secret"] == 24


def test_a_gitlab_file_keeps_stages_templates_variables_and_services() -> None:
    flow_file, found = adopt(samples.GITLAB, ".gitlab-ci.yml")
    jobs = {job.key: job for job in planned(flow_file, "pipeline").jobs}
    assert list(jobs) == ["compile", "unit-tests", "style", "report"]
    assert jobs["unit-tests"].needs == ("compile",)
    assert (jobs["report"].when, jobs["style"].allow_failure) == ("failure", True)
    assert jobs["unit-tests"].where["services"]["db"] == {"image": "postgres:16", "env": {"POSTGRES_PASSWORD": "x"}}
    script = jobs["compile"].steps[0].spec["script"]
    assert script == 'export PIP_CACHE_DIR="$CI_PROJECT_DIR/.cache"\npip install -r requirements.txt\nmake\n'
    said = lost(found)
    assert [said["ship"], said["rollback.when: manual"], said["CI_PROJECT_DIR"]] == [27, 33, 3]
    assert said["unit tests.coverage"] == 15


@pytest.mark.parametrize("text", [samples.CAICLOUD, samples.T1CICD, samples.WOODPECKER, samples.DRONE, samples.GITLAB])
def test_the_losses_are_comments_at_the_top_of_the_new_file(text: str) -> None:
    _, found = adopt(text)
    for loss in found.losses:
        assert f"#   line {loss.line}: {loss.what}: {loss.why}\n" in found.text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "unknown-format"),
        ("[1, 2]", "unknown-format"),
        ("hello: world\n", "unknown-format"),
        ("a: [b\n", "config"),
        ("a: *b\n", "config"),
        ("\x00", "config"),
        ("[" * 3000, "config"),
        ("workflows: []\n", "nothing-left"),
        ("workflows: [{workflow: {name: w, jobs: {}}}]\n", "nothing-left"),
        ("steps: &a [*a]\n", "config"),
        ("x: " + "y" * 300_000, "config"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_says_so(text: str, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        adopt(text)
    assert caught.value.code == code


def test_a_broken_file_is_told_with_line_and_column() -> None:
    with pytest.raises(ConfigError) as caught:
        adopt("steps:\n  - name: [\n")
    assert str(caught.value.problems[0]).startswith("ci.yml:3:1: syntax ")


def test_aliases_that_grow_without_end_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(ConfigError) as caught:
        adopt("\n".join([*lines, "steps: []"]))
    assert caught.value.problems[0].code == "too-many"


def test_a_part_that_lint_would_refuse_is_left_out_and_said() -> None:
    text = "steps:\n- {name: good, image: a:1, commands: [make]}\n- {name: bad, image: 'no image', commands: [make]}\n"
    flow_file, found = adopt(text, ".woodpecker.yml")
    assert scripts(planned(flow_file, "pipeline")) == ["make\n"]
    assert found.losses[0].line == 3


HOSTILE = "a\n# x: y'\"; rm -rf /"


def test_hostile_names_stay_data() -> None:
    text = yaml.safe_dump({"steps": {HOSTILE: {"image": "a:1", "commands": ['echo "${{ x }}" # \\']}}})
    flow_file, found = adopt(text, ".woodpecker.yml")
    assert scripts(planned(flow_file, "pipeline")) == ['echo "${{ x }}" # \\\n']
    assert all(line.startswith("#") for line in found.text.splitlines()[: len(found.losses) + 1])


_VOCABULARY = """
steps when event push branch image commands name job jobs workflow workflows success fail action stage stages script
needs services environment depends_on kind pipeline trigger pre_build build integration volumes outputs a b main .:/x
FOO=bar ** on_failure always only extends default variables allow_failure true status failure
"""
_WORDS = st.sampled_from(_VOCABULARY.split())
_TEXTS = _WORDS | st.text(max_size=12) | st.integers() | st.booleans() | st.none()
_ANY = st.recursive(
    _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS, inner, max_size=5),
    max_leaves=30,
)


@settings(max_examples=300, deadline=None)
@given(content=st.dictionaries(_WORDS, _ANY, max_size=6), source=st.sampled_from(sorted(formats())))
def test_whatever_a_file_holds_the_new_one_is_valid_or_there_is_none(content: dict[str, Any], source: str) -> None:
    text = yaml.safe_dump(content, allow_unicode=True)
    try:
        found = adopted(text.encode(), "ci.yml", KINDS, "shop", source)
    except KeepflowError:
        return
    for flow in (flow_file := load_flow(found.text, KINDS)).flows.values():
        assert plan(flow, flow_file).jobs


def test_gitlab_conditions_count_among_jobs_that_run_by_themselves() -> None:
    """A `manual` job is a flow of its own, so it does not stand in the way of a condition that all others have."""
    text = "test: {script: [make], only: [master]}\nship: {stage: deploy, script: [x], when: manual}\n"
    flow_file, found = adopt(text, ".gitlab-ci.yml")
    assert starts(flow_file, EventKind.PUSH, "refs/heads/master") == {"pipeline"}
    assert starts(flow_file, EventKind.PUSH, "refs/heads/dev") == set()
    assert lost(found) == {"ship.when: manual": 2}


def test_when_nothing_is_left_the_reasons_are_in_the_error() -> None:
    text = "a: {script: [x], rules: [{if: $CI_COMMIT_TAG}]}\nb: {script: [y], only: [/^v/]}\n"
    with pytest.raises(UsageError) as refused:
        adopt(text, ".gitlab-ci.yml")
    assert refused.value.code == "nothing-left"
    for line, job in ((1, "a"), (2, "b")):
        assert f"line {line}: {job}: it ran only on some events: give it a flow of its own" in refused.value.message
