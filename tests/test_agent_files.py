"""What lands on an agent's host: a valid example file, units that say what they must, a repeatable installer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from keepflow.cli.main import cli
from keepflow.config.agent_file import load_agent

AGENTS = Path(__file__).parent.parent / "agents"


def unit(name: str) -> dict[str, list[str]]:
    """Return a unit's settings; a name may be there more than once."""
    settings: dict[str, list[str]] = {}
    for line in (AGENTS / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            settings.setdefault(key, []).append(value)
    return settings


def test_the_example_file_is_one_an_agent_takes() -> None:
    text = (AGENTS / "agent.example.yml").read_text()
    file = load_agent(text, "agent.example.yml")
    assert file.services["shop"].environment == "shop/production"
    every_key = text.replace("\n# jobs:", "\njobs:").replace("\n# jobs_user:", "\njobs_user:")
    every_key = every_key.replace("\n# docker_for:", "\ndocker_for:").replace("[deploy]", "[run, deploy]")
    assert load_agent(every_key, "agent.example.yml").docker_for == ("shop/dev", "shop/test")


def test_the_agents_unit_is_watched_and_leaves_what_serves_alone() -> None:
    found = unit("keepflow-agent.service")
    assert found["Type"] == ["notify"]
    assert found["WatchdogSec"] == ["60"]
    assert found["Restart"] == ["always"]
    assert found["KillMode"] == ["process"], "an nginx of its own must outlive the agent"
    assert "PrivateTmp" not in found


@pytest.mark.parametrize("name", ["keepflow-agent.service", "keepflow-master.service"])
def test_a_unit_starts_a_verb_that_exists(name: str) -> None:
    program, *argv = unit(name)["ExecStart"][0].split()
    assert program == "/opt/keepflow/bin/keepflow"
    with cli.make_context("keepflow", [argv[0], *argv[1:2]], resilient_parsing=True) as context:
        command = cli.get_command(context, argv[0])
        assert command is not None
        if argv[0] == "agent":
            assert argv[1] in command.commands  # type: ignore[attr-defined]  # agent is a group


@pytest.fixture
def install(tmp_path: Path) -> Path:
    """A Python that makes environments out of nothing, so that the installer can be watched without the network."""
    fake = tmp_path / "python"
    fake.write_text(
        """#!/bin/sh
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && printf '#!/bin/sh\\necho 0\\n' >"$3/bin/keepflow" &&
    chmod +x "$3/bin/keepflow" ;;
  "-m pip") echo "$*" >>"$(dirname "$0")/pip.log" ;;
esac
"""
    )
    fake.chmod(0o755)
    return fake


def run_install(root: Path, python: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": os.environ["PATH"],
        "PYTHON": str(python),
        "PREFIX": str(root / "opt"),
        "CONFIG": str(root / "etc"),
        "UNITS": str(root / "units"),
    }
    return subprocess.run(
        [AGENTS / "install.sh", *argv], env=env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="the installer needs root")
def test_the_installer_can_be_run_again_and_keeps_the_persons_file(tmp_path: Path, install: Path) -> None:
    first = run_install(tmp_path, install, "keepflow==1.2.3")
    assert first.returncode == 0, first.stderr
    assert "keepflow==1.2.3" in (tmp_path / "opt" / "bin" / "pip.log").read_text()
    text = (tmp_path / "units" / "keepflow-agent.service").read_text()
    assert f"ExecStart={tmp_path}/opt/bin/keepflow agent run --config {tmp_path}/etc/agent.yml" in text
    (tmp_path / "etc" / "agent.yml").write_text("mine")
    second = run_install(tmp_path, install)
    assert second.returncode == 0, second.stderr
    assert "wrote" not in second.stdout
    assert (tmp_path / "etc" / "agent.yml").read_text() == "mine"
    assert sorted(path.name for path in (tmp_path / "units").iterdir()) == ["keepflow-agent.service"]


@pytest.mark.parametrize("argv", [("a", "b"), ("--help",), ("-x",)])
def test_the_installer_shows_its_usage_on_wrong_arguments(tmp_path: Path, install: Path, argv: tuple[str, ...]) -> None:
    done = run_install(tmp_path, install, *argv)
    assert done.returncode == 2
    assert "usage: install.sh" in done.stderr
    assert not (tmp_path / "opt").exists()
