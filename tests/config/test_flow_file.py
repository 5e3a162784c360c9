"""The flow file: read in full, every mistake at its line and column, all of them at once."""

from __future__ import annotations

import json
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.config.flow_file import load_flow
from keepflow.core.flows import Container, FlowFile, Health, Strategy, Trigger, Volume
from keepflow.core.planning import plan, plan_from_json, plan_to_json
from keepflow.core.retrying import Retry
from keepflow.errors import ConfigError
from keepflow.ports import discover
from tests.config.problems import places, problems

KINDS: dict[str, ModuleType] = discover("keepflow.steps")

KEEPWORK = """\
version: 1
image: keepwork
container:
  port: 8080
  health: {path: /, within: 60s, successes: 3}
  env: {TZ: Asia/Shanghai}
  secrets: [DATABASE_URL]
  volumes: [{name: log, at: /project/log, shared: true}]
  strategy: overlap
  stop_timeout: 30s
flows:
  dev:
    on: {push: dev}
    concurrency: latest
    steps:
      - run: scripts/build-image.sh dev
      - deploy: dev
  test:
    on: {push: [master, main]}
    steps:
      - run: scripts/build-image.sh test
      - run: scripts/push-image.sh test
        name: push to the registry
      - deploy: test
"""


def load(text: str) -> FlowFile:
    return load_flow(text, KINDS)


def with_steps(steps: str) -> str:
    return f"flows:\n  dev:\n    on: push\n    steps: {steps}\n"


def with_on(on: str) -> str:
    return f"flows:\n  dev:\n    on: {on}\n    steps: [{{run: make}}]\n"


def with_container(container: str) -> str:
    return f"container: {container}\n" + with_steps("[{run: make}]")


def trigger(on: str) -> Trigger:
    return load(with_on(on)).flows["dev"].on


def container(text: str) -> Container:
    found = load(with_container(text)).container
    assert found is not None
    return found


def refused(text: str) -> list[tuple[int, int, str]]:
    return places(problems(load_flow, text, KINDS))


def test_the_example_of_the_design_is_read_in_full() -> None:
    file = load(KEEPWORK)
    assert (file.version, file.image, list(file.flows)) == (1, "keepwork", ["dev", "test"])
    assert file.container == Container(
        port=8080,
        health=Health("/", 60.0, 3),
        env={"TZ": "Asia/Shanghai"},
        secrets=("DATABASE_URL",),
        volumes=(Volume("log", "/project/log", shared=True),),
        strategy=Strategy.OVERLAP,
        stop_timeout=30.0,
    )
    dev, test = file.flows["dev"], file.flows["test"]
    assert (dev.on, dev.concurrency, dev.line) == (Trigger(push=("dev",)), "latest", 12)
    assert (test.on, test.concurrency) == (Trigger(push=("master", "main")), "queue")
    assert [job.key for job in plan(dev, file).jobs] == ["steps", "deploy-dev"]
    push = test.parts[1].step
    assert push is not None
    assert (push.kind, push.name, push.spec, push.line) == (
        "run",
        "push to the registry",
        {"script": "scripts/push-image.sh test"},
        22,
    )


def test_two_flows_are_enough_for_the_three_original_systems() -> None:
    assert len(KEEPWORK.splitlines()) < 40


