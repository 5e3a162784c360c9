"""Modes and owners of the agent's directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from keepflow.agent.doctor import directories
from keepflow.agent.doctor.finding import Finding
from keepflow.agent.doctor.patient import Patient

FRONT = {"server_name": "shop.example.org"}
SERVICES = {"shop": {"environment": "shop/production", "images": ["shop"], "front": FRONT}}


def failures(found: list[Finding]) -> list[str]:
    return [finding.sentence for finding in found if finding.state == "failed"]


def test_a_directory_that_is_not_there_yet_is_fine(make_patient: Callable[..., Patient]) -> None:
    assert failures(directories.look(make_patient())) == []


@pytest.mark.parametrize("name", ["", "key.pem"])
def test_what_others_may_read_is_named_with_its_mode(make_patient: Callable[..., Patient], name: str) -> None:
    patient = make_patient()
    patient.state.claim()
    patient.state.key()
    assert failures(directories.look(patient)) == []
    (patient.state.root / name).chmod(0o750)
    (sentence,) = failures(directories.look(patient))
    assert sentence.startswith(f"others may enter or read {patient.state.root / name} (mode 0750)")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_belongs_to_another_account_is_named(make_patient: Callable[..., Patient]) -> None:
    patient = make_patient()
    patient.state.claim()
    os.chown(patient.state.root, 65534, 65534)
    (sentence,) = failures(directories.look(patient))
    assert "belongs to nobody" in sentence


def test_a_place_that_nginx_cannot_pass_is_named(
    make_patient: Callable[..., Patient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    monkeypatch.setenv("KEEPFLOW_FRONT", str(hidden))
    (sentence,) = failures(directories.look(make_patient(services=SERVICES, nginx={"mode": "own"})))
    assert str(hidden) in sentence


def test_an_account_for_jobs_that_does_not_exist_is_named(make_patient: Callable[..., Patient]) -> None:
    assert failures(directories.look(make_patient(jobs_user="nobody-at-all"))) == [], "who only deploys runs no jobs"
    (sentence,) = failures(directories.look(make_patient(jobs_user="nobody-at-all", capabilities=["run"])))
    assert "useradd" in sentence
