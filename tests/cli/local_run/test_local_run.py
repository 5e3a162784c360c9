"""`keepflow run FLOW --local` as a person has it: a real checkout, real processes, no server."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from keepflow.cli.main import run
from tests.real.waiting import wait_until
from tests.tools.repositories import git

FLOWS = """\
flows:
  dev:
    on: {push: dev}
    inputs: {suite: {choices: [fast, all], default: fast}}
    steps:
      - run: echo "$KEEPFLOW_LOCAL $KEEPFLOW_INPUT_SUITE $KEEPFLOW_BRANCH $KEEPFLOW_EVENT" > told; ls
      - run: cat told uncommitted
      - push: registry.example.org/shop:v1
      - deploy: dev
      - run: echo after-the-deploy
  broken:
    on: {push: dev}
    steps: [{run: exit 4}, {run: echo never}]
  graph:
    on: {push: dev}
    jobs:
      mail: {needs: [check], when: failure, steps: [{run: 'echo "mail about $KEEPFLOW_FAILED_JOBS"'}]}
      colour: {steps: [{run: 'echo COLOUR=blue >> "$KEEPFLOW_OUTPUT"'}]}
      check: {needs: [colour], steps: [{run: 'echo "is $COLOUR"; exit 1'}]}
      ship: {needs: [check], steps: [{run: echo shipped}]}
  asking:
    on: {push: dev}
    jobs:
      make: {steps: [{run: echo made}]}
      ask: {needs: make, approve: Is the demo over?}
      publish: {needs: ask, steps: [{run: echo published}]}
      tell: {needs: make, when: always, notify: team@example.org}
  lent:
    on: {push: dev}
    steps: [{run: 'echo "got $KEY"', secrets: [{name: api-key, env: KEY}]}]
  again:
    on: {push: dev}
    retry: {max: 2, on_exit: [75], delay: 10ms}
    steps: [{run: 'echo "try $KEEPFLOW_ATTEMPT"; test -e left || { touch left; exit 75; }'}]
  never:
    on: {push: dev}
    retry: 2
    steps: [{run: 'echo "try $KEEPFLOW_ATTEMPT"; exit 4'}]
  patient:
    on: {push: dev}
    retry: {max: 1, delay: 1h}
    steps: [{run: echo tried; exit 1}]
  long:
    on: {push: dev}
    steps:
      - run: |
          sleep 600 &
          echo "child $! of $$"
          trap '' TERM
          wait
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where local runs lie."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KEEPFLOW_URL", raising=False)
    return tmp_path / "cache" / "keepflow" / "local"


