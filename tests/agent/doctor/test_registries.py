"""Registries under the doctor's eyes: the login, and what it can do beyond pulling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keepflow.agent.doctor import registries
from keepflow.agent.doctor.patient import Patient
from tests.tools.fake_registry import Answer, FakeRegistry, Seen, fake_registry, holds_app, needs

BASIC = "Basic cHVsbDpodW50ZXIyMg=="  # pull:hunter22


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as running:
        running.answer = needs(BASIC, 'Basic realm="x"')
        yield running


@pytest.fixture
def patient(make_patient: Callable[..., Patient], registry: FakeRegistry, tmp_path: Path) -> Patient:
    """A host that pulls `app` with a login."""
    (tmp_path / "password").write_text("hunter22\n")
    (tmp_path / "password").chmod(0o600)
    images = [f"{registry.address}/app"]
    return make_patient(
        registries={registry.address: {"username": "pull", "password_file": "password"}},
        services={"app": {"environment": "app/production", "images": images}},
    )


def test_a_login_that_only_pulls_is_fine(patient: Patient, registry: FakeRegistry) -> None:
    (finding,) = registries.look(patient)
    assert (finding.state, finding.sentence) == ("ok", f"{registry.address} lets user 'pull' read app")
    assert "POST" in {request.method for request in registry.seen}, "whether it pushes was tried"


def test_a_login_that_can_push_is_a_warning_and_the_upload_is_called_off(
    patient: Patient, registry: FakeRegistry
) -> None:
    def pushes(request: Seen) -> Answer:
        if request.method == "POST":
            return 202, {"Location": "/v2/app/blobs/uploads/7?_state=x"}, b""
        return holds_app(request)

    registry.answer = pushes
    fine, weak = registries.look(patient)
    assert (fine.state, weak.state) == ("ok", "warning")
    assert "push to app" in weak.sentence
    last = registry.seen[-1]
    assert (last.method, last.path) == ("DELETE", "/v2/app/blobs/uploads/7?_state=x")


def test_a_wrong_password_is_told(patient: Patient, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wrong\n")
    (finding,) = registries.look(patient)
    assert finding.state == "failed"
    assert "wrong" not in finding.sentence
