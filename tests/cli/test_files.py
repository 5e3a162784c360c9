"""lint, plan, schema and init: what people and programs see, and the exit codes they rely on."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from keepflow.cli.files import init, lint, plan, schema
from keepflow.cli.findings import render
from keepflow.errors import ConfigError, Problem, Refused, UsageError
from tests import hostile
from tests.config.test_agent_file import KEEPWORK as AGENT
from tests.config.test_flow_file import KEEPWORK as FLOW
from tests.config.test_server_file import KEEPWORK as SERVER

BROKEN = "flows:\n  dev:\n    on: {pussh: dev}\n    steps: [{rum: make}]\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(command: object, *arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))  # type: ignore[arg-type]  # a click command


def test_a_good_file_of_each_kind_is_clean(here: Path) -> None:
    for name, text in ((".keepflow.yml", FLOW), ("keepflow.yml", SERVER), ("agent.yml", AGENT)):
        (here / name).write_text(text)
    result = call(lint, ".keepflow.yml", "keepflow.yml", "agent.yml")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "0 problems in 3 files\n"


def test_without_a_file_the_flow_file_of_this_directory_is_checked(here: Path) -> None:
    (here / ".keepflow.yaml").write_text(BROKEN)
    result = call(lint)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        ".keepflow.yaml:3:10: unknown-key flows.dev.on: unknown key 'pussh' (did you mean 'push'?)",
        ".keepflow.yaml:4:14: unknown-key flows.dev.steps[0]: unknown key 'rum' (did you mean 'run'?)",
    ]
    assert result.stderr == "2 problems in 1 file\n"


@pytest.mark.usefixtures("here")
def test_without_any_flow_file_the_error_says_how_to_get_one() -> None:
    result = call(lint)
    assert isinstance(result.exception, UsageError)
    assert "keepflow init" in result.exception.message


def test_a_file_that_cannot_be_read_is_exit_code_2_and_the_others_are_still_checked(here: Path) -> None:
    (here / "a.yml").write_text(BROKEN)
    result = call(lint, "missing.yml", "a.yml")
    assert result.exit_code == 2
    assert "cannot read missing.yml" in result.stderr
    assert len(result.stdout.splitlines()) == 2


def test_json_is_a_list_of_plain_problems_even_when_there_are_none(here: Path) -> None:
    (here / "a.yml").write_text(BROKEN)
    found = json.loads(call(lint, "--format", "json", "a.yml").stdout)
    assert [(problem["file"], problem["line"], problem["column"], problem["code"]) for problem in found] == [
        ("a.yml", 3, 10, "unknown-key"),
        ("a.yml", 4, 14, "unknown-key"),
    ]
    (here / "a.yml").write_text(FLOW)
    assert json.loads(call(lint, "--format", "json", "a.yml").stdout) == []


def test_an_annotation_for_github_cannot_start_another_command() -> None:
    problem = Problem(1, 2, "bad-key", "100 %\r\n::set-output name=x::y", "a,b:c\n.yml")
    text = render([problem], "github")
    assert text.count("\n") == 0
    assert text == ("::error file=a%2Cb%3Ac%0A.yml,line=1,col=2,title=bad-key::100 %25%0D%0A::set-output name=x::y")


def test_sarif_names_rule_place_and_message(here: Path) -> None:
    (here / "a.yml").write_text(BROKEN)
    run = json.loads(call(lint, "--format", "sarif", "a.yml").stdout)["runs"][0]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["unknown-key"]
    region = run["results"][0]["locations"][0]["physicalLocation"]["region"]
    assert region == {"startLine": 3, "startColumn": 10}


def test_plan_says_which_flow_a_push_starts_and_why_and_in_what_order(here: Path) -> None:
    (here / ".keepflow.yml").write_text(FLOW)
    assert call(plan, "--ref", "dev").stdout == (
        "push refs/heads/dev:\n"
        "  dev  starts: branch 'dev' fits push: dev\n"
        "    level 1: steps\n"
        "      steps  starts at once: it needs no other job\n"
        "        - scripts/build-image.sh dev\n"
        "    level 2: deploy-dev\n"
        "      deploy-dev  starts when steps has succeeded\n"
        "        - deploys what was built to dev\n"
        "  test  does not start: branch 'dev' fits none of push: master, main\n"
    )


T1 = """\
flows:
  example:
    on: manual
    stages: [build, test, documentation]
    jobs:
      validation: {stage: build, steps: [{run: echo check}]}
      compile: {stage: build, needs: validation, steps: [{run: echo classes}]}
      style: {stage: build, allow_failure: true, matrix: {axes: {of: [c, py]}}, steps: [{run: echo style}]}
      testing: {stage: test, steps: [{run: echo test}]}
