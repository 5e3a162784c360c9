"""A new order key takes the old one's place: agents are told, receipts stay good, and no crash loses a key."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.crypto import dsse, keys
from keepflow.crypto.keys import PrivateKey
from keepflow.crypto.rotation import Pinned
from keepflow.engine import enrol, keyring
from keepflow.engine.keyring import KeyRing
from keepflow.store import events
from keepflow.store.projects import Project
from keepflow.tools.failpoints import VARIABLE, Injected
from keepflow.wire import messages
from keepflow.wire.orders import PAYLOAD_TYPE
from tests.engine.test_enrol import _asked, _enrol, _hello, _token
from tests.engine.test_evidence import deployed, place, production, promote
from tests.engine.world import World, open_master

__all__ = ["place"]


def rotate(world: World) -> keys.PublicKey:
    """Make a new order key."""
    return keyring.rotate(world.master, "root", world.tick())


def reopened(world: World) -> KeyRing:
    """Return the keys as a master finds them when it starts on this home."""
    return open_master(world.home / "home").keys


def test_every_agent_is_told_and_orders_are_signed_with_the_new_key_from_then_on(
    world: World, place: tuple[Project, Path]
) -> None:
    old = world.master.order_key.public
    _local, _deployment = deployed(world, place)
    agent = production(world, place[0])
    new = rotate(world)
    assert (world.master.order_key.public, new != old) == (new, True)
    promote(world)
    rotated, deploy = agent.orders()
    assert isinstance(rotated, messages.KeyRotated)
    assert isinstance(deploy, messages.Deploy)
    pinned = Pinned((old,)).follow([rotated.envelope])
    assert pinned.current == (new,)
    assert dsse.open_(deploy.envelope, PAYLOAD_TYPE, *pinned.current)
    with world.read() as conn:
        [told] = [event for event in events.since(conn, 0, 1000) if event.kind == "order-key-rotated"]
    assert (told.actor, told.data) == ("root", {"old": old.key_id, "new": new.key_id})


def test_receipts_of_the_old_key_still_prove_what_they_proved(world: World, place: tuple[Project, Path]) -> None:
    deployed(world, place)
    agent = production(world, place[0])
    rotate(world)
    rotate(world)
    assert promote(world)
    assert [type(body).__name__ for body in agent.orders()] == ["KeyRotated", "KeyRotated", "Deploy"]


def test_who_comes_back_is_given_the_way_to_the_new_key(world: World) -> None:
    key, old = keys.generate(), world.master.order_key.public
    _enrol(world, _asked(_token(world), key))
    rotate(world)
    new = rotate(world)
    _agent, welcome = enrol.greet(world.master, "c", _hello(key, "c"), world.tick())
    assert Pinned((old,)).follow(welcome.rotations).current == (new,)


def test_join_tokens_that_name_the_old_key_are_void(world: World) -> None:
    token = _token(world)
    rotate(world)
    with pytest.raises(errors.AuthError):
        _enrol(world, _asked(token, keys.generate()))
    assert _token(world).endswith(world.master.order_key.public.key_id)


def test_a_restarted_master_signs_with_the_new_key_and_knows_the_old(world: World) -> None:
    old = world.master.order_key.public
    new = rotate(world)
    found = reopened(world)
    assert (found.current.public, found.trusted) == (new, (new, old))


@pytest.mark.parametrize(
    ("point", "moved"), [("keys.written", False), ("store.before-commit", False), ("keys.committed", True)]
)
def test_a_master_that_dies_on_the_way_starts_with_the_key_its_agents_were_told(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str, moved: bool
) -> None:
    old = world.master.order_key.public
    monkeypatch.setenv(VARIABLE, f"{point}=raise")
    with pytest.raises((Injected, errors.Unavailable)):
        rotate(world)
    monkeypatch.delenv(VARIABLE)
    beside = PrivateKey.load(world.home / "home" / keyring.NEXT).public
    found = reopened(world)
    assert found.current.public == (beside if moved else old)
    assert not (world.home / "home" / keyring.NEXT).exists()


def test_a_master_that_dies_once_the_key_is_in_its_place_starts_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = world.master.order_key.public
    monkeypatch.setenv(VARIABLE, "keys.installed=raise")
    with pytest.raises(Injected):
        rotate(world)
    monkeypatch.delenv(VARIABLE)
    assert reopened(world).current.public != old
    assert not (world.home / "home" / keyring.NEXT).exists()


def test_a_try_that_failed_does_not_stand_in_the_way_of_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "keys.written=raise")
    with pytest.raises(Injected):
        rotate(world)
    monkeypatch.delenv(VARIABLE)
    assert rotate(world) == reopened(world).current.public


def test_two_at_once_make_one_new_key(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "hold").mkdir()
    monkeypatch.setenv(VARIABLE, f"keys.written=hold:{tmp_path / 'hold'}")
    first = threading.Thread(target=rotate, args=(world,))
    first.start()
    try:
        while not (tmp_path / "hold" / "keys.written.reached").exists():
            os.sched_yield()
        with pytest.raises(errors.Refused) as caught:
            rotate(world)
    finally:
        (tmp_path / "hold" / "go").touch()
        first.join(20)
    assert caught.value.code == "rotating"
    assert len(world.master.keys.history) == 1


def test_a_key_from_before_is_not_taken_for_the_one_in_use(world: World) -> None:
    path = world.home / "home" / keyring.FILE
    before = path.read_bytes()
    rotate(world)
    path.write_bytes(before)
    with pytest.raises(errors.UsageError) as caught:
        reopened(world)
    assert caught.value.code == "old-key"
