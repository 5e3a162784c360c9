"""Logs as agents send them and people read them: owned, masked again, acknowledged when safe, seen when written."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.core.masking import MASK
from keepflow.engine.apply import REGISTRIES
from keepflow.store import jobs, settings
from keepflow.wire import messages
from tests.engine.test_dispatch import flow, push
from tests.engine.world import PlayedAgent, World
from tests.real.waiting import wait_until

TOKEN = "git-token-4711"


@pytest.fixture
def job(world: World) -> tuple[PlayedAgent, messages.RunJob]:
    """An agent that runs the job of keepwork#1, whose project has a secret."""
    sealed = world.master.vault.seal(TOKEN.encode(), "project/keepwork/git-token")
    project, repository = world.project(git_token=sealed)
    agent = world.agent()
    push(world, project, repository, flow())
    [order] = agent.orders()
    return agent, order


def _path(world: World, order: messages.RunJob) -> str:
    with world.read() as conn:
        attempt = jobs.attempt_by_fence(conn, order.fence)
    assert attempt is not None
    return attempt.log_path


def test_r61_a_log_is_stored_under_project_number_and_job_and_acknowledged_when_it_is_safe(
    world: World, job: tuple[PlayedAgent, messages.RunJob]
) -> None:
    agent, order = job
    logs, path = world.master.logs, _path(world, order)
    assert path == "keepwork/1/steps.1.log"
    assert logs.append(order.fence, 0, b"one\n", agent_id=agent.id).result(10) == 4
    assert logs.append(order.fence, 4, b"two\n", agent_id=agent.id).result(10) == 8
    assert logs.append(order.fence, 0, b"one\n", agent_id=agent.id).result(10) == 8
    assert logs.append(order.fence, 100, b"gap\n", agent_id=agent.id).result(10) == 8
    assert (logs.read(path, 0, 100), logs.size(path), logs.length(path)) == (b"one\ntwo\n", 8, 8)
    assert logs.read(path, 4, 2) == b"tw"
    assert (world.home / "home/logs" / path).stat().st_mode & 0o777 == 0o600


def test_p12_the_master_masks_again_and_keeps_both_counts_right(
    world: World, job: tuple[PlayedAgent, messages.RunJob]
) -> None:
    agent, order = job
    logs, path, sent = world.master.logs, _path(world, order), 0
    for piece in (b"a ", TOKEN[:5].encode(), TOKEN[5:].encode(), b" b\n", TOKEN.encode()[:-1]):
        logs.append(order.fence, sent, piece, agent_id=agent.id)
        sent += len(piece)
    wait_until(lambda: logs.read(path, 0, 100) == b"a " + MASK + b" b\n", 10, "all but the possible secret is visible")
    agent.report(messages.JobFinished(fence=order.fence, at=1, state="succeeded", log_bytes=sent))
    whole = b"a " + MASK + b" b\n" + TOKEN.encode()[:-1]
    wait_until(lambda: logs.read(path, 0, 100) == whole, 10, "the end is not held back")
    assert logs.length(path) == sent
    assert logs.place_of(path, 2 + len(TOKEN)) == 2 + len(MASK)
    assert logs.acked([order.fence], agent_id=agent.id).result(10) == {order.fence: sent}


def test_r74_an_agent_can_only_write_its_own_logs(world: World, job: tuple[PlayedAgent, messages.RunJob]) -> None:
    agent, order = job
    other, logs = world.agent("other", capabilities=()), world.master.logs
    for fence in (order.fence, 999):
        with pytest.raises(errors.NotFound):
            logs.append(fence, 0, b"x", agent_id=other.id).result(10)
    logs.append(order.fence, 0, b"mine\n", agent_id=agent.id).result(10)
    with pytest.raises(errors.NotFound):
        logs.append(order.fence, 5, b"x", agent_id=other.id).result(10)
    assert logs.acked([order.fence, 999], agent_id=other.id).result(10) == {}
    assert logs.read(_path(world, order), 0, 100) == b"mine\n"


