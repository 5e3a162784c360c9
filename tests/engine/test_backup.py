"""A master is backed up while it works, and restored elsewhere: nothing is given out twice, nothing runs twice."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepflow import errors
from keepflow.core.states import Phase, State
from keepflow.crypto.vault import Vault
from keepflow.engine import backing_up, restored
from keepflow.engine.restoring import inspect, restore
from keepflow.store import counters, deliveries, deployments, events, settings
from keepflow.store.restoring import RESTORED
from keepflow.wire import messages
from tests.engine.test_deploy_runs import BOTH, BUILT, TEXT
from tests.engine.test_dispatch import push
from tests.engine.world import PlayedAgent, World


@pytest.fixture
def backup(world: World, tmp_path: Path) -> Path:
    """A backup of a master with an ended run and its log, and of what else a test has put into it before."""
    return take(world, tmp_path / "keepflow.backup")


def take(world: World, to: Path) -> Path:
    """Back a master up."""
    to.write_bytes(b"".join(backing_up.stream(world.master)))
    return to


def restored_world(backup: Path, key: Path, place: Path) -> World:
    """Restore a backup and start the master on it."""
    (place / "home").mkdir(parents=True)
    restore(backup, key, place / "home", 2_000_000_000)
    made = World(place)
    made.now = 3_000_000_000
    made.call(lambda tx: restored.settle(tx, made.master, made.tick()))
    return made


def key_of(world: World) -> Path:
    """The master key of a master."""
    return world.master.home / "master.key"


@pytest.fixture
def deployed(world: World) -> PlayedAgent:
    """One run deployed well, with a log; the agent that did it."""
    project, repository = world.project(hook_secret=world.master.vault.seal(b"s" * 20, "project/keepwork/hook-secret"))
    world.environment(project, "dev", ["dev"])
    agent = world.agent(**BOTH)
    push(world, project, repository, TEXT)
    [order] = agent.orders()
    world.master.logs.append(order.fence, 0, b"made\n", agent_id=agent.id).result(10)
    agent.finish(order, images=(BUILT,), log_bytes=5)
    return agent


def deploys(world: World) -> list[deployments.Deployment]:
    """List the deployments of a master's newest runs."""
    with world.read() as conn:
        return [found for run in world.runs() for found in deployments.of_run(conn, run.id)]


@pytest.fixture
def again(tmp_path: Path) -> Iterator[Any]:
    """Restore a backup into a place of its own and start it; closed at the end."""
    made: list[World] = []

    def start(backup: Path, key: Path) -> World:
        made.append(restored_world(backup, key, tmp_path / f"restored-{len(made)}"))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_everything_that_was_there_is_there_again(
    world: World, deployed: PlayedAgent, tmp_path: Path, again: Any
) -> None:
    [order] = deployed.orders()
    deployed.report(_end(order))
    (world.master.home / "keepflow.yml").write_text("projects: {}\n")
    (world.master.home / "artifacts/ab").mkdir(parents=True)
    (world.master.home / "artifacts/ab/abcdef").write_text("kept by a job")
    (world.master.home / "artifacts/incoming-1").write_text("half of somethi")
    found = again(take(world, tmp_path / "b"), key_of(world))
    assert [run.number for run in found.runs()] == [run.number for run in world.runs()]
    assert found.run().state is State.SUCCEEDED
    [log] = (found.master.home / "logs").rglob("*.log")
    assert b"made\n" in log.read_bytes()
    kept = [path for path in (found.master.home / "artifacts").rglob("*") if path.is_file()]
    assert [(path.name, path.read_text()) for path in kept] == [("abcdef", "kept by a job")]
    assert (found.master.home / "keepflow.yml").read_text() == "projects: {}\n"
    sealed = found.find_project("keepwork").hook_secret
    assert found.master.vault.unseal(sealed, "project/keepwork/hook-secret") == b"s" * 20
    assert found.master.order_key.public.key_id == world.master.order_key.public.key_id
    assert [found.master.home.joinpath(name).stat().st_mode & 0o077 for name in ("order.key", "keepflow.db")] == [0, 0]


def _end(order: messages.Deploy) -> messages.DeployFinished:
    return messages.DeployFinished(
        fence=order.fence, deployment=order.deployment, at=2, outcome="done", serving=BUILT.image_id
    )


def test_no_number_that_may_have_been_given_out_since_is_given_again(
    world: World, deployed: PlayedAgent, tmp_path: Path, again: Any
) -> None:
    [order] = deployed.orders()
    deployed.report(_end(order))
    backup = take(world, tmp_path / "b")
    found = again(backup, key_of(world))
    with found.read() as conn:
        assert counters.current(conn, counters.FENCE) == order.fence + 1_000_000
    project = found.find_project("keepwork")
    push(found, project, world.home / "keepwork.git")
    assert found.runs()[-1].number == 1002


def test_what_was_under_way_is_ended_in_words_and_a_sent_deployment_is_asked_for(
    world: World, deployed: PlayedAgent, tmp_path: Path, again: Any
) -> None:
    [order] = deployed.orders()
    project = world.find_project("keepwork")
    waiting = world.deliver(project, world.pushed(world.push(project, world.home / "keepwork.git")))
    push(world, project, world.home / "keepwork.git", TEXT, "other")
    backup = take(world, tmp_path / "b")
    found = again(backup, key_of(world))
    deploying, script = found.runs()
    assert (script.state, script.reason_code) == (State.CANCELLED, "restored")
    assert "put back to its backup of " in script.reason
    assert deploying.state is State.WAITING
    with found.read() as conn:
        delivery = deliveries.by_id(conn, waiting)
        assert delivery is not None
        assert delivery.handled
        assert settings.get(conn, RESTORED) is None
        assert "restored" in {event.kind for event in events.since(conn, 0, 1000)}
    agent = PlayedAgent(found, deployed.id, deployed.name, deployed.key, deployed.numbers)
    agent.connect(running=(), highest_fence=order.fence + 500, **BOTH)
    asked = [body for body in agent.orders() if body.type == "deploy"]
    assert asked == [order], "the order it has carried out long since, under its old number"
    agent.report(_end(order))
    assert [one.phase for one in deploys(found)] == [Phase.DONE]


