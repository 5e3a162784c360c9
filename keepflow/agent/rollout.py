"""The one rollout, phase by phase: new one up, proven, switched to, watched; old one drained and stopped.

Each phase is a function that either completes or raises; what happens then is `putting_back`'s affair. Nothing here
touches the old container before `stopping` (stop-first) or `draining`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace

from keepflow.agent import canary, disk, draining, env_file, release_command
from keepflow.agent.canary import Wishes
from keepflow.agent.gate import Gate
from keepflow.agent.scene import Plan, Scene
from keepflow.agent.watching import still_good, watch, whose_fault
from keepflow.core import deploys, names
from keepflow.core.flows import Strategy
from keepflow.core.states import Phase
from keepflow.errors import DeployFailed
from keepflow.ports import ContainerFacts, ImageFacts, SlotSpec, Traffic

RESERVE = 256 * 1024 * 1024  #: bytes that must be free on the disk of the agent's state
_PROOF_SECONDS = 5.0
_PROOFS = 3  #: answers of the new slot in a row, through the front door


def forward(scene: Scene, wishes: Wishes) -> None:
    """Go from the order until visitors get the new release; raises for `putting_back` to handle."""
    scene.enter(Phase.ACCEPTED)
    preflight(scene)
    count_visitors(scene)
    pull(scene)
    prepare(scene)
    if scene.deployment.container.strategy == Strategy.STOP_FIRST and scene.known_plan().old:
        stop_old(scene)
    start(scene)
    gate(scene)
    canary.step_by_step(scene, wishes)
    switch(scene)
    settle(scene)


def settle(scene: Scene) -> None:
    """Prove and watch a release that the flags already name."""
    prove(scene)
    watch(scene)


def preflight(scene: Scene) -> None:
    """Refuse what cannot work before anything is touched, and make the plan."""
    scene.enter(Phase.PREFLIGHT)
    scene.target.ping()
    _check_settings(scene)
    free = shutil.disk_usage(scene.instance.root).free
    if free < RESERVE:
        raise DeployFailed(f"only {free >> 20} MiB are free on this host; free some space", code="disk-full")
    plan = make_plan(scene)
    _ready_front(scene, plan)
    expected = scene.deployment.expect_current
    if expected is not None and expected != plan.identity_before:
        raise DeployFailed(
            f"{plan.identity_before or 'nothing'} serves here, but the order expects {expected}", code="not-current"
        )
    scene.receipt.digest_before = plan.identity_before
    scene.keep_plan(plan)


def count_visitors(scene: Scene) -> None:
    """Have what visitors are answered written down from here on, while the old release serves: that is the measure."""
    plan = scene.known_plan()
    if plan.served and scene.counted:
        with scene.act("count"):
            scene.proxy.switch(scene.site, replace(plan.before, counted=True))


def make_plan(scene: Scene) -> Plan:
    """Look at flags and containers and decide who follows whom; raises DeployFailed `foreign-container`."""
    history = scene.instance.history()
    state = scene.proxy.state(scene.site)
    if state is not None and state.slot and state.maintenance:
        raise DeployFailed(
            "a person put the maintenance page up, and a deployment would take it down: "
            f"keepflow agent maintenance {scene.deployment.service} off",
            code="maintenance-page",
        )
    if state is None and history.slot:  # somebody removed the flags; who served last serves on
        state = Traffic(history.slot)
        scene.proxy.switch(scene.site, state)
    served = state.slot if state else None
    old = scene.holder(served) if served else None
    new = names.other_slot(served) if served else _free_slot(scene)
    idle = scene.holder(new)
    if idle is not None and not scene.is_ours(idle):
        raise DeployFailed(
            f"the container {idle.name} has the name of a slot but was not made by keepflow; remove or rename it",
            code="foreign-container",
        )
    alive = old is not None and old.running
    last = history.current if history.slot == served else None
    return Plan(
        new=new,
        old=served if alive else None,
        old_container=old.id if old else None,
        old_grace=(last.container if last else scene.deployment.container).stop_timeout,
        served=served,
        identity_before=old.labels.get(names.LABEL_IDENTITY) if old and alive else None,
    )


def _free_slot(scene: Scene) -> str:
    """Return the slot for a first deployment: not the one where a container started by hand may be running."""
    by_hand = scene.holder("blue")
    return "green" if by_hand is not None and by_hand.running else "blue"


def pull(scene: Scene) -> None:
    """Have exactly the wanted image on this engine, and plan with it."""
    facts = fetch(scene)
    scene.keep_plan(replace(scene.known_plan(), image_id=facts.image_id))


def fetch(scene: Scene) -> ImageFacts:
    """Have exactly the wanted image on this engine, kept by a tag that no prune removes."""
    deployment = scene.deployment
    wanted = deployment.image_id
    if deployment.origin == "registry":
        wanted = f"{deployment.repository}@{deployment.digest}"
    facts = scene.target.image(wanted) or _kept(scene)
    scene.enter(Phase.PULLING, "on disk already" if facts else wanted)
    if facts is None:
        facts = _fetch(scene)
    if deployment.origin == "registry" and wanted not in facts.repo_digests and facts != _kept(scene):
        raise DeployFailed(f"the engine has {facts.image_id}, but not as {wanted}", code="digest-mismatch")
    with scene.act("keep", image=facts.image_id):
        tag = names.keep_tag(deployment.service, deployment.instance, deployment.identity)
        scene.target.keep(facts.image_id, tag)
    scene.receipt.image_id = facts.image_id
    return facts


def prepare(scene: Scene) -> None:
    """Run the release command and create the new container in the idle slot; a hot one is taken as it is."""
    scene.enter(Phase.PREPARING)
    deployment, plan = scene.deployment, scene.known_plan()
    labels = _labels(scene)
    scene.target.network(scene.network.name, scene.network.subnet, _without_deployment(labels))
    idle = scene.holder(plan.new)
    if idle is not None and _is_hot(scene, idle):
        scene.receipt.hot_start = True
        if deployment.container.secrets:
            scene.receipt.notes.append("the container kept hot has the secrets it was started with")
        scene.keep_plan(replace(plan, container=idle.id, reused=True))
        return
    host_env = env_file.read(scene.policy.env_file) if scene.policy.env_file else {}
    spec = SlotSpec(
        service=deployment.service,
        instance=deployment.instance,
        slot=plan.new,
        address=scene.network.address(plan.new),
        subnet=scene.network.subnet,
        image_id=plan.image_id,
        container=deployment.container,
        env={**deployment.container.env, **_secret_variables(scene), **host_env},
        labels=labels,
        secrets=_secret_files(scene, host_env),
    )
    if release_command.is_due(scene):
        release_command.run(scene, spec)
    if idle is not None and idle.running:
        with scene.act("clear", container=idle.id):
            scene.target.stop(idle.id, plan.old_grace)
    with scene.act("create", slot=plan.new):
        container = scene.target.create(spec)
    scene.keep_plan(replace(plan, container=container))


def _secret_variables(scene: Scene) -> dict[str, str]:
    """Return the secrets that the release asked to get as variables, and say in the receipt what that means."""
    wanted = [name for name in scene.deployment.container.secrets_in_env if name in scene.secrets]
    if wanted:
        told = ", ".join(f"{name} version {scene.secrets[name].version}" for name in wanted)
        scene.receipt.notes.append(f"secrets as variables, which root on this host sees in inspect: {told}")
    return {name: scene.secrets[name].value for name in wanted}


def _secret_files(scene: Scene, host_env: Mapping[str, str]) -> str:
    """Lay out the files that the new container reads; a name in the host's env_file is the host's affair."""
    apart = {*host_env, *scene.deployment.container.secrets_in_env}
    values = {name: held.value for name, held in scene.secrets.items() if name not in apart}
    place = scene.held.render(scene.deployment, values)
    if place is None:
        return ""
    told = ", ".join(f"{name} version {scene.secrets[name].version}" for name in sorted(values))
    whose = "the newest held on this host" if scene.deployment.by else "as ordered"
    scene.receipt.notes.append(f"secrets, {whose}: {told}")
    return str(place)


def stop_old(scene: Scene) -> None:
    """Stop-first: show the maintenance page, let requests end, stop the old container."""
    plan = scene.known_plan()
    scene.enter(Phase.STOPPING, "visitors see the maintenance page")
    scene.pause_visitors()
    with scene.act("pause"):
        scene.proxy.switch(scene.site, Traffic(plan.old, maintenance=True, counted=scene.counted))
    draining.drain(scene, plan.old or "")
    with scene.act("stop-first", container=plan.old_container):
        scene.target.stop(plan.old_container or "", plan.old_grace)


def start(scene: Scene) -> None:
    """Start the new container; the front door is asked from here on."""
    plan = scene.known_plan()
    scene.enter(Phase.STARTING)
    scene.start_probing(pause=plan.served is None)
    if not plan.reused:
        with scene.act("start", container=plan.container):
            scene.target.start(plan.container)


def gate(scene: Scene) -> None:
    """Wait until the new container has proven that it serves."""
    scene.enter(Phase.GATING)
    plan = scene.known_plan()
    health = scene.deployment.container.health
    evidence = Gate(
        scene.target, plan.container, scene.address(plan.new), scene.site.server_name, health, fresh=not plan.reused
    ).wait()
    scene.receipt.gate = {"tries": evidence.tries, "seconds": round(evidence.seconds, 4), "last": evidence.last}


def switch(scene: Scene) -> None:
    """Send visitors to the new container, the old one behind it as net where that is allowed."""
    plan, policy = scene.known_plan(), scene.policy
    scene.enter(Phase.SWITCHING, f"{plan.served or 'nothing'} → {plan.new}")
    net = scene.net and policy.watch > 0
    with scene.act("switch", slot=plan.new):
        scene.proxy.switch(scene.site, Traffic(plan.new, net=net, counted=scene.counted))
        scene.visitors_are_back()
    scene.receipt.slot = plan.new


def prove(scene: Scene) -> None:
    """Believe only answers: of the new slot's own address through the front door, from the wanted image."""
    scene.enter(Phase.PROVING)
    plan = scene.known_plan()
    _answers_of(scene, plan.new)
    scene.visitors().proven()
    scene.receipt.serving_after = scene.since_accepted()
    facts = still_good(scene)
    if facts.image_id != plan.image_id:
        raise DeployFailed(
            f"the container runs {facts.image_id}, but {plan.image_id} was ordered", code="digest-mismatch"
        )
    _persist(scene, plan)
    scene.receipt.digest_after = scene.deployment.identity


