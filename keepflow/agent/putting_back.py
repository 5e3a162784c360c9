"""When a deployment cannot go on: visitors back to the old release first, then the new container away.

What to undo follows from the flags and the containers, not from memory, so the same code serves after a crash. A
deployment that put something back never tries a third release: what failed and what serves now is said, and that is it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

from keepflow.agent import env_file, release_command
from keepflow.agent.deployment import Outcome
from keepflow.agent.gate import TAIL_LINES, Gate
from keepflow.agent.masks import masked
from keepflow.agent.scene import Plan, Scene
from keepflow.agent.sockets import established
from keepflow.core import names
from keepflow.core.masking import Needle, needles_for
from keepflow.core.states import Phase
from keepflow.errors import DeployFailed, KeepflowError, SecretTooShort, Unavailable
from keepflow.ports import ContainerFacts, Traffic

_ENGINE_SECONDS = 60.0  #: patience with an engine that is being restarted
_NEW_DRAIN = 3.0  #: seconds that requests in the new container get once it is abandoned
_NEW_GRACE = 10.0


def put_back(scene: Scene, code: str, sentence: str, log_tail: str = "") -> Outcome:
    """Undo what was done and return `failed` (old untouched), `reverted`, or `unknown` when undoing failed, too."""
    scene.undoing = True
    try:
        if scene.journal.last("putting-back") is None:
            log_tail = _without_secrets(scene, log_tail or _tail_of_new(scene))
            scene.write("putting-back", code=code, sentence=sentence, log_tail=log_tail)
        touched = _undo(scene)
    except Exception as error:
        trouble = error.message if isinstance(error, KeepflowError) else f"{type(error).__name__}: {error}"
        serving = _serving_or_none(scene)
        return Outcome(
            Phase.UNKNOWN,
            code,
            f"{sentence}; putting back failed as well: {trouble}; {_named(serving)} serves now",
            serving,
            log_tail=log_tail,
        )
    serving = _serving_or_none(scene)
    if touched:
        return Outcome(Phase.REVERTED, code, f"{sentence}; put back: {_named(serving)} serves", serving, {}, log_tail)
    nothing = "nothing served before" if scene.plan else "nothing was touched"
    untouched = f"{_named(serving)} was not touched" if serving else nothing
    return Outcome(Phase.FAILED, code, f"{sentence}; {untouched}", serving, {}, log_tail)


def serving_identity(scene: Scene) -> str | None:
    """Return the identity of the container that the flags name, if it runs."""
    state = scene.proxy.state(scene.site)
    facts = scene.holder(state.slot) if state and state.slot and not state.maintenance else None
    return facts.labels.get(names.LABEL_IDENTITY) if facts and facts.running else None


def _undo(scene: Scene) -> bool:
    """Put traffic and containers back; say whether visitors could notice that anything had happened."""
    plan = scene.plan
    if plan is None:
        return False
    touched = scene.journal.has_act("switch-back")
    if scene.journal.has_act("stop-first") or scene.journal.has_act("stop-old"):
        _until_engine_answers(scene)
        _revive_old(scene, plan)
    state = scene.proxy.state(scene.site)
    if state != plan.before:
        touched = _switch_back(scene, plan, state) or touched
    if plan.served:
        scene.visitors_are_back()
    _until_engine_answers(scene)
    _remove_new(scene, plan, touched)
    release_command.clear(scene)
    scene.remove_aside()
    _drop_tag(scene)
    return touched


def _switch_back(scene: Scene, plan: Plan, state: Traffic | None) -> bool:
    """Put the traffic back; say whether visitors could notice."""
    if state == replace(plan.before, counted=True):
        with scene.act("stop-counting"):
            scene.proxy.switch(scene.site, plan.before)
        return False
    if plan.served is None:
        scene.expect_page()
    scene.ask_slot(None)
    moved = state is not None and (state.slot == plan.new or state.canary > 0)
    with scene.act("switch-back"):
        scene.proxy.switch(scene.site, plan.before)
    return moved or scene.journal.has_act("pause")


def _revive_old(scene: Scene, plan: Plan) -> None:
    old = scene.target.inspect(plan.old_container or "")
    if old is None:
        raise DeployFailed("the old container is gone", code="old-gone")
    if not old.running:
        with scene.act("start-old", container=old.id):
            scene.target.start(old.id)
    current = scene.instance.history().current
    container = current.container if current else scene.deployment.container
    Gate(
        scene.target, old.id, scene.address(plan.old or ""), scene.site.server_name, container.health, fresh=False
    ).wait()
    scene.target.persist(old.id)


def _remove_new(scene: Scene, plan: Plan, touched: bool) -> None:
    """Take the new container away, unless it is the hot one of an earlier deployment, which stays as it was."""
    facts = _new_container(scene, plan)
    if facts is None:
        return
    deadline = time.monotonic() + (_NEW_DRAIN if touched and facts.running else 0)
    while time.monotonic() < deadline and established(scene.address(plan.new)):
        time.sleep(0.02)
    with scene.act("remove-new", container=facts.id):
        if facts.running:
            grace = scene.deployment.container.stop_timeout if touched else 1.0
            scene.target.stop(facts.id, min(grace, _NEW_GRACE))
        scene.target.remove(facts.id)


def _drop_tag(scene: Scene) -> None:
    deployment = scene.deployment
    if scene.journal.has_act("keep") and deployment.identity not in scene.instance.history().identities:
        scene.target.drop(names.keep_tag(deployment.service, deployment.instance, deployment.identity))


def _tail_of_new(scene: Scene) -> str:
    """Return the last lines of the new container, "" when there is none or the engine does not answer."""
    try:
        facts = _new_container(scene, scene.plan) if scene.plan else None
        return scene.target.tail(facts.id, TAIL_LINES) if facts else ""
    except KeepflowError:
        return ""


def _without_secrets(scene: Scene, text: str) -> str:
    """Return the last words of an application without the values it was given in confidence."""
    given = {held.value for held in scene.secrets.values()}
    if scene.policy.env_file:
        with suppress(KeepflowError):
            given |= set(env_file.read(scene.policy.env_file).values())
    found: list[Needle] = []
    for value in given - set(scene.deployment.container.env.values()):
        with suppress(SecretTooShort):
            found += needles_for(value.encode())
    return masked(text, found)


def _new_container(scene: Scene, plan: Plan) -> ContainerFacts | None:
    facts = None if plan.reused else scene.holder(plan.new)
    return facts if scene.is_new(facts) else None


def _until_engine_answers(scene: Scene) -> None:
    """Wait for an engine that is being restarted; that it does not answer never means that a container is gone."""
    deadline = time.monotonic() + _ENGINE_SECONDS
    while True:
        try:
            return scene.target.ping()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.25)


def _serving_or_none(scene: Scene) -> str | None:
    try:
        return serving_identity(scene)
    except KeepflowError:
        return None


def _named(identity: str | None) -> str:
    return identity[:19] if identity else "nothing"
