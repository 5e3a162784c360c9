"""`secrets:` of a step in the flow file: three ways to get one, and every mistake at its place."""

from __future__ import annotations

import pytest

from keepflow.config.schemas import flow_schema
from keepflow.core.job_secrets import SecretUse
from tests.config.problems import places, problems
from tests.config.test_flow_file import KINDS, load, with_steps


def uses(text: str) -> tuple[SecretUse, ...]:
    step = load(with_steps(f"[{{run: make, secrets: {text}}}]")).flows["dev"].parts[0].step
    assert step is not None
    return step.secrets


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("NPM_TOKEN", [SecretUse("NPM_TOKEN", env="NPM_TOKEN")]),
        ("[A, B]", [SecretUse("A", env="A"), SecretUse("B", env="B")]),
        ("[{name: npm.token, env: NPM_TOKEN}]", [SecretUse("npm.token", env="NPM_TOKEN")]),
        ("[{name: config.page, file: ./www/config.page}]", [SecretUse("config.page", file="www/config.page")]),
        ("[{name: deploy.key, file_env: KEY}]", [SecretUse("deploy.key", file_env="KEY")]),
        ("[A, {name: A, file: a}]", [SecretUse("A", env="A"), SecretUse("A", file="a")]),
        ("[{name: A, optional: true}]", [SecretUse("A", env="A", optional=True)]),
        ("[]", []),
    ],
)
def test_r31_a_step_names_its_secrets_as_variables_or_files(text: str, wanted: list[SecretUse]) -> None:
    assert uses(text) == tuple(wanted)


@pytest.mark.parametrize(
    ("secrets", "code", "column"),
    [
        ("[KEEPFLOW_X]", "bad-name", 35),
        ("[{name: x, env: LD_PRELOAD}]", "bad-name", 50),
        ("[{name: x, file_env: HOME}]", "bad-name", 55),
        ("['a b']", "bad-name", 35),
        ("[../x]", "bad-name", 35),
        ("[config.page]", "needs-choice", 35),
        ("[{name: a, env: B, file: c}]", "conflict", 35),
        ("[{name: a, file: ../x}]", "bad-path", 51),
        ("[{name: a, file: /etc/passwd}]", "bad-path", 51),
        ("[A, A]", "conflict", 34),
        ("[{name: a, file: x}, {name: b, file: ./x}]", "conflict", 34),
        ("[{nme: A}]", "unknown-key", 36),
        ("[{name: A, optional: maybe}]", "wrong-type", 55),
        ("[{name: A, optionl: true}]", "unknown-key", 45),
        ("3", "wrong-type", 34),
    ],
)
def test_every_mistake_is_told_at_its_place(secrets: str, code: str, column: int) -> None:
    found = problems(lambda: load(with_steps(f"[{{run: make, secrets: {secrets}}}]")))
    assert (code, column) in [(problem.code, problem.column) for problem in found], places(found)


def test_a_deploy_names_no_secrets_of_jobs() -> None:
    [problem] = problems(lambda: load(with_steps("[{run: make}, {deploy: dev, secrets: [A]}]")))
    assert problem.code == "unknown-key"
    assert "held by the environment" in str(problem)


def test_editors_know_the_key() -> None:
    schema = flow_schema(KINDS)
    entries = schema["$defs"]["Flow"]["properties"]["steps"]["items"]["anyOf"]
    [run] = [entry for entry in entries if entry["required"] == ["run"]]
    assert {"name", "secrets"} < set(run["properties"])
    assert {"name", "env", "file", "file_env", "optional"} == set(schema["$defs"]["SecretUse"]["properties"])
