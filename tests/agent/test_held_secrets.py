"""Secrets on a host: taken only as the order names them, kept sealed, rendered for one container."""

from __future__ import annotations

import base64
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.agent.deployment import Deployment
from keepflow.agent.held_secrets import HeldSecrets
from keepflow.core.flows import Container, Health
from keepflow.crypto import keys
from keepflow.tools.failpoints import VARIABLE, Injected
from tests.agent.confided import KEY, confided

CANARY = "c4nary-value\nof two lines"


def _deployment(
    identity: str = "d1", fence: int = 7, names: tuple[str, ...] = ("PASSWORD",), **changes: str
) -> Deployment:
    values = {"environment": "shop/production", "service": "shop", "instance": "main", "action": "deploy", **changes}
    image = {"origin": "local", "repository": "shop", "image_id": f"sha256:{'1' * 64}", "digest": None}
    container = Container(port=8080, health=Health(), secrets=names)
    return Deployment(id=identity, fence=fence, nonce="n", container=container, **values, **image)  # type: ignore[arg-type]  # fields by name


@pytest.fixture
def held(tmp_path: Path) -> HeldSecrets:
    return HeldSecrets(tmp_path / "secrets", KEY.opening)


def test_what_came_with_its_order_is_kept_sealed_and_given_to_it(held: HeldSecrets, tmp_path: Path) -> None:
    deployment, sealed = confided(_deployment(), {"PASSWORD": CANARY})
    held.check(deployment, sealed)
    held.keep(deployment, sealed)
    assert {name: one.value for name, one in held.values(deployment).items()} == {"PASSWORD": CANARY}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600]
    assert b"c4nary" not in files[0].read_bytes()
    assert "c4nary" not in repr(held.values(deployment))
    assert "c4nary" not in str(deployment.to_json())
    assert Deployment.from_json(deployment.to_json()) == deployment


def test_anything_else_than_what_the_order_names_is_refused(held: HeldSecrets) -> None:
    deployment, sealed = confided(_deployment(), {"PASSWORD": CANARY})
    _, again = confided(_deployment(), {"PASSWORD": CANARY})
    flipped = bytearray(base64.b64decode(sealed["PASSWORD"]))
    flipped[-1] ^= 1
    for wrong in (
        {},
        {**sealed, "MORE": sealed["PASSWORD"]},
        {"OTHER": sealed["PASSWORD"]},
        {"PASSWORD": base64.b64encode(flipped).decode()},
        {"PASSWORD": "not base64!"},
        again,  # the same value, sealed another time
    ):
        with pytest.raises(errors.Refused) as refused:
            held.check(deployment, wrong)
        assert refused.value.code == "secrets-mismatch"


@pytest.mark.parametrize("changes", [{"id": "d2"}, {"fence": 8}, {"environment": "shop/test"}])
def test_a_value_of_another_order_is_refused_even_when_this_one_names_its_bytes(
    held: HeldSecrets, changes: dict[str, str]
) -> None:
    deployment, sealed = confided(_deployment(), {"PASSWORD": CANARY})
    with pytest.raises(errors.Refused):
        held.check(replace(deployment, **changes), sealed)  # type: ignore[arg-type]  # fields by name


def test_a_value_for_another_agent_is_refused(held: HeldSecrets) -> None:
    deployment, sealed = confided(_deployment(), {"PASSWORD": CANARY}, key=keys.generate())
    with pytest.raises(errors.Refused):
        held.check(deployment, sealed)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "", "A\n", "."])
def test_a_name_that_is_no_variable_never_becomes_a_file(held: HeldSecrets, name: str) -> None:
    deployment, sealed = confided(_deployment(names=(name,)), {name: CANARY})
    with pytest.raises(errors.Refused):
        held.check(deployment, sealed)


def test_a_rollback_asked_for_here_gets_the_newest_of_each_name(held: HeldSecrets) -> None:
    both = _deployment(names=("PASSWORD", "TOKEN"))
    first, sealed = confided(both, {"PASSWORD": "old", "TOKEN": "token"})
    held.keep(first, sealed)
    second, sealed = confided(_deployment("d2", 8), {"PASSWORD": "new"}, version=2)
    held.keep(second, sealed)
    found = held.values(replace(both, id="by-hand", by="host:ann"))
    assert {name: (one.version, one.value) for name, one in found.items()} == {
        "PASSWORD": (2, "new"),
        "TOKEN": (1, "token"),
    }


def test_what_the_environment_has_no_more_is_forgotten_with_the_next_order(held: HeldSecrets) -> None:
    first, sealed = confided(_deployment(), {"PASSWORD": "old"})
    held.keep(first, sealed)
    held.keep(_deployment("d2", 8), {})
    assert held.values(replace(first, by="host:ann")) == {}


def test_another_environment_is_not_given_what_this_one_left(held: HeldSecrets) -> None:
    first, sealed = confided(_deployment(), {"PASSWORD": "old"})
    held.keep(first, sealed)
    assert held.values(_deployment(environment="shop/test", by="host:ann")) == {}


def test_files_are_readable_for_the_container_alone(held: HeldSecrets, tmp_path: Path) -> None:
    deployment = _deployment("../../../escape")
    largest = "x" * 65536
    place = held.render(deployment, {"PASSWORD": CANARY, "LARGE": largest})
    assert place is not None
    assert (place / "PASSWORD").read_text() == CANARY
    assert (place / "LARGE").read_text() == largest
    assert stat.S_IMODE((place / "PASSWORD").stat().st_mode) == 0o444
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert place.is_relative_to(tmp_path / "secrets")
    held.drop_files(deployment, {deployment.id})
    assert place.exists()
    held.drop_files(deployment, {"another"})
    assert not place.exists()


def test_a_crash_while_keeping_leaves_what_was_kept_before(held: HeldSecrets, monkeypatch: pytest.MonkeyPatch) -> None:
    first, sealed = confided(_deployment(), {"PASSWORD": "old"})
    held.keep(first, sealed)
    second, newer = confided(_deployment("d2", 8), {"PASSWORD": "new"})
    monkeypatch.setenv(VARIABLE, "secrets.keep=raise")
    with pytest.raises(Injected):
        held.keep(second, newer)
    monkeypatch.delenv(VARIABLE)
    assert [one.value for one in held.values(first).values()] == ["old"]
    held.keep(second, newer)
    assert [one.value for one in held.values(second).values()] == ["new"]


def test_what_a_crash_while_rendering_left_goes_with_the_next_good_end(
    held: HeldSecrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = _deployment()
    monkeypatch.setenv(VARIABLE, "secrets.render=raise")
    with pytest.raises(Injected):
        held.render(deployment, {"PASSWORD": CANARY})
    monkeypatch.delenv(VARIABLE)
    place = held.render(deployment, {"PASSWORD": CANARY})
    assert place is not None
    assert (place / "PASSWORD").read_text() == CANARY
    held.drop_files(deployment, [])
    assert not any(b"c4nary" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
