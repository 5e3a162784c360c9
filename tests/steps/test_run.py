"""`run:` stops at the first failing line, shows each command before its output, and loses no quote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from keepflow.steps import run
from tests import hostile
from tests.steps.context import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, real=True)


def perform(bench: Bench, script: Any) -> int:
    return run.perform(run.Spec(**run.shorthand(script)), bench.context)


@pytest.mark.parametrize("script", ["echo a\nfalse\necho b\n", ["echo a", "false", "echo b"]], ids=["text", "list"])
def test_the_first_failing_line_ends_the_step(bench: Bench, script: Any) -> None:
    assert perform(bench, script) == 1
    assert bench.said == "$ echo a\na\n$ false\n"


def test_the_exit_code_of_the_failing_line_is_the_code_of_the_step(bench: Bench) -> None:
    assert perform(bench, "exit 7") == 7


def test_a_line_that_is_shown_is_one_process_and_no_more(bench: Bench) -> None:
    assert perform(bench, "scripts/build-image.sh dev\n") == 127
    assert bench.said.startswith("$ scripts/build-image.sh dev\n")
    assert len(bench.calls) == 1


def test_quotes_and_variables_survive_in_the_command_and_in_what_is_shown(bench: Bench) -> None:
    lines = ["x='it''s  5 $'", 'echo "$x"  \'"\'', "printf '%s|' '%d\\n' \"a b\""]
    assert perform(bench, lines) == 0
    assert bench.said == f'$ {lines[0]}\n$ {lines[1]}\nits  5 $ "\n$ {lines[2]}\n%d\\n|a b|'


def test_a_list_is_lines_of_one_script(bench: Bench) -> None:
    assert perform(bench, ["cd /", "for x in 1 2; do", "  echo $PWD$x", "done"]) == 0
    assert bench.said == "$ cd /\n$ for x in 1 2; do\n>   echo $PWD$x\n> done\n/1\n/2\n"


def test_it_runs_in_the_workspace(bench: Bench) -> None:
    assert perform(bench, "touch made") == 0
    assert (bench.context.workspace / "made").exists()


def test_a_script_with_its_own_interpreter_is_run_by_it(bench: Bench) -> None:
    script = "#!/usr/bin/env python3\nimport sys\nprint('no', 'shell', len(sys.argv))\nsys.exit(3)\n"
    assert perform(bench, script) == 3
    shown = "$ #!/usr/bin/env python3\n> import sys\n> print('no', 'shell', len(sys.argv))\n> sys.exit(3)\n"
    assert bench.said == f"{shown}no shell 1\n"


def test_an_own_interpreter_may_have_one_argument_and_decides_what_failing_is(bench: Bench) -> None:
    assert perform(bench, "#!/bin/sh -u\nfalse\necho on\n") == 0
    assert perform(bench, "#!/bin/sh -u\necho $nothing\n") == 2


def test_the_file_of_an_own_interpreter_is_gone_afterwards(bench: Bench, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    perform(bench, "#!/bin/sh\nexit 1\n")
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", hostile.NAMES)
def test_a_hostile_value_in_the_environment_is_data(tmp_path: Path, name: str) -> None:
    bench = Bench(tmp_path, real=True, KEEPFLOW_BRANCH=name)
    assert perform(bench, "printf '%s' \"$KEEPFLOW_BRANCH\" >branch") == 0
    assert (bench.context.workspace / "branch").read_text() == name
    assert not Path(hostile.CANARY).exists()


@pytest.mark.parametrize(
    "script", ["", " \n", "# only a comment", [], ["", "#"], None, True, {"a": 1}, ["a", None], ["a", True], "a\0b"]
)
def test_what_holds_no_command_is_refused(script: Any) -> None:
    with pytest.raises(ValidationError):
        run.Spec(**run.shorthand(script))


def test_a_script_too_long_for_one_argument_is_refused(bench: Bench) -> None:
    with pytest.raises(ValidationError, match="put it into a file"):
        run.Spec(script="echo 'x'\n" * 8_000)
    assert perform(bench, "true 'x'\n" * 2_000) == 0


@pytest.mark.parametrize(
    ("script", "title"),
    [
        ("scripts/build-image.sh dev", "scripts/build-image.sh dev"),
        ("# why\n\nmake\n", "make"),
        ("make\nmake test", "make …"),
        ("if a; then\nb\nfi", "if a; then …"),
        ("#!/usr/bin/env python3\nprint(1)", "#!/usr/bin/env python3 …"),
        ("echo " + "x" * 200, "echo " + "x" * 70 + "…"),
        ("echo " + "x" * 200 + "\nmake", "echo " + "x" * 70 + "…"),
    ],
)
def test_the_title_is_the_first_line_that_does_something(script: str, title: str) -> None:
    assert run.title(run.Spec(script=script)) == title
