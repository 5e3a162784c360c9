"""agent.yml under the doctor's eyes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from keepflow.agent.doctor import host_file
from keepflow.agent.doctor.patient import Patient

SERVICES = {"shop": {"environment": "shop/production", "images": ["shop"], "env_file": "shop.env"}}
REGISTRY = {"username": "pull", "password_file": "pull.password", "ca_file": "ca.crt"}


def test_a_missing_file_is_one_finding(tmp_path: Path) -> None:
    file, found = host_file.read(tmp_path / "agent.yml")
    assert file is None
    assert [finding.state for finding in found] == ["failed"]
    assert "--config" in found[0].mend


def test_every_mistake_of_a_wrong_file_is_a_finding_with_its_place(tmp_path: Path) -> None:
    config = tmp_path / "agent.yml"
    config.write_text("master: http://ci.example.org\ncapabilities: [run]\njobs: 0\n")
    file, found = host_file.read(config)
    assert file is None
    assert [finding.state for finding in found] == ["failed"]
    assert f"{config}:3:7" in found[0].sentence


@pytest.mark.parametrize(("mode", "state"), [(0o644, "ok"), (0o600, "ok"), (0o664, "failed"), (0o646, "failed")])
def test_who_else_may_change_the_file_decides_what_runs_here(tmp_path: Path, mode: int, state: str) -> None:
    config = tmp_path / "agent.yml"
    config.write_text("master: https://ci.example.org\ncapabilities: [run]\n")
    config.chmod(mode)
    assert host_file.read(config)[1][-1].state == state


def test_an_unencrypted_link_stays_a_warning(tmp_path: Path) -> None:
    config = tmp_path / "agent.yml"
    config.write_text("master: http://ci.example.org\ninsecure_http: true\ncapabilities: [run]\n")
    assert [finding.state for finding in host_file.read(config)[1]] == ["ok", "warning"]


def test_the_files_it_names_are_read_as_the_agent_reads_them(
    make_patient: Callable[..., Patient], tmp_path: Path
) -> None:
    patient = make_patient(services=SERVICES, registries={"registry.example.org": REGISTRY})
    assert [finding.sentence.partition(":")[0] for finding in host_file.named_files(patient)] == [
        "password of registry.example.org",
        "authority of registry.example.org",
        "env_file of shop",
    ]
    for name, text in (("pull.password", "secret"), ("ca.crt", "x"), ("shop.env", "A=1\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    assert host_file.named_files(patient) == []
    (tmp_path / "pull.password").chmod(0o644)
    (tmp_path / "shop.env").write_text("A=1\nSECRET\n")
    exposed, unreadable = host_file.named_files(patient)
    assert "chmod 600" in exposed.sentence
    assert "shop.env:2" in unreadable.sentence
    assert "SECRET" not in unreadable.sentence
