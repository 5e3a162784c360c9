"""The command that a release runs once before its container is started: migrations, mostly.

It runs in a container of its own, from the image and with the settings of the new one, while the old release serves.
The container is never restarted and always removed: here when all went well, by `clear` when things are put back.
"""

from __future__ import annotations

import time
from dataclasses import replace

from keepflow.agent.gate import TAIL_LINES
from keepflow.agent.scene import Scene
from keepflow.core import names
from keepflow.errors import DeployFailed
from keepflow.ports import ContainerFacts, SlotSpec

_PAUSE = 0.1  #: seconds between two looks whether it has ended


def is_due(scene: Scene) -> bool:
    """Say whether this deployment runs one: going back undoes no migration, and a rehearsal changes nothing."""
    return bool(scene.deployment.container.release_command) and scene.deployment.action == "deploy"


def run(scene: Scene, slot: SlotSpec) -> None:
    """Run it to its end; raises DeployFailed `release-command` or `release-command-timeout` with its last words."""
    container = slot.container
    spec = replace(
        slot,
        slot=names.RELEASE,
        address=scene.network.beside,
        command=container.release_command,
        restart="no",
        labels={key: value for key, value in slot.labels.items() if key != names.LABEL_SLOT},
    )
    scene.say(f"release command: {container.release_command[0]}, at most {container.release_timeout:g} s")
    with scene.act("release-command"):
        began = time.monotonic()
        made = scene.target.create(spec)
        scene.target.start(made)
        ended = _wait(scene, made, began + container.release_timeout)
        scene.receipt.release_command = {
            "seconds": round(time.monotonic() - began, 3),
            "exit_code": ended.exit_code if ended else None,
        }
        if ended is None:
            scene.target.stop(made, container.stop_timeout)
        _judge(scene, made, ended)
        scene.target.remove(made)


def may_have_begun(scene: Scene) -> bool:
    """Say whether one was begun whose end nobody wrote down."""
    return scene.journal.is_unfinished("release-command")


def clear(scene: Scene) -> None:
    """End and remove the container of a command that failed, or that a dead process or a silent engine left running."""
    facts = scene.holder(names.RELEASE)
    if facts is not None and scene.is_new(facts):
        scene.target.stop(facts.id, scene.deployment.container.stop_timeout)
        scene.target.remove(facts.id)


def _wait(scene: Scene, made: str, deadline: float) -> ContainerFacts | None:
    """Return what ended, or None when it still runs at the deadline."""
    while True:
        facts = scene.target.inspect(made)
        if facts is None:
            raise DeployFailed("somebody removed the container of the release command", code="release-command")
        if not facts.running:
            return facts
        if time.monotonic() > deadline:
            return None
        time.sleep(_PAUSE)


def _judge(scene: Scene, made: str, ended: ContainerFacts | None) -> None:
    if ended is not None and ended.exit_code == 0:
        return
    tail = scene.target.tail(made, TAIL_LINES)
    if ended is None:
        seconds = scene.deployment.container.release_timeout
        sentence = f"the release command had not ended after {seconds:g} s and was stopped; it may have run in part"
        raise DeployFailed(sentence, code="release-command-timeout", log_tail=tail)
    memory = ", out of memory" if ended.oom_killed else ""
    raise DeployFailed(
        f"the release command ended with exit code {ended.exit_code}{memory}", code="release-command", log_tail=tail
    )
