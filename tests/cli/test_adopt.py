"""`keepflow adopt`: what is written, what is said, and that nothing is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepflow.cli import adopt as verb
from keepflow.cli.main import run
from keepflow.config.adoption import formats
from tests.config.adopt import samples


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with files of other systems in it; it is the current one."""
    (tmp_path / "flow.yml").write_text(samples.FLOW_BUILD_SERVER)
    (tmp_path / "caicloud.yml").write_text(samples.CAICLOUD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("file", ["flow.yml", "caicloud.yml"])
def test_what_is_written_lints_clean_and_can_be_planned(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["adopt", file]) == 0
    assert run(["lint"]) == 0
    capsys.readouterr()
    assert run(["plan"]) == 0
    assert "level 1: " in capsys.readouterr().out


def test_losses_are_told_as_file_and_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["adopt", "caicloud.yml", "--to", "-", "--image", "team/demo"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("caicloud.yml:14: deploy (kubernetes): a release goes to an environment")
    assert "\nimage: team/demo\n" in out
    assert not (here / ".keepflow.yml").exists()


@pytest.mark.parametrize("existing", [".keepflow.yml", ".keepflow.yaml"])
def test_nothing_is_written_over_without_force(here: Path, existing: str) -> None:
    (here / existing).write_text("mine\n")
    assert run(["adopt", "flow.yml"]) == 7
    assert (here / existing).read_text() == "mine\n"
    assert run(["adopt", "flow.yml", "--force"]) == 0
    assert "supper-workflow" in (here / ".keepflow.yml").read_text()


@pytest.mark.usefixtures("here")
def test_what_cannot_be_read_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["adopt", "missing.yml"]) == 2
    assert run(["adopt", "."]) == 2
    assert "cannot read" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_a_format_can_be_named_and_all_are_offered() -> None:
    assert sorted(verb.FORMATS) == sorted(formats())
    assert run(["adopt", "flow.yml", "--from", "flow-build-server"]) == 0
    assert run(["adopt", "flow.yml", "--from", "jenkins"]) == 2


def test_a_file_that_is_not_there_is_named_before_one_that_is(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / ".keepflow.yml").write_text("mine\n")
    assert run(["adopt", "flwo.yml"]) == 2
    assert "cannot read flwo.yml" in capsys.readouterr().err