@pytest.mark.parametrize(
    ("on", "meaning"),
    [
        ("push", Trigger(push=("**",))),
        ("manual", Trigger(manual=True)),
        ("[push, manual]", Trigger(push=("**",), manual=True)),
        ("{push: true}", Trigger(push=("**",))),
        ("{push: dev}", Trigger(push=("dev",))),
        ("{push: [release/*, '!release/old']}", Trigger(push=("release/*", "!release/old"))),
        ("{tag: 'v*'}", Trigger(tag=("v*",))),
        ("{tag: true, push: false}", Trigger(tag=("**",))),
        ("{pull_request: true, manual: true}", Trigger(pull_request=True, manual=True)),
        ("{schedule: '0 2 * * *'}", Trigger(cron="0 2 * * *")),
        ("{schedule: {cron: '@daily', tz: Asia/Shanghai}}", Trigger(cron="@daily", tz="Asia/Shanghai")),
        ("{schedule: 'H H(0-5) * * 1-5'}", Trigger(cron="H H(0-5) * * 1-5")),
        ("{push: 22}", Trigger(push=("22",))),
        ("{push: 3.10}", Trigger(push=("3.10",))),
        ("{push: on}", Trigger(push=("on",))),
    ],
)
def test_every_way_to_write_on(on: str, meaning: Trigger) -> None:
    assert trigger(on) == meaning


@pytest.mark.parametrize(
    ("on", "problem"),
    [
        ("{}", (3, 9, "unreachable")),
        ("{manual: false}", (3, 9, "unreachable")),
        ("pussh", (3, 9, "unknown-key")),
        ("{pussh: dev}", (3, 10, "unknown-key")),
        ("{push: []}", (3, 16, "empty")),
        ("{push: }", None),
        ("{push: refs/heads/dev}", (3, 16, "bad-pattern")),
        ("{push: [dev, 'a b']}", (3, 22, "bad-pattern")),
        ("{push: '!dev'}", (3, 16, "unreachable")),
        ("{push: dev, paths: /src}", (3, 28, "bad-pattern")),
        ("{push: dev, paths: []}", (3, 28, "empty")),
        ("{push: dev, paths_ignore: '!docs/'}", (3, 35, "unreachable")),
        ("{manual: true, paths: src/**}", (3, 24, "unreachable")),
        ("{push: {branches: dev}}", (3, 16, "wrong-type")),
        ("{manual: yes}", (3, 18, "wrong-type")),
        ("{schedule: nightly}", (3, 20, "bad-cron")),
        ("{schedule: '0 2 * *'}", (3, 20, "bad-cron")),
        ("{schedule: {cron: '@daily', tz: 'Mars; rm'}}", (3, 41, "bad-zone")),
        ("7", (3, 9, "wrong-type")),
        ("[push, {tag: x}]", (3, 9, "wrong-type")),
    ],
)
def test_a_wrong_on_is_told_at_its_place(on: str, problem: tuple[int, int, str] | None) -> None:
    assert refused(with_on(on)) == [problem or (3, 9, "unreachable")]