def _persist(scene: Scene, plan: Plan) -> None:
    """Let the engine keep the container up from here on; one that ends just now is a bad release, not a bad engine."""
    try:
        scene.target.persist(plan.container)
    except DeployFailed:
        still_good(scene)
        raise


def _check_settings(scene: Scene) -> None:
    container, policy = scene.deployment.container, scene.policy
    strange = [volume.name for volume in container.volumes if volume.name not in policy.volumes]
    if strange:
        raise DeployFailed(
            f"this host's file allows no volume {', '.join(strange)} for {policy.service} (volumes: in agent.yml)",
            code="volume-not-allowed",
        )
    given = {*scene.secrets, *(env_file.read(policy.env_file) if policy.env_file else ())}
    missing = [name for name in container.secrets if name not in given]
    if missing:
        raise DeployFailed(
            f"no value for {', '.join(missing)}: keepflow secret set {scene.deployment.environment} {missing[0]}, "
            "or a line in the host's env_file",
            code="secret-missing",
        )


def _ready_front(scene: Scene, plan: Plan) -> None:
    """Have the front stand and see the flags, with the release's port in the idle slot."""
    front = scene.instance.front()
    wanted = front.with_port(plan.new, scene.deployment.container.port)
    if wanted != front:
        scene.say(f"the application's port becomes {scene.deployment.container.port}: nginx is reloaded once")
    scene.site = wanted.site(scene.policy, scene.network)
    scene.proxy.ensure(scene.site)
    if wanted != front:
        scene.instance.save_front(wanted)
    if scene.proxy.state(scene.site) is not None and not scene.proxy.sees_flags(scene.site):
        raise DeployFailed(
            "the proxy does not obey the flag directory; see its error log and the rights of that directory",
            code="proxy-blind",
        )