@pytest.fixture
def shop(
    tmp_path: Path,
    cache: Path,  # noqa: ARG001 - a run must not touch the person's own
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A checkout on `dev` with one file that is not committed; it is the current directory."""
    place = tmp_path / "shop"
    place.mkdir()
    git(place, "init", "--quiet", "--initial-branch=dev", ".")
    (place / ".keepflow.yml").write_text(FLOWS)
    (place / ".gitignore").write_text("ignored\n")
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--message=first")
    (place / "uncommitted").write_text("not committed\n")
    (place / "ignored").write_text("")
    monkeypatch.chdir(place)
    return place


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def keepflow(capfd: pytest.CaptureFixture[str]) -> Call:
    """Run a command line here; returns exit code, stdout and stderr."""

    def call(*argv: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(list(argv))
        return code, *capfd.readouterr()

    return call


def start(shop: Path, flow: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "keepflow.cli.main", "run", flow, "--local"]
    return subprocess.Popen(argv, cwd=shop, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def first_line_with(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    return next(line for line in process.stdout if line.startswith(word))


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("variable", ["api-key", "API_KEY"])
def test_r31_a_secret_is_taken_from_the_persons_own_environment(
    shop: Path,  # noqa: ARG001 - the current directory
    keepflow: Call,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    monkeypatch.setenv(variable, "c4nary-value")
    code, out, err = keepflow("run", "lent", "--local")
    assert code == 0, err
    assert "got [MASKED]\n" in out
    assert "c4nary" not in out + err


def test_r31_a_secret_that_is_not_there_is_named_with_the_variable_to_set(
    shop: Path,  # noqa: ARG001 - the current directory
    keepflow: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("API_KEY", raising=False)
    code, _, err = keepflow("run", "lent", "--local")
    assert code == 3
    assert "your environment has no value for the secret 'api-key': set API_KEY\n" in err


def test_a_local_run_works_on_a_copy_with_what_is_not_committed_and_says_so(
    shop: Path, cache: Path, keepflow: Call
) -> None:
    code, out, err = keepflow("run", "dev", "--local", "-p", "suite=all")
    assert code == 0, err
    assert "true all dev manual\nnot committed\n" in out
    assert "ignored" not in out
    assert "with what is not committed (1 new), without what git ignores" in err
    assert not (shop / "told").exists()
    assert list((cache / "runs").iterdir()) == []


@pytest.mark.usefixtures("shop")
def test_pushes_and_deploys_are_said_and_left_out_with_what_needs_them(keepflow: Call) -> None:
    _, out, err = keepflow("run", "dev", "--local")
    assert "push registry.example.org/shop:v1 is left out: a local run is lent no registry" in err
    assert "deploy-dev is left out: a local run deploys nothing" in err
    assert "after-the-deploy" not in out
    assert "shop/dev succeeded locally" in err


@pytest.mark.usefixtures("shop")
def test_the_exit_code_mirrors_the_result(keepflow: Call) -> None:
    code, out, err = keepflow("run", "broken", "--local")
    assert code == 3
    assert "never" not in out.replace("echo never", "")
    assert "shop/broken failed locally" in err
    assert "step 1/2 exit 4 failed with exit code 4" in err


@pytest.mark.usefixtures("shop")
def test_nobody_is_asked_or_told_and_what_waits_for_an_answer_does_not_run(keepflow: Call) -> None:
    code, out, err = keepflow("run", "asking", "--local")
    assert code == 0
    assert "\nmade\n" in out
    assert "published" not in out
    assert "ask is left out: nobody is asked in a local run" in err
    assert "tell is left out: a local run tells nobody" in err


@pytest.mark.usefixtures("shop")
def test_a_graph_runs_by_the_rules_of_a_master(keepflow: Call) -> None:
    code, out, err = keepflow("run", "graph", "--local")
    assert code == 3
    assert "\nis blue\n" in out
    assert "\nmail about check\n" in out
    assert "shipped" not in out
    assert "ship is left out: because check failed" in err


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["dev", "-p", "suit=all"], 2, "unknown input 'suit' (did you mean 'suite'?)"),
        (["dev", "-p", "suite=most"], 2, "suite must be one of fast, all"),
        (["dev", "-p", "suite"], 2, "-p takes NAME=VALUE"),
        (["dve"], 1, "no flow 'dve' (did you mean 'dev'?)"),
        (["dev", "--ref", "nope"], 1, "no branch, tag or commit 'nope'"),
        (["dev", "-f", "missing.yml"], 2, "cannot read missing.yml"),
    ],
)
def test_r18_what_cannot_be_run_is_an_error_before_anything_runs(
    keepflow: Call, argv: list[str], code: int, words: str
) -> None:
    found, out, err = keepflow("run", *argv, "--local")
    assert (found, out) == (code, "")
    assert words in err


@pytest.mark.usefixtures("cache")
def test_r15_without_a_flow_file_nothing_is_green(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keepflow: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = keepflow("run", "dev", "--local")
    assert code == 2
    assert "there is no .keepflow.yml here" in err


def test_another_file_is_taken_by_its_content(shop: Path, keepflow: Call) -> None:
    (shop.parent / "mine.yml").write_text("flows: {mine: {on: manual, steps: [{run: echo from-mine}]}}\n")
    code, out, _ = keepflow("run", "mine", "--local", "-f", "../mine.yml")
    assert code == 0
    assert "\nfrom-mine\n" in out


@pytest.mark.usefixtures("shop")
def test_a_job_is_tried_again_as_its_flow_says(keepflow: Call) -> None:
    code, out, err = keepflow("run", "again", "--local")
    assert code == 0, out + err
    assert [line for line in out.splitlines() if line.startswith("try ")] == ["try 1", "try 2"]
    assert "── steps: try 2 of 3 follows in 10ms, because step 1/1" in err


@pytest.mark.usefixtures("shop")
def test_the_last_try_decides(keepflow: Call) -> None:
    code, out, err = keepflow("run", "never", "--local")
    assert code == 3
    assert [line for line in out.splitlines() if line.startswith("try ")] == ["try 1", "try 2", "try 3"]
    assert "failed with exit code 4" in err


def test_ctrl_c_ends_the_wait_for_a_further_try(shop: Path, cache: Path) -> None:
    process = start(shop, "patient")
    assert process.stderr is not None
    next(line for line in process.stderr if "try 2 of 2 follows in 1h" in line)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert list((cache / "runs").iterdir()) == []


def test_a_broken_file_is_told_with_line_and_column(shop: Path, keepflow: Call) -> None:
    (shop / ".keepflow.yml").write_text("flows:\n  dev:\n    on: {pussh: dev}\n    steps: [{run: make}]\n")
    code, _, err = keepflow("run", "dev", "--local")
    assert code == 2
    assert ".keepflow.yml:3:10: unknown-key" in err


@pytest.mark.usefixtures("shop")
def test_a_ref_runs_its_commit_without_what_is_not_committed(keepflow: Call) -> None:
    code, out, err = keepflow("run", "dev", "--local", "--ref", "dev")
    assert code == 3  # its second step reads the file that is not committed
    assert "\nuncommitted\n" not in out
    assert "without what is not committed" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 5)])
def test_ctrl_c_ends_the_step_with_all_it_started(shop: Path, cache: Path, number: signal.Signals, code: int) -> None:
    process = start(shop, "long")
    _, child, _, shell = first_line_with(process, "child").split()
    assert is_running(child)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert "cancelled" in err
    assert not is_running(child)
    assert not is_running(shell)
    assert list((cache / "runs").iterdir()) == []


def test_r56_two_local_runs_of_one_flow_never_meet(shop: Path) -> None:
    gate = shop.parent / "gate"
    wait = f"until test -e {gate}; do sleep 0.02; done"
    script = f'test ! -e mine; echo $$ > mine; echo "here $$"; {wait}; test "$(cat mine)" = $$'
    (shop / ".keepflow.yml").write_text(f"flows: {{dev: {{on: manual, steps: [{{run: '{script}'}}]}}}}\n")
    both = [start(shop, "dev"), start(shop, "dev")]
    for process in both:
        first_line_with(process, "here")
    gate.touch()
    assert [(process.communicate(timeout=30), process.returncode)[1] for process in both] == [0, 0]


def test_what_a_killed_run_left_is_taken_away_by_the_next_one(shop: Path, cache: Path, keepflow: Call) -> None:
    process = start(shop, "long")
    _, child, *_ = first_line_with(process, "child").split()
    process.kill()
    process.communicate()
    assert is_running(child)
    assert len(list((cache / "runs").iterdir())) == 1
    assert keepflow("run", "broken", "--local")[0] == 3
    wait_until(lambda: not is_running(child), 10, "the end of what was left behind")
    assert list((cache / "runs").iterdir()) == []
    assert list((cache / "scratch").iterdir()) == []
