"""The `docker` command: what an engine lists is believed as far as it names things."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepflow.tools.engine import Engine

_DOCKER = """#!/bin/sh
echo "$*" >>"{calls}"
case "$*" in "container ls "*) cat "{listed}" ;; esac
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `docker` that lists what the file `listed` holds; returns where it writes down what it was asked."""
    calls = tmp_path / "calls"
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(_DOCKER.format(calls=calls, listed=tmp_path / "listed"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return calls


@pytest.mark.parametrize(
    "label", ["mine\n", "mine\tand more\n", "mine\nof two lines\n", "mine\n--all\tx\n", "mine\r\u2028\x1b[2J\n", "\n"]
)
def test_a_label_that_a_job_wrote_stops_no_removal_and_becomes_no_option(
    label: str, calls: Path, tmp_path: Path
) -> None:
    (tmp_path / "listed").write_text(f"0a1b\t{label}2c3d\tmine\n", newline="")
    assert Engine("unix:///nowhere").remove_labelled({"keepflow.job": ""}) == ["0a1b", "2c3d"]
    assert "container rm --force --volumes 0a1b 2c3d" in calls.read_text().splitlines()


@pytest.mark.usefixtures("calls")
def test_what_is_spared_is_asked_by_its_label(tmp_path: Path) -> None:
    (tmp_path / "listed").write_text("0a1b\tmine\n2c3d\tlives\n")
    removed = Engine("unix:///nowhere").remove_labelled({"keepflow.job": ""}, lambda value: value == "lives")
    assert removed == ["0a1b"]