def _kept(scene: Scene) -> ImageFacts | None:
    """Return the image kept here for a rollback, although the engine forgot the digest it once came by."""
    deployment = scene.deployment
    if deployment.action != "rollback":
        return None
    facts = scene.target.image(names.keep_tag(deployment.service, deployment.instance, deployment.identity))
    return facts if facts is not None and facts.image_id == deployment.image_id else None


def _fetch(scene: Scene) -> ImageFacts:
    deployment = scene.deployment
    if deployment.origin != "registry" or deployment.digest is None:
        raise DeployFailed(
            f"the image {deployment.image_id} is no longer on the engine that built it; build it again",
            code="image-missing",
        )
    disk.make_room(scene)
    scene.receipt.pulled = True
    return scene.target.pull(deployment.repository, deployment.digest, scene.policy.login, scene.say)


def _labels(scene: Scene) -> dict[str, str]:
    deployment, plan = scene.deployment, scene.known_plan()
    return {
        **scene.labels,
        names.LABEL_SERVICE: deployment.service,
        names.LABEL_INSTANCE: deployment.instance,
        names.LABEL_SLOT: plan.new,
        names.LABEL_ENVIRONMENT: deployment.environment,
        names.LABEL_DEPLOYMENT: deployment.id,
        names.LABEL_FENCE: str(deployment.fence),
        names.LABEL_IDENTITY: deployment.identity,
        names.LABEL_DESCRIPTION: deploys.description_hash(deployment.container),
    }