def test_r60_whoever_watches_is_woken_when_bytes_can_be_read(
    world: World, job: tuple[PlayedAgent, messages.RunJob]
) -> None:
    agent, order = job
    seen: list[bytes] = []
    path = _path(world, order)
    unsubscribe = world.master.wakes.subscribe(
        f"log:{order.fence}", lambda: seen.append(world.master.logs.read(path, 0, 99))
    )
    world.master.logs.append(order.fence, 0, b"now\n", agent_id=agent.id).result(10)
    assert seen == [b"now\n"]
    unsubscribe()
    world.master.logs.append(order.fence, 4, b"later\n", agent_id=agent.id).result(10)
    assert seen == [b"now\n"]


def test_p07_a_restart_in_the_middle_of_a_log_leaves_no_gap_and_no_repeat(
    world: World, job: tuple[PlayedAgent, messages.RunJob]
) -> None:
    agent, order = job
    text = b"".join(b"line %d %s\n" % (n, TOKEN.encode() if n % 7 == 0 else b"") for n in range(1, 3001))
    expected, at, generator = text.replace(TOKEN.encode(), MASK), 0, random.Random(5)  # noqa: S311 - sizes, not secrets
    for round_ in range(6):
        while at < len(text) * (round_ + 1) // 6:
            size = generator.randint(1, 4000)
            world.master.logs.append(order.fence, at, text[at : at + size], agent_id=agent.id)
            at += size
        world.close()
        world.__init__(world.home)  # type: ignore[misc]  # the same home, a new process's objects
        at = world.master.logs.acked([order.fence], agent_id=agent.id).result(10)[order.fence]
    while at < len(text):
        at = world.master.logs.append(order.fence, at, text[at : at + 50_000], agent_id=agent.id).result(10)
    agent.report(messages.JobFinished(fence=order.fence, at=1, state="succeeded", log_bytes=len(text)))
    assert world.master.logs.read(_path(world, order), 0, len(text) * 2) == expected


def test_many_agents_write_at_once_and_each_log_is_whole(world: World) -> None:
    project, repository = world.project()
    found = []
    for n in range(8):
        agent = world.agent(f"a{n}")
        push(world, project, repository, flow("latest"), f"b{n}")
        [order] = agent.orders()
        found.append((agent, order))

    def write(agent: PlayedAgent, order: messages.RunJob) -> None:
        at, text = 0, f"{order.ref} ".encode() * 20_000
        while at < len(text):
            at = world.master.logs.append(order.fence, at, text[at : at + 65536], agent_id=agent.id).result(30)

    threads = [threading.Thread(target=write, args=pair) for pair in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for _, order in found:
        assert world.master.logs.read(_path(world, order), 0, 10_000_000) == f"{order.ref} ".encode() * 20_000


def test_f12_a_full_disk_acknowledges_nothing_and_goes_on_when_there_is_room(
    world: World, job: tuple[PlayedAgent, messages.RunJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    agent, order = job
    logs, real, full = world.master.logs, os.pwrite, threading.Event()

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        if full.is_set():
            raise OSError(errno.ENOSPC, "no space left on device")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    assert logs.append(order.fence, 0, b"before\n", agent_id=agent.id).result(10) == 7
    full.set()
    with pytest.raises(errors.OutOfSpace):
        logs.append(order.fence, 7, b"lost\n", agent_id=agent.id).result(10)
    full.clear()
    assert logs.append(order.fence, 7, b"after\n", agent_id=agent.id).result(10) == 13
    assert logs.read(_path(world, order), 0, 100) == b"before\nafter\n"


@pytest.mark.parametrize("path", ["../master.key", "/etc/passwd", "a/../../x"])
def test_a_path_that_leads_out_of_the_logs_is_refused(world: World, path: str) -> None:
    with pytest.raises(errors.UsageError):
        world.master.logs.read(path, 0, 10)


def test_a_registrys_password_is_masked_too(world: World, job: tuple[PlayedAgent, messages.RunJob]) -> None:
    agent, order = job
    sealed = world.master.vault.seal(b"registry-pass-1", "registry/main/push").hex()
    registry = {"address": "r:5000", "ca_pem": "", "push": {"username": "u", "password": sealed}, "pull": None}
    world.call(lambda tx: settings.put(tx.conn, REGISTRIES, {"main": registry}))
    world.master.logs.append(order.fence, 0, b"docker login -p registry-pass-1 ok\n", agent_id=agent.id).result(10)
    assert world.master.logs.read(_path(world, order), 0, 100) == b"docker login -p " + MASK + b" ok\n"
    assert not list(Path(world.home / "home/logs").rglob("*.tmp"))