@pytest.mark.parametrize(
    ("steps", "kind", "spec"),
    [
        ("[{run: make}]", "run", {"script": "make"}),
        ("[{run: [make, make test]}]", "run", {"script": "make\nmake test"}),
        ("[{run: {script: make}}]", "run", {"script": "make"}),
        ("[{run: 7}]", "run", {"script": "7"}),
        ("[{build: }]", "build", {}),
        ("[{build: web}]", "build", {"context": "web"}),
        (
            "[{build: {args: {N: 3.10}, tag: 'a:b${BUILD_NUMBER}'}}]",
            "build",
            {"args": {"N": "3.10"}, "tag": "a:b${BUILD_NUMBER}"},
        ),
        ("[{push: }]", "push", {}),
        ("[{push: 'r.example.org/shop:v1'}]", "push", {"to": "r.example.org/shop:v1"}),
    ],
)
def test_a_step_may_be_written_short_or_in_full(steps: str, kind: str, spec: dict[str, object]) -> None:
    step = load(with_steps(steps)).flows["dev"].parts[0].step
    assert step is not None
    assert (step.kind, step.spec) == (kind, spec)
    assert step.name


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ("[]", (4, 12, "empty")),
        ("{}", (4, 12, "wrong-type")),
        ("make", (4, 12, "wrong-type")),
        ("[make]", (4, 13, "wrong-type")),
        ("[[run]]", (4, 13, "wrong-type")),
        ("[{}]", (4, 13, "missing")),
        ("[{name: x}]", (4, 13, "missing")),
        ("[{rum: make}]", (4, 14, "unknown-key")),
        ("[{run: make, when: always}]", (4, 25, "unknown-key")),
        ("[{run: a, build: .}]", (4, 22, "conflict")),
        ("[{run: a, deploy: dev}]", (4, 22, "conflict")),
        ("[{run: }]", (4, 19, "wrong-type")),
        ("[{run: ''}]", (4, 19, "empty")),
        ("[{run: '# nothing'}]", (4, 19, "empty")),
        ("[{run: []}]", (4, 19, "empty")),
        ("[{run: [a, {b: c}]}]", (4, 19, "wrong-type")),
        ("[{run: {script: a, tiemout: 1}}]", (4, 31, "unknown-key")),
        ("[{run: {}}]", (4, 19, "missing")),
        ("[{run: a, name: ''}]", (4, 28, "bad-name")),
        ('[{run: a, name: "a\\nb"}]', (4, 28, "bad-name")),
        ("[{build: /etc}]", (4, 21, "bad-path")),
        ("[{build: ../x}]", (4, 21, "bad-path")),
        ("[{build: -f}]", (4, 21, "bad-path")),
        ("[{build: {args: {'A-B': x}}}]", (4, 29, "bad-name")),
        ("[{build: {tag: 'a:${FOO}'}}]", (4, 27, "unknown-variable")),
        ("[{push: '${KEEPFLOW_REGISTRI}/x'}]", (4, 20, "unknown-variable")),
        ("[{run: a}, {deploy: Dev}]", (4, 32, "bad-name")),
        ("[{run: a}, {deploy: }]", (4, 32, "bad-name")),
        ("[{run: a}, {deploy: dev, name: x}]", (4, 37, "unknown-key")),
        ("[{deploy: dev}]", (4, 13, "unreachable")),
        ("[{run: a}, {notify: 'a@example.org, b'}]", (4, 32, "bad-address")),
        ("[{run: a}, {approve: }]", (4, 33, "bad-text")),
        ("[{run: a}, {approve: ok?, name: x}]", (4, 38, "unknown-key")),
    ],
)
def test_a_wrong_step_is_told_at_its_place(steps: str, problem: tuple[int, int, str]) -> None:
    assert refused(with_steps(steps)) == [problem]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", Container()),
        (
            "{env: {A: 3.10, B: 0755, C: no, D: 22:30, E: 7}}",
            Container(env={"A": "3.10", "B": "0755", "C": "no", "D": "22:30", "E": "7"}),
        ),
        ("{health: {within: 1m30s, timeout: 500ms}}", Container(health=Health(within=90.0, timeout=0.5))),
        ("{stop_timeout: 2h}", Container(stop_timeout=7200.0)),
        ("{stop_timeout: 1d2h3m4.5s}", Container(stop_timeout=93784.5)),
        ("{stop_timeout: 0}", Container(stop_timeout=0.0)),
        (
            "{release_command: [python, manage.py, migrate], release_timeout: 10m}",
            Container(release_command=("python", "manage.py", "migrate"), release_timeout=600.0),
        ),
        ("{args: serve}", Container(args=("serve",))),
        ("{args: [serve, 8080]}", Container(args=("serve", "8080"))),
        (
            "{volumes: [{name: d, at: /d}], strategy: stop-first}",
            Container(volumes=(Volume("d", "/d"),), strategy=Strategy.STOP_FIRST),
        ),
        ("{volumes: [{name: d, at: /d}], strategy: overlap}", Container(volumes=(Volume("d", "/d"),))),
    ],
)
def test_a_container_is_read(text: str, expected: Container) -> None:
    assert container(text) == expected


