"""`compose:` as commands: which program, which project, and that all of it is taken down."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepflow.core.boxes import compose_project
from keepflow.errors import ProgramMissing, Refused
from keepflow.executors.shell import MARK
from keepflow.steps import compose
from tests.steps.context import Bench

PROJECT = ("--project-name", "kf-job-7-abc")
UP = ("up", "--build", "--abort-on-container-exit", "--no-color")
DOWN = ("down", "--volumes", "--remove-orphans", "--rmi", "local", "--timeout", "5")


def bench(folder: Path, *programs: str) -> Bench:
    """Return a bench on whose PATH are only these programs; `docker` has Compose when it is called `docker compose`."""
    place = folder / "bin"
    place.mkdir()
    for program in programs:
        name, _, plugin = program.partition(" ")
        (place / name).write_text(
            f'#!/bin/sh\ntest "$1" = version || test "$1" = "{plugin}" || test {name} != docker\n'
        )
        (place / name).chmod(0o755)
    (place / "sh").symlink_to("/bin/sh")
    made = Bench(folder, real=True, PATH=str(place))
    made.context.env[MARK] = "7-abc"
    return made


@pytest.mark.parametrize(
    ("programs", "argv"),
    [
        (("docker compose", "docker-compose"), ("docker", "compose")),
        (("docker", "docker-compose"), ("docker-compose",)),
        (("docker-compose",), ("docker-compose",)),
    ],
)
def test_the_plugin_is_taken_or_the_program(tmp_path: Path, programs: tuple[str, ...], argv: tuple[str, ...]) -> None:
    made = bench(tmp_path, *programs)
    assert compose.perform(compose.Spec(file=("a.yml", "b.yml"), service="tests"), made.context) == 0
    whole = (*argv, *PROJECT, "--file", "a.yml", "--file", "b.yml")
    assert made.calls[-1] == (*whole, *UP, "--exit-code-from", "tests")
    assert [tuple(one) for one in made.at_end] == [(*whole, *DOWN)]


def test_without_a_service_the_first_that_ends_decides(tmp_path: Path) -> None:
    made = bench(tmp_path, "docker-compose")
    compose.perform(compose.Spec(**compose.shorthand("a.yml")), made.context)
    assert made.calls[-1] == ("docker-compose", *PROJECT, "--file", "a.yml", *UP)
    assert "\n$ docker-compose --project-name" in f"\n{made.said}"


def test_a_machine_without_compose_says_what_to_install(tmp_path: Path) -> None:
    made = bench(tmp_path, "docker")
    with pytest.raises(ProgramMissing, match="apt-get install docker-compose"):
        compose.perform(compose.Spec(file=("a.yml",)), made.context)
    assert made.at_end == []


def test_r56_two_attempts_have_two_projects() -> None:
    """R56: the mark of an attempt is known to no other."""
    assert compose_project("7-abc") != compose_project("7-abd")


def test_r25_without_the_engine_compose_is_not_even_looked_for(tmp_path: Path) -> None:
    """Compose itself would end with three screens of traceback."""
    made = bench(tmp_path, "docker-compose")
    made.context.no_engine = "shop/dev may not use the engine"
    with pytest.raises(Refused, match="shop/dev may not use the engine"):
        compose.perform(compose.Spec(file=("a.yml",)), made.context)
    assert not made.calls
    assert not made.at_end