def test_an_order_that_waited_in_the_backup_is_asked_for_and_never_given_a_new_date(
    world: World, deployed: PlayedAgent, tmp_path: Path, again: Any
) -> None:
    found = again(take(world, tmp_path / "b"), key_of(world))  # the order is not on the agent's disk yet
    agent = PlayedAgent(found, deployed.id, deployed.name, deployed.key, deployed.numbers)
    agent.connect(running=(), **BOTH)
    [order] = agent.orders()
    assert order.fence < 1_000_000
    refused = messages.DeployAnswer(
        fence=order.fence, deployment=order.deployment, at=9, accepted=False, code="expired", sentence="void since long"
    )
    agent.report(refused)
    assert [(one.phase, one.reason_code) for one in deploys(found)] == [(Phase.FAILED, "expired")]
    assert agent.orders() == []


def test_it_is_settled_once(world: World, deployed: PlayedAgent, tmp_path: Path, again: Any) -> None:  # noqa: ARG001 - it was deployed before the backup
    found = again(take(world, tmp_path / "b"), key_of(world))
    project = found.find_project("keepwork")
    push(found, project, world.home / "keepwork.git", TEXT, "later")
    found.call(lambda tx: restored.settle(tx, found.master, found.tick()))
    assert found.runs()[-1].state not in (State.CANCELLED, State.FAILED)


def test_a_backup_is_taken_while_everything_is_being_written(world: World, tmp_path: Path) -> None:
    pieces = backing_up.stream(world.master)
    taken = [next(pieces)]
    world.call(lambda tx: settings.put(tx.conn, "written", "meanwhile"))
    taken += list(pieces)
    (tmp_path / "b").write_bytes(b"".join(taken))
    assert inspect(tmp_path / "b").files >= 2
    assert not list(world.master.home.glob(".backup-*"))


def test_a_reader_that_goes_away_leaves_nothing_behind(world: World) -> None:
    world.call(lambda tx: settings.put(tx.conn, "large", "x" * 3_000_000))
    pieces = backing_up.stream(world.master)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]  # a generator
    assert not list(world.master.home.glob(".backup-*"))


def test_neither_the_master_key_nor_the_order_key_lies_open_in_it(world: World, backup: Path) -> None:
    data = backup.read_bytes()
    for name in ("master.key", "order.key"):
        secret = (world.master.home / name).read_bytes()
        assert secret.strip().splitlines()[0] not in data


def test_a_home_that_is_used_is_never_touched(world: World, backup: Path) -> None:
    before = (world.master.home / "order.key").read_bytes()
    with pytest.raises(errors.Refused, match="holds a master already"):
        restore(backup, key_of(world), world.master.home, 1)
    assert (world.master.home / "order.key").read_bytes() == before


def test_another_key_restores_nothing(backup: Path, tmp_path: Path) -> None:
    Vault.open(tmp_path / "other.key", create=True)
    home = tmp_path / "empty"
    home.mkdir()
    with pytest.raises(errors.UsageError, match="not the master key of this backup"):
        restore(backup, tmp_path / "other.key", home, 1)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_backup_that_breaks_off_is_refused_and_leaves_an_empty_home(
    world: World, backup: Path, tmp_path: Path, share: float
) -> None:
    data = backup.read_bytes()
    end = data.rindex(b'"files"')
    backup.write_bytes(data[: int(end * share)])
    home = tmp_path / "empty"
    home.mkdir()
    with pytest.raises(errors.UsageError) as refused:
        restore(backup, key_of(world), home, 1)
    assert refused.value.code == "bad-backup"
    assert list(home.iterdir()) == []


def test_one_changed_byte_is_found(world: World, backup: Path, tmp_path: Path) -> None:
    data = bytearray(backup.read_bytes())
    data[20_000] ^= 1
    backup.write_bytes(bytes(data))
    with pytest.raises(errors.UsageError, match=r"keepflow\.db was changed"):
        restore(backup, key_of(world), tmp_path, 1)


@pytest.mark.parametrize(
    "entry",
    ["../order.key", "/etc/passwd", "logs/../../x", "logs", "master.key", "files/evil", "./keepflow.db", "logs//x"],
)
def test_a_file_that_does_not_belong_there_is_refused(tmp_path: Path, entry: str) -> None:
    with tarfile.open(tmp_path / "evil", "w") as tar:
        info = tarfile.TarInfo(entry)
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(errors.UsageError, match="does not belong there"):
        inspect(tmp_path / "evil")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_nothing_but_files_is_taken(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "evil", "w") as tar:
        info = tarfile.TarInfo("logs/x")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(errors.UsageError, match="does not belong there"):
        inspect(tmp_path / "evil")


@pytest.mark.parametrize("told", [{}, [], {"format": 1}, {"format": 2, "files": []}, {"format": 1, "files": [{}]}, "x"])
def test_a_list_that_says_nothing_useful_is_refused(tmp_path: Path, told: Any) -> None:
    data = json.dumps(told).encode()
    with tarfile.open(tmp_path / "evil", "w") as tar:
        info = tarfile.TarInfo("backup.json")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    with pytest.raises(errors.UsageError) as refused:
        inspect(tmp_path / "evil")
    assert refused.value.code == "bad-backup"