@pytest.mark.parametrize(
    ("text", "column", "code"),
    [
        ("{prot: 80}", 13, "unknown-key"),
        ("{port: 0}", 19, "out-of-range"),
        ("{port: 65536}", 19, "out-of-range"),
        ("{port: '80'}", 19, "wrong-type"),
        ("{port: true}", 19, "wrong-type"),
        ("{health: {path: healthz}}", 28, "bad-path"),
        ('{health: {path: "/x\\r\\nHost: y"}}', 28, "bad-path"),
        ("{health: {within: 60}}", 30, "bad-duration"),
        ("{health: {within: 0s}}", 30, "out-of-range"),
        ("{health: {within: 400d}}", 30, "bad-duration"),
        ("{health: {successes: 0}}", 33, "out-of-range"),
        ("{env: {A: true}}", 22, "wrong-type"),
        ("{env: {A: }}", 22, "wrong-type"),
        ("{env: {'A=B': x}}", 19, "bad-name"),
        ('{env: {A: "\\0"}}', 22, "bad-text"),
        ("{secrets: [A, A]}", 26, "conflict"),
        ("{secrets: [A, {name: A, as: env}]}", 26, "conflict"),
        ("{secrets: [{name: A, as: variable}]}", 37, "bad-value"),
        ("{env: {A: x}, secrets: [A]}", 36, "conflict"),
        ("{volumes: [{name: d, at: /d}]}", 23, "needs-choice"),
        ("{volumes: [{name: d, at: /d}], strategy: stop-first, release_command: [m]}", 23, "release-command-volume"),
        ("{release_command: python manage.py migrate}", 30, "bad-command"),
        ("{release_command: []}", 30, "bad-command"),
        ("{release_command: [m], release_timeout: 0}", 52, "out-of-range"),
        ("{volumes: [{name: d, at: d, shared: true}]}", 37, "bad-path"),
        ("{volumes: [{name: d, at: /a/../etc, shared: true}]}", 37, "bad-path"),
        ("{volumes: [{name: /etc, at: /d, shared: true}]}", 30, "bad-name"),
        ("{volumes: [{name: d, at: /d, shared: yes}]}", 49, "wrong-type"),
        ("{volumes: [{name: d, at: /d, shared: true}, {name: d, at: /e, shared: true}]}", 63, "duplicate-volume"),
        ("{volumes: [{name: d, at: /d, shared: true}, {name: e, at: /d, shared: true}]}", 70, "duplicate-volume"),
        ("{strategy: stopfirst}", 23, "bad-value"),
        ("{privileged: true}", 13, "unknown-key"),
        ("[]", 12, "wrong-type"),
    ],
)
def test_a_wrong_container_is_told_at_its_place(text: str, column: int, code: str) -> None:
    assert refused(with_container(text)) == [(1, column, code)]


@pytest.mark.parametrize("image", ["r.example.org/shop", "shop:b1", "shop@sha256:" + "a" * 64, "Shop", "--privileged"])
def test_the_image_is_a_bare_repository_name(image: str) -> None:
    assert refused(f"image: {image}\n" + with_steps("[{run: make}]")) == [(1, 8, "bad-image")]


@pytest.mark.parametrize("version", ["2", "'1'", "1.0", "true"])
def test_only_version_1_is_known(version: str) -> None:
    assert refused(f"version: {version}\n" + with_steps("[{run: make}]")) == [(1, 10, "bad-value")]


@pytest.mark.parametrize("name", ["Dev", "a_b", "-a", "'a b'", "'<script>'", "'$(id)'", "x" * 41])
def test_a_flow_has_a_plain_name(name: str) -> None:
    text = f"flows:\n  {name}: {{on: push, steps: [{{run: make}}]}}\n"
    assert refused(text) == [(2, 3, "bad-name")]


@pytest.mark.parametrize(
    "text",
    ["flows: {}", "flows: []", "flows: x", "{}", "[]", "x", "flows: {dev: }", "flows: {dev: {steps: [{run: a}]}}"],
)
def test_a_file_that_starts_nothing_is_a_problem(text: str) -> None:
    assert refused(text)