def _without_deployment(labels: dict[str, str]) -> dict[str, str]:
    of_a_container = (names.LABEL_SLOT, names.LABEL_DEPLOYMENT, names.LABEL_FENCE, names.LABEL_IDENTITY)
    return {key: value for key, value in labels.items() if key not in (*of_a_container, names.LABEL_DESCRIPTION)}


def _is_hot(scene: Scene, idle: ContainerFacts) -> bool:
    """Say whether the idle slot already runs what a rollback wants."""
    return (
        scene.deployment.action == "rollback"
        and idle.running
        and idle.image_id == scene.known_plan().image_id
        and idle.labels.get(names.LABEL_DESCRIPTION) == deploys.description_hash(scene.deployment.container)
    )


def _answers_of(scene: Scene, slot: str) -> None:
    """Wait for answers of one slot, in a row, through the front door; raises DeployFailed `front-door`."""
    health, address = scene.deployment.container.health, scene.address(slot)
    deadline = time.monotonic() + _PROOF_SECONDS
    in_row, last = 0, "nobody answered"
    while in_row < _PROOFS:
        if time.monotonic() > deadline:
            raise DeployFailed(
                f"the front door does not show the new release: {last}", code=whose_fault(scene, "front-door")
            )
        try:
            answer = scene.proxy.probe(scene.site, health.path, health.timeout)
        except DeployFailed as error:
            in_row, last = 0, error.message
        else:
            good = answer.address == address and 200 <= answer.status < 400
            in_row = in_row + 1 if good else 0
            last = f"status {answer.status} from {answer.address or 'nobody'} instead of {address}"
        if not in_row:
            still_good(scene)
            time.sleep(0.02)
