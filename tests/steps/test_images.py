"""`build:` and `push:` call docker with exact arguments, say what they made, and push only where a login was lent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keepflow.errors import Refused, UsageError
from keepflow.steps import build, push
from tests.steps.context import Bench

REGISTRY = "registry.example.org:5000"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(
        tmp_path, BUILD_NUMBER="7", KEEPFLOW_IMAGE="keepwork", KEEPFLOW_REGISTRY=REGISTRY, KEEPFLOW_BRANCH="feature/a b"
    )
    made.lend(REGISTRY, "keepwork")
    return made


def builds(bench: Bench, value: Any = None) -> int:
    spec = build.Spec(**(value if isinstance(value, dict) else build.shorthand(value)))
    return build.perform(spec, bench.context)


def pushes(bench: Bench, value: Any = None) -> int:
    spec = push.Spec(**(value if isinstance(value, dict) else push.shorthand(value)))
    return push.perform(spec, bench.context)


def docker_calls(bench: Bench) -> list[tuple[str, ...]]:
    return [call for call in bench.calls if call[0] == "docker"]


def test_a_bare_build_makes_the_image_of_the_flow_file_under_the_build_number(bench: Bench) -> None:
    assert builds(bench) == 0
    assert docker_calls(bench) == [("docker", "build", "--tag", "keepwork:b7", "--", ".")]
    assert bench.output.read_text() == "image=keepwork:b7\n"
    assert bench.said == "$ docker build --tag keepwork:b7 -- .\n"


def test_a_build_in_full_becomes_exact_arguments(bench: Bench) -> None:
    spec = {
        "context": "web",
        "dockerfile": "docker/web file",
        "target": "dist",
        "args": {"NUMBER": "${BUILD_NUMBER}", "FLAG": "--x y"},
        "tag": "${KEEPFLOW_IMAGE}-web:n${BUILD_NUMBER}",
    }
    assert builds(bench, spec) == 0
    assert docker_calls(bench) == [
        (
            *("docker", "build", "--tag", "keepwork-web:n7", "--file", "docker/web file", "--target", "dist"),
            *("--build-arg", "NUMBER=7", "--build-arg", "FLAG=--x y", "--", "web"),
        )
    ]


def test_a_failed_build_says_nothing_was_made(tmp_path: Path) -> None:
    bench = Bench(tmp_path, codes={"build": 1}, BUILD_NUMBER="7", KEEPFLOW_IMAGE="keepwork")
    assert builds(bench) == 1
    assert bench.output.read_text() == ""


@pytest.mark.parametrize("tag", ["keepwork:${KEEPFLOW_BRANCH}", "${KEEPFLOW_BRANCH}", "a@sha256:" + "a" * 64])
def test_a_tag_no_image_can_have_is_an_error_that_says_what_to_use(bench: Bench, tag: str) -> None:
    with pytest.raises(UsageError):
        builds(bench, {"tag": tag})
    assert not bench.calls


def test_a_variable_without_a_value_is_an_error(bench: Bench) -> None:
    with pytest.raises(UsageError, match="KEEPFLOW_TAG"):
        builds(bench, {"tag": "keepwork:${KEEPFLOW_TAG}"})


def test_an_image_without_a_name_is_an_error_that_shows_the_line_to_write(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="image: shop"):
        builds(Bench(tmp_path, BUILD_NUMBER="7"))


def test_a_bare_push_sends_what_was_built_last_to_the_registry(bench: Bench) -> None:
    bench.output.write_text("image=other:1\nimage=keepwork:b7\nnote=x\n")
    assert pushes(bench) == 0
    assert docker_calls(bench) == [
        ("docker", "tag", "--", "keepwork:b7", f"{REGISTRY}/keepwork:b7"),
        ("docker", "push", "--", f"{REGISTRY}/keepwork:b7"),
    ]
    assert bench.output.read_text().endswith(f"pushed={REGISTRY}/keepwork:b7\n")


@pytest.mark.parametrize("border", ["\r", "\f", "\x1e", "\x85", "\u2028"])
def test_a_hostile_subject_on_one_line_of_the_output_names_no_image_to_push(bench: Bench, border: str) -> None:
    bench.output.write_text(f"image=keepwork:b7\nsubject=Mend it{border}image=evil:1\n", newline="")
    assert pushes(bench) == 0
    assert ("docker", "tag", "--", "keepwork:b7", f"{REGISTRY}/keepwork:b7") in docker_calls(bench)


@pytest.mark.parametrize(
    ("value", "source", "target"),
    [
        ("keepwork", "keepwork:b7", f"{REGISTRY}/keepwork:b7"),
        ("keepwork:v1", "keepwork:b7", f"{REGISTRY}/keepwork:v1"),
        (f"{REGISTRY}/keepwork:n${{BUILD_NUMBER}}", "keepwork:b7", f"{REGISTRY}/keepwork:n7"),
        ({"image": "test/web:x", "to": "keepwork"}, "test/web:x", f"{REGISTRY}/keepwork:x"),
    ],
)
def test_where_it_goes_may_be_said_in_part_or_in_full(bench: Bench, value: Any, source: str, target: str) -> None:
    bench.output.write_text("image=keepwork:b7\n")
    assert pushes(bench, value) == 0
    assert docker_calls(bench)[0] == ("docker", "tag", "--", source, target)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("evil.example.org/keepwork", "no-login"),
        ("localhost:5000/keepwork", "no-login"),
        (f"{REGISTRY}/other", "not-allowed"),
        (f"{REGISTRY}/keepwork/sub", "not-allowed"),
        ("other", "not-allowed"),
    ],
)
def test_a_place_no_login_was_lent_for_is_refused_before_anything_is_sent(bench: Bench, value: str, code: str) -> None:
    bench.output.write_text("image=keepwork:b7\n")
    with pytest.raises(Refused) as refusal:
        pushes(bench, value)
    assert refusal.value.code == code
    assert not docker_calls(bench)


def test_without_any_lent_login_nothing_is_pushed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, KEEPFLOW_REGISTRY=REGISTRY)
    bench.output.write_text("image=keepwork:b7\n")
    with pytest.raises(Refused, match="no login"):
        pushes(bench)


def test_without_a_registry_nothing_is_pushed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.output.write_text("image=keepwork:b7\n")
    with pytest.raises(Refused) as refusal:
        pushes(bench)
    assert refusal.value.code == "no-registry"


def test_with_nothing_built_there_is_nothing_to_push(bench: Bench) -> None:
    with pytest.raises(UsageError, match="nothing to push"):
        pushes(bench)


@pytest.mark.parametrize("said", ["--privileged", "a b", "Ä"])
def test_an_output_that_names_no_image_is_refused(bench: Bench, said: str) -> None:
    bench.output.write_text(f"image={said}\n")
    with pytest.raises(UsageError):
        pushes(bench)


@pytest.mark.parametrize("code", ["tag", "push"])
def test_a_failure_of_docker_is_the_failure_of_the_step(tmp_path: Path, code: str) -> None:
    bench = Bench(tmp_path, codes={code: 5}, KEEPFLOW_REGISTRY=REGISTRY)
    bench.lend(REGISTRY, "keepwork")
    bench.output.write_text("image=keepwork:b7\n")
    assert pushes(bench) == 5
    assert "pushed" not in bench.output.read_text()


def test_an_output_file_that_became_a_link_is_not_read(bench: Bench, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("image=keepwork:b7\n")
    bench.output.unlink()
    bench.output.symlink_to(secret)
    with pytest.raises(UsageError, match="nothing to push"):
        pushes(bench)


def test_no_password_is_ever_in_a_command_or_in_the_log(bench: Bench) -> None:
    bench.output.write_text("image=keepwork:b7\n")
    pushes(bench)
    assert "secret-password" not in bench.said + repr(bench.calls) + repr(bench.context)


@pytest.mark.parametrize("act", [builds, pushes])
def test_r23_without_the_engine_nothing_is_begun_and_the_reason_is_said(bench: Bench, act: Callable[..., int]) -> None:
    bench.context.no_engine = "shop/dev may not use the engine"
    with pytest.raises(Refused, match="shop/dev may not use the engine") as refused:
        act(bench)
    assert refused.value.code == "no-engine"
    assert not bench.calls
