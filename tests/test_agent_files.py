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
    for line in ("NoNewPrivileges", "ProtectControlGroups", "ProtectKernelModules"):
        assert found[line] == ["yes"]


@pytest.mark.parametrize("name", ["keepflow-agent.service", "keepflow-master.service"])
def test_a_unit_starts_a_verb_that_exists(name: str) -> None:
    program, *argv = unit(name)["ExecStart"][0].split()
    assert program == "/opt/keepflow/bin/keepflow"
    with cli.make_context("keepflow", [argv[0], *argv[1:2]], resilient_parsing=True) as context:
        command = cli.get_command(context, argv[0])
        assert command is not None
        if argv[0] == "agent":
            assert argv[1] in command.commands  # type: ignore[attr-defined]  # agent is a group


@pytest.mark.parametrize(
    "argv",
    [
        ("a", "b"),
        ("--help",),
        ("-x",),
        ("--config",),
        ("--wheelhouse",),
        ("--replace-config",),
        ("--replace-config", "keepflow"),
    ],
)
def test_the_installer_shows_its_usage_on_wrong_arguments(tmp_path: Path, argv: tuple[str, ...]) -> None:
    env = {"PATH": os.environ["PATH"], "ROOT": str(tmp_path / "root")}
    done = subprocess.run([AGENTS / "install.sh", *argv], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "usage: install.sh" in done.stderr
    assert not (tmp_path / "root").exists()