def test_a_default_that_is_no_choice_is_a_problem() -> None:
    text = with_steps("[{run: make}]") + "    inputs: {suite: {choices: [fast, all], default: slow}}\n"
    assert refused(text) == [(5, 53, "bad-value")]
    kept = load(text.replace("slow", "all")).flows["dev"].inputs
    assert kept["suite"]["default"] == "all"


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ("{n: {type: number, default: many}}", (5, 41, "bad-value")),
        ("{n: {type: boolean, default: 'yes'}}", (5, 42, "bad-value")),
        ("{n: {required: true, default: x}}", (5, 28, "conflict")),
        ("{n: {type: number, choices: [1, 2]}}", (5, 24, "conflict")),
        ("{n: {}, N: {}}", (5, 21, "conflict")),
        ("{n: {type: date}}", (5, 24, "bad-value")),
    ],
)
def test_r18_an_input_that_contradicts_itself_is_a_problem(inputs: str, problem: tuple[int, int, str]) -> None:
    assert refused(with_steps("[{run: make}]") + f"    inputs: {inputs}\n") == [problem]


def test_r18_a_plain_true_is_the_default_of_a_boolean() -> None:
    text = (
        with_steps("[{run: make}]")
        + "    inputs: {dry: {type: boolean, default: true}, n: {type: number, default: 4}}\n"
    )
    kept = load(text).flows["dev"].inputs
    assert (kept["dry"]["default"], kept["n"]["default"]) == ("true", "4")


def test_all_mistakes_come_at_once_in_the_order_of_the_file() -> None:
    text = """\
verson: 1
container: {port: 0}
flows:
  dev:
    on: {push: refs/heads/dev}
    concurrency: lates
    steps:
      - rum: make
      - deploy: Dev
  dev: {on: push, steps: [{run: a}]}
"""
    assert refused(text) == [
        (1, 1, "unknown-key"),
        (2, 19, "out-of-range"),
        (5, 16, "bad-pattern"),
        (6, 18, "bad-value"),
        (8, 9, "unknown-key"),
        (9, 17, "bad-name"),
        (10, 3, "duplicate-key"),
    ]


def test_a_near_miss_is_offered() -> None:
    found = problems(load_flow, with_container("{helth: {}}").replace("run: make", "rnu: make"), KINDS)
    assert [problem.message for problem in found] == [
        "container: unknown key 'helth' (did you mean 'health'?)",
        "flows.dev.steps[0]: unknown key 'rnu' (did you mean 'run'?)",
    ]


def test_a_problem_reads_as_one_line_whatever_the_key_holds() -> None:
    found = problems(load_flow, '"a\\e[31m\\nb": 1\nflows: {x: {on: push, steps: [{run: a}]}}\n', KINDS)
    assert str(found[0]) == ".keepflow.yml:1:1: unknown-key unknown key 'a [31m b'"


WORDS = "flows dev on push steps run deploy container env volumes name jobs build make 1 true ~"
SIGNS = ["-", ":", "{", "}", "[", "]", ",", "*a", "&a ", "!x ", "'", '"', "${", "\n", "\n  ", "\n    ", " "]
fragments = st.sampled_from([*WORDS.split(), *SIGNS])


@given(st.lists(fragments, max_size=30).map("".join))
def test_any_text_is_read_or_refused_with_problems(text: str) -> None:
    read_or_refuse(text)