"""


@pytest.mark.parametrize(
    ("wrong", "right", "place"),
    [
        ("stages: [build, test, build]", "stages: [build, test, documentation]", ":4:27: conflict"),
        ("stage: biuld, steps", "stage: build, steps", ":6:27: unknown-stage"),
        ("{steps: [{run: echo check}]}", "{stage: build, steps: [{run: echo check}]}", ":6:7: missing"),
        ("needs: validtion", "needs: validation", ":7:38: unknown-job"),
        ("needs: testing", "needs: validation", ":7:38: wrong-stage"),
        ("needs: compile", "needs: validation", ":7:7: cycle"),
        ("scrip: [{run: echo check}]", "steps: [{run: echo check}]", ":6:34: unknown-key"),
    ],
)
def test_r16_lint_tells_each_error_of_a_graph_with_its_line_and_exits_1(
    here: Path, wrong: str, right: str, place: str
) -> None:
    (here / ".keepflow.yml").write_text(T1.replace(right, wrong, 1))
    result = call(lint)
    assert result.exit_code == 1
    assert f".keepflow.yml{place}" in result.stdout


def test_r17_plan_shows_stages_and_what_may_run_side_by_side_and_starts_nothing(here: Path) -> None:
    (here / ".keepflow.yml").write_text(T1)
    assert call(plan, "--event", "manual").stdout == (
        "manual:\n"
        "  example  starts: its 'on' names manual\n"
        "    level 1, stage build: validation, style-c and style-py, side by side\n"
        "      validation  starts at once: it needs no other job\n"
        "        - echo check\n"
        "      style-c  starts at once: it needs no other job; it may fail\n"
        "        - echo style\n"
        "      style-py  starts at once: it needs no other job; it may fail\n"
        "        - echo style\n"
        "    level 2, stage build: compile\n"
        "      compile  starts when validation has succeeded\n"
        "        - echo classes\n"
        "    level 3, stage test: testing\n"
        "      testing  starts when validation, compile, style-c and style-py have succeeded\n"
        "        - echo test\n"
    )
    jobs = json.loads(call(plan, "--event", "manual", "-o", "json").stdout)["flows"][0]["jobs"]
    assert [(job["key"], job["level"]) for job in jobs[:2]] == [("validation", 1), ("compile", 2)]


def test_plan_says_aloud_that_visitors_will_see_the_maintenance_page(here: Path) -> None:
    (here / ".keepflow.yml").write_text(FLOW.replace("strategy: overlap", "strategy: stop-first"))
    assert "stop-first: visitors will see the maintenance page for a while" in call(plan, "--ref", "dev").stdout
    assert json.loads(call(plan, "--ref", "dev", "-o", "json").stdout)["flows"][0]["stop_first"] is True


def test_plan_without_a_ref_shows_every_flow_and_what_starts_it(here: Path) -> None:
    (here / ".keepflow.yml").write_text(FLOW)
    shown = call(plan).stdout
    assert "  dev  on push: dev\n" in shown
    assert "  test  on push: master, main\n" in shown


def test_r10_plan_shows_the_next_times_of_flows_by_the_clock(here: Path) -> None:
    flow = "{on: {schedule: {cron: '%s', tz: Asia/Shanghai}}, steps: [{run: make}]}"
    (here / ".keepflow.yml").write_text(f"version: 1\nflows:\n  a: {flow % '0 2 * * *'}\n  b: {flow % 'H 2 * * *'}\n")
    shown = json.loads(call(plan, "-o", "json").stdout)["flows"]
    times = [datetime.strptime(text, "%a %Y-%m-%d %H:%M Asia/Shanghai") for text in shown[0]["next"]]
    assert {at.hour for at in times} == {2}
    assert [(later - earlier).days for earlier, later in pairwise(times)] == [1, 1]
    assert "by the clock next: " in call(plan).stdout
    assert shown[1]["next"] == ["each project has a time of its own (H); its page shows it"]
    assert "starts: its 'on' names schedule" in call(plan, "--event", "schedule").stdout


def test_plan_is_told_which_files_change_for_flows_with_paths(here: Path) -> None:
    (here / ".keepflow.yml").write_text(FLOW.replace("on: {push: dev}", "on: {push: dev, paths: [src/**]}"))
    assert "the only changed file, 'a.md', fits none of paths: src/**" in (
        call(plan, "--ref", "dev", "--changed", "a.md").stdout
    )
    assert "'src/a.c' changed and fits paths: src/**" in call(plan, "--ref", "dev", "--changed", "src/a.c").stdout
    assert "its paths are not asked, for nobody said what changed" in call(plan, "--ref", "dev").stdout
    assert "on push: dev; paths: src/**" in call(plan).stdout


def test_plan_says_that_nothing_starts(here: Path) -> None:
    (here / ".keepflow.yml").write_text(FLOW)
    for arguments in (["--ref", "other"], ["--event", "tag", "--ref", "v1"], ["--event", "manual"]):
        result = call(plan, *arguments)
        assert result.exit_code == 0
        assert result.stdout.endswith("  nothing starts\n")


def test_plan_of_a_broken_file_carries_every_problem(here: Path) -> None:
    (here / ".keepflow.yml").write_text(BROKEN)
    result = call(plan, "--ref", "dev")
    assert isinstance(result.exception, ConfigError)
    assert len(result.exception.problems) == 2


@pytest.mark.parametrize("ref", ["a b", "", "a..b", "x\n"])
def test_plan_refuses_a_ref_git_could_not_have(here: Path, ref: str) -> None:
    (here / ".keepflow.yml").write_text(FLOW)
    result = call(plan, "--ref", ref)
    assert isinstance(result.exception, UsageError)
    assert result.exception.code == "bad-ref"


def test_plan_answers_about_any_hostile_branch_in_printable_lines(here: Path) -> None:
    (here / ".keepflow.yml").write_text(FLOW)
    for name in hostile.NAMES:
        result = call(plan, f"--ref=refs/heads/{name}")
        assert result.exit_code == 0
        assert all(line.isprintable() for line in result.stdout.split("\n"))


@pytest.mark.parametrize("kind", ["flow", "server", "agent"])
def test_schema_prints_a_versioned_schema(kind: str) -> None:
    assert json.loads(call(schema, kind).stdout)["$id"] == f"urn:keepflow:{kind}-file:1"


@pytest.mark.parametrize("dockerfile", [True, False])
def test_what_init_writes_is_valid_and_its_schema_lies_beside_it(here: Path, dockerfile: bool) -> None:
    if dockerfile:
        (here / "Dockerfile").write_text("FROM scratch\n")
    assert call(init, "--image", "shop").exit_code == 0
    assert call(lint).exit_code == 0
    text = (here / ".keepflow.yml").read_text()
    assert text.startswith("# yaml-language-server: $schema=.keepflow.schema.json\n")
    assert json.loads((here / ".keepflow.schema.json").read_text())["$id"] == "urn:keepflow:flow-file:1"
    assert ("deploy-dev" in call(plan, "--ref", "dev").stdout) == dockerfile


@pytest.mark.parametrize("name", ["My Shop!", "-x", "Ünï", "a" * 80])
def test_init_takes_the_name_of_the_directory_whatever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    assert call(init).exit_code == 0
    assert call(lint).exit_code == 0


@pytest.mark.parametrize("existing", [".keepflow.yml", ".keepflow.yaml"])
def test_init_writes_over_nothing_unless_it_is_forced(here: Path, existing: str) -> None:
    (here / existing).write_text("mine\n")
    result = call(init)
    assert isinstance(result.exception, Refused)
    assert (here / existing).read_text() == "mine\n"
    assert call(init, "--force").exit_code == 0
    assert (here / ".keepflow.yml").read_text() != "mine\n"
