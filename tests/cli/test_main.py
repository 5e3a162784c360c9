"""The command itself: its help, its exit codes, what it imports, and completion."""

from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest

from keepflow import errors
from keepflow.cli import main
from keepflow.cli.main import VERBS, run

HEAVY = ("docker", "sqlalchemy", "flask", "pydantic", "requests", "rich", "yaml", "jinja2", "cryptography", "paramiko")


@pytest.mark.parametrize("argv", [["--help"], ["version"], ["--version"], ["rusn"], ["completion", "bash"]])
def test_the_light_verbs_import_nothing_heavy(argv: list[str]) -> None:
    code = f"import sys; from keepflow.cli.main import run; run({argv!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert loaded.isdisjoint(HEAVY)


def test_help_names_every_verb_in_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    for group, verbs in VERBS.items():
        assert f"\n{group}:\n" in out
        for name, verb in verbs.items():
            assert f"  {name} " in out
            assert verb.help in out


@pytest.mark.parametrize("name", sorted(name for verbs in VERBS.values() for name in verbs))
def test_every_verb_can_be_loaded_and_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert "Usage: keepflow" in capsys.readouterr().out


def test_a_mistyped_verb_is_answered_with_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rns"]) == 2
    assert "did you mean `runs`?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (errors.UsageError("no such thing"), 2, "keepflow: no such thing  [usage]"),
        (errors.AuthError("sign in"), 4, "[unauthenticated]"),
        (errors.Refused("locked", code="locked"), 7, "[locked]"),
        (click.UsageError("wrong"), 2, "wrong"),
        (KeyboardInterrupt(), 130, ""),
        (click.Abort(), 130, ""),
        (BrokenPipeError(), 0, ""),
        (ZeroDivisionError("oops"), 1, "a bug in keepflow: ZeroDivisionError: oops"),
    ],
)
def test_every_error_becomes_a_message_and_a_code(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(importlib.import_module("keepflow.cli.shell").version, "callback", fail)
    monkeypatch.setattr(main.os, "dup2", lambda *_: None)
    assert run(["version"]) == code
    err = capfd.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_verbose_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise errors.UsageError("no such thing")

    monkeypatch.setattr(importlib.import_module("keepflow.cli.shell").version, "callback", fail)
    assert run(["-v", "version"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_every_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_KEEPFLOW_COMPLETE" in capsys.readouterr().out


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = f"{sys.executable} -m keepflow.cli.main --help | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""