keys = st.sampled_from(["on", "push", "steps", "run", "deploy", "inputs", "jobs", "needs", "script", "name", "stages"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=8,
)


@given(values, values, values)
def test_any_shape_is_read_or_refused_with_problems(flow: object, steps: object, box: object) -> None:
    graph = {"on": "push", "stages": box, "jobs": {"a": steps, "c": {"steps": steps, "needs": box}}}
    shape = {"container": box, "flows": {"a": flow, "b": {"on": "push", "steps": steps}, "g": graph}}
    read_or_refuse(json.dumps(shape, ensure_ascii=False))


def read_or_refuse(text: str) -> None:
    """Load a text; when it is refused, every problem must have its place and be one line."""
    try:
        load(text)
    except ConfigError as refusal:
        found = refusal.problems
    else:
        return
    assert found
    for problem in found:
        assert problem.line >= 1
        assert problem.message.isprintable()


def test_r58_a_step_and_a_flow_may_say_how_long_they_may_take() -> None:
    file = load(
        "flows:\n  dev:\n    on: push\n    timeout: 1h\n    steps: [{run: make, timeout: 1m30s}, {run: make test}]\n"
    )
    flow = file.flows["dev"]
    assert flow.timeout == 3600
    assert [part.step.timeout for part in flow.parts if part.step] == [90, 0]
    assert plan(flow, file).timeout == 3600
    assert plan_from_json(plan_to_json(plan(flow, file))) == plan(flow, file)


@pytest.mark.parametrize(
    ("flow", "at"),
    [
        ("timeout: 10\n    steps: [{run: make}]", (4, 14, "bad-duration")),
        ("timeout: 0s\n    steps: [{run: make}]", (4, 14, "out-of-range")),
        ("steps: [{run: make, timeout: soon}]", (4, 34, "bad-duration")),
        ("steps: [{run: make}, {deploy: dev, timeout: 1m}]", (4, 40, "unknown-key")),
        ("timeout: 1m\n    steps: [{run: make, timeout: 2m}]", (5, 34, "unreachable")),
        ("timeout: 1m\n    jobs: {a: {timeout: 2m, steps: [run: make]}}", (5, 25, "unreachable")),
        ("jobs: {a: {steps: [run: make]}, b: {needs: a, deploy: dev, timeout: 2m}}", (4, 64, "conflict")),
    ],
)
def test_r58_a_limit_that_cannot_be_meant_is_an_error(flow: str, at: tuple[int, int, str]) -> None:
    assert refused(f"flows:\n  dev:\n    on: push\n    {flow}\n") == [at]


def test_r59_jobs_say_when_they_are_tried_again_and_a_flow_says_it_for_them() -> None:
    file = load(
        "flows:\n  dev:\n    on: push\n    retry: 2\n    jobs:\n"
        "      a: {steps: [run: make]}\n"
        "      b: {steps: [run: make], needs: a, retry: {max: 1, on_exit: 75, on: [timeout, lost], delay: 30s}}\n"
        "      c: {deploy: dev, needs: b}\n"
    )
    made = plan(file.flows["dev"], file)
    assert [job.retry for job in made.jobs] == [Retry(2), Retry(1, (75,), ("timeout", "lost"), 30), None]
    assert plan_from_json(json.loads(json.dumps(plan_to_json(made)))) == made


@pytest.mark.parametrize(
    "retry", ["0", "21", "true", "{on: exit}", "{max: 1, on_exit: 0}", "{max: 1, on: failure}", "{max: 1, delay: 5}"]
)
def test_r59_a_rule_for_further_tries_that_cannot_be_meant_is_an_error(retry: str) -> None:
    [(line, _, _)] = refused(f"flows:\n  dev:\n    on: push\n    retry: {retry}\n    steps: [run: make]\n")
    assert line == 4


def test_r59_a_deploy_is_never_tried_twice_by_itself() -> None:
    text = "flows:\n  dev:\n    on: push\n    jobs: {a: {steps: [run: make]}, b: {needs: a, deploy: dev, retry: 2}}\n"
    assert refused(text) == [(4, 64, "conflict")]


def test_a_secret_of_a_container_is_a_file_unless_it_is_asked_for_as_a_variable() -> None:
    head = "version: 1\nimage: shop\ncontainer: {secrets: [A, {name: B, as: env}, {name: C}]}\n"
    found = load(f"{head}flows: {{dev: {{on: {{push: dev}}, steps: [{{run: make}}]}}}}\n").container
    assert found is not None
    assert (found.secrets, found.secrets_in_env) == (("A", "B", "C"), ("B",))
