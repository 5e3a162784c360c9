"""The engine starts where the last process stopped and stops without losing anything (R54, R79)."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.core.states import State
from keepflow.engine.running import Engine
from keepflow.store import agents
from tests.engine.test_dispatch import flow
from tests.engine.world import World, open_master
from tests.real.waiting import wait_until


def test_r79_a_home_that_was_copied_elsewhere_goes_on_with_its_history(world: World, tmp_path: Path) -> None:
    project, repository = world.project()
    agent = world.agent()
    done = world.push(project, repository, {".keepflow.yml": flow()})
    world.send(project, world.pushed(done))
    waiting = world.deliver(project, world.pushed(world.push(project, repository), before=done))
    world.close()
    shutil.copytree(world.home / "home", tmp_path / "copy")
    master = open_master(tmp_path / "copy")
    engine = Engine(master)
    engine.start()
    world.master = master

    assert wait_until(lambda: world.delivery(waiting).handled, 30, "the waiting delivery is handled")
    assert world.run(1).sha == done
    assert len(world.runs()) == 2
    with world.read() as conn:
        found = agents.by_id(conn, agent.id)
    assert (found.connected, found.offline_why) == (False, "the master was restarted")
    assert world.run(1).state is State.RUNNING, "the agent still has its job"
    begun = time.monotonic()
    engine.stop()
    assert time.monotonic() - begun < 2.5


def test_nothing_is_taken_once_the_engine_has_stopped(tmp_path: Path) -> None:
    master = open_master(tmp_path)
    engine = Engine(master)
    engine.start()
    engine.stop()
    with pytest.raises(errors.Unavailable) as caught:
        master.writer.submit(lambda _: None)
    assert caught.value.code == "store-closed"


def test_the_sweep_at_the_start_finds_what_was_pushed_while_the_master_was_down(world: World) -> None:
    project, repository = world.project()
    sha = world.push(project, repository, {".keepflow.yml": flow()})
    home = world.home / "home"
    world.close()
    for _ in range(2):  # the first start notes what is there
        master = open_master(home)
        engine = Engine(master)
        engine.start()
        world.master = master
        wait_until(lambda: _swept(world, project.id), 30, "the sweep has noted the branches")
        if _ == 0:
            engine.stop()
            sha = world.push(project, repository)
    wait_until(lambda: [run.sha for run in world.runs()] == [sha], 30, "the missed push is a run")
    engine.stop()


def _swept(world: World, project_id: int) -> bool:
    from keepflow.store import heads

    with world.read() as conn:
        return heads.has_baseline(conn, project_id)
