"""The deployer: takes deployments on, carries them out alone on this host, and picks up what a dead process left.

    accept → (journal on the disk) → carry_out → rollout │ putting_back → outcome in the journal → told → closed

`recover` is the normal way to start, not an exception: it reads the open journals and finishes or undoes each one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from keepflow.agent import (
    adopting,
    inventory,
    maintenance,
    rehearsing,
    removing,
    rolling_back,
    rollout,
    upkeep,
)
from keepflow.agent.canary import Wishes
from keepflow.agent.concluding import conclude
from keepflow.agent.deployment import Deployment, Outcome, Reporter, ServicePolicy, Serving
from keepflow.agent.held_secrets import HeldSecrets
from keepflow.agent.instances import History, Instance
from keepflow.agent.inventory import Kept
from keepflow.agent.journal import Journal, Journals
from keepflow.agent.logs import Log
from keepflow.agent.networks import Networks
from keepflow.agent.picking_up import pick_up
from keepflow.agent.places import Places
from keepflow.agent.pulse import LOOK, SLOW_ENGINE, Pulse
from keepflow.agent.putting_back import put_back
from keepflow.agent.scene import Plan, Receipt, Scene
from keepflow.agent.serving import look
from keepflow.core import names
from keepflow.core.states import Phase
from keepflow.errors import KeepflowError, OutOfSpace, Refused, Unavailable
from keepflow.ports import Proxy, Target
from keepflow.tools.failpoints import fail

_UNSETTLED_PAUSE = 60.0  #: seconds between two tries to settle a deployment whose outcome is unknown

#: Goes from an accepted order until visitors get the release, or to an outcome when nothing is left to conclude.
Steps = Callable[[Scene], Outcome | None]
#: What is done for an order, by its action; all others are rollouts.
_STEPS: dict[str, Steps] = {
    "adopt": adopting.adopt,
    "stage": rehearsing.stage,
    "rehearse": rehearsing.rehearse,
    "remove": removing.remove,
}
#: What is taken again from its beginning after a crash: it touches nothing, or may be done twice.
_AGAIN = frozenset({"adopt", "stage", "remove"})

log = Log(__name__)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A deployment that is on the disk and holds its instance; it is carried out or, by a later process, recovered."""

    deployment: Deployment
    journal: Journal
    instance: Instance


@dataclass(slots=True)
class Deployer:
    """Deploys to one host. Methods may be called from every thread; `root` is the agent's state directory."""

    root: Path
    agent: str
    target: Target
    proxy: Proxy
    policies: Mapping[str, ServicePolicy]
    reporter: Reporter
    held: HeldSecrets
    pool: str = "10.213.0.0/16"
    labels: Mapping[str, str] = field(default_factory=dict)  #: more labels for every container and network
    patience: float = 45.0  #: seconds an order waits while a hot container is being stopped, or a person rolls back
    tells: bool = True  #: False: this process has no voice; ends stay in open journals until one that has finds them
    wishes: Wishes = field(default_factory=Wishes)  #: what people want of canaries that are under way
    pulse: Pulse = field(default_factory=Pulse)
    journals: Journals = field(init=False)
    networks: Networks = field(init=False)
    places: Places = field(init=False)
    _untold: dict[str, Outcome] = field(default_factory=dict)  #: ends that a full disk does not take, by id
    _patience: dict[str, float] = field(default_factory=dict)  #: when to try unsettled deployments again, by id

    def __post_init__(self) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.journals = Journals(self.root / "journal")
        self.networks = Networks(self.root / "networks.json", self.pool)
        self.places = Places(self.root / "instances", self.policies, self.networks)

    def accept(self, deployment: Deployment) -> Accepted:
        """Take a deployment on; when this returns, it ends on this host whatever happens to master and link.

        Raises Refused (`instance-busy`, `unsettled`, `known-deployment`, `replayed-nonce`), StaleFence, UsageError, and
        DeployFailed when this host has no network for it.
        """
        most = None if deployment.action == "remove" else self.places.policy(deployment.service).most
        return self._take_on(deployment.service, deployment.instance, lambda _: deployment, most)

    def accept_rollback(self, service: str, instance: str, to: str, by: str) -> Accepted:
        """Take on a rollback that a person on this host asks for, whoever else is awake.

        `to` is the identity to go back to or its beginning, "" = what served before. Raises what `accept` raises, and
        Refused when there is nothing to go back to.
        """

        def chosen(here: Instance) -> Deployment:
            serves = self.serving(service, instance).identity
            target = rolling_back.choose(here.history(), serves, to)
            return rolling_back.asked_here(
                target, service, instance, by, self.journals.highest_fence(service, instance)
            )

        return self._take_on(service, instance, chosen)

    def carry_out(self, accepted: Accepted) -> Outcome:
        """Bring an accepted deployment to its end and tell it."""
        steps = _STEPS.get(accepted.deployment.action, self._forward)
        return self._to_the_end(self._scene(accepted), steps)

    def _forward(self, scene: Scene) -> None:
        rollout.forward(scene, self.wishes)

    def deploy(self, deployment: Deployment) -> Outcome:
        """Accept and carry out."""
        return self.carry_out(self.accept(deployment))

    def recover(self) -> list[Outcome]:
        """Have all fronts stand, finish or undo what a dead process left, and tell ends that were not told.

        Raises Unavailable when the engine does not answer: nothing was decided then, call again.
        """
        self.target.ping()
        self.stand_up()  # first: after a reboot the own nginx is down, and nothing can be proven without it
        return self.settle_open()

    def settle_open(self) -> list[Outcome]:
        """Bring every open journal that no process holds to its end."""
        outcomes = []
        for deployment in self.journals.open_deployments():
            if time.monotonic() < self._patience.get(deployment.id, 0.0):
                continue
            try:
                instance = self.places.instance(deployment.service, deployment.instance).claim()
            except Refused:  # some process is at it
                continue
            journal = self.journals.reopen(deployment)
            if journal is None:
                instance.release()
            elif journal.outcome is not None and not self.tells:
                journal.end()
                instance.release()
            else:
                outcomes.append(self._resume(Accepted(deployment, journal, instance)))
        return outcomes

    def stand_up(self) -> list[str]:
        """Have every front stand, also before its first deploy; returns what could not be done, in words."""
        for policy in self.policies.values():
            for name in policy.instances:
                self.places.instance(policy.service, name).front()
        trouble = []
        for instance in self.places.known():
            try:
                trouble += upkeep.stand_up(self.places, self.proxy, instance)
            except KeepflowError as error:
                trouble.append(f"{instance.service}/{instance.instance}: {error.message}")
        return trouble

    def tend(self) -> list[str]:
        """Do what is due now and then: fronts up, hot containers past their time stopped, unsettled ones settled.

        Meant to be called every few seconds; cheap when nothing is due. Returns troubles in words.
        """
        trouble = self.stand_up()
        try:
            for instance in self.places.known():
                upkeep.stop_retired(self.places, self.target, self.proxy, self.pulse, instance)
            self.settle_open()
        except Unavailable as error:
            trouble.append(error.message)
        return trouble

    def serving(self, service: str, instance: str = "main") -> Serving:
        """Say what an instance serves right now: by flags, container and front door, not by memory."""
        here, policy = self.places.instance(service, instance), self.places.policy(service)
        site = self.places.site(here) if instance in policy.instances else self.places.standing_site(here)
        if site is None:
            return Serving(service, instance, policy.environment, None, None)
        return look(policy, here.history(), site, self.target, self.proxy)

    def instances(self, service: str) -> list[str]:
        """List the instances of a service: those that its file names, and those that branches have here."""
        begun = [found.instance for found in self.places.known() if found.service == service]
        return list(dict.fromkeys([*self.places.policy(service).instances, *begun]))

    def history(self, service: str, instance: str = "main") -> History:
        """Return what served here, newest first, for a rollback."""
        return self.places.instance(service, instance).history()

    def inventory(self, service: str, instance: str = "main") -> list[Kept]:
        """Look what can be gone back to right now: in containers and on the disk, not in memory."""
        self.places.policy(service)
        here = self.places.instance(service, instance)
        return inventory.look(service, instance, here.history(), here.staged(), self.target)

    def maintenance(self, service: str, instance: str = "main", *, up: bool) -> tuple[bool, str]:
        """Put the maintenance page up or take it down; return whether that changed anything, and the bypass link.

        Raises Refused `instance-busy` while a deployment is under way, which puts its own page up and takes it down.
        """
        self.places.policy(service)
        here = self._hold(service, instance)
        try:
            if self.journals.is_open(service, instance):
                raise Refused(f"a deployment of {service}/{instance} has not settled yet", code="unsettled")
            site = self.places.site(here)
            return maintenance.put(self.proxy, site, up=up), maintenance.bypass_link(site)
        finally:
            here.release()

    def _take_on(
        self, service: str, name: str, wanted: Callable[[Instance], Deployment], most: int | None = None
    ) -> Accepted:
        """Hold the instance, ask only then what is wanted (a deployment that just ended counts), and journal it."""
        self.places.policy(service)
        self.networks.of(service, name, most)
        instance = self._hold(service, name)
        try:
            if self.journals.is_open(service, name):
                raise Refused(
                    f"an earlier deployment of {service}/{name} has not settled yet; the agent tries again by itself",
                    code="unsettled",
                )
            deployment = wanted(instance)
            journal = self.journals.accept(deployment)
        except BaseException:
            instance.release()
            raise
        return Accepted(deployment, journal, instance)

    def _hold(self, service: str, name: str) -> Instance:
        """Hold an instance; who else has it is named in the refusal."""
        try:
            return self.places.instance(service, name).claim(self.patience)
        except Refused as busy:
            at_work = self.journals.at_work(service, name)
            if at_work is None:
                raise
            raise Refused(
                f"{service}/{name}: {at_work.words()} on this host; wait for its end", code=busy.code
            ) from None

    def _to_the_end(self, scene: Scene, steps: Steps) -> Outcome:
        try:
            outcome = _carried_out(scene, steps)
            if outcome.code == removing.REMOVED:
                self.networks.release(scene.deployment.service, scene.deployment.instance)
            if outcome.outcome == Phase.UNKNOWN:
                self._leave_open(scene, outcome)
            else:
                self._end(scene.deployment, scene.journal, outcome)
        finally:
            scene.stop_probing()
            scene.instance.release()
            self.pulse.rest(_part(scene.deployment))
        return outcome

    def _leave_open(self, scene: Scene, outcome: Outcome) -> None:
        """Keep a deployment for later; what is known of it is told once, until it settles."""
        self._patience[scene.deployment.id] = time.monotonic() + _UNSETTLED_PAUSE
        told = scene.journal.last("unknown")
        if self.tells and (told is None or told["sentence"] != outcome.sentence):
            with suppress(OutOfSpace):
                scene.write("unknown", sentence=outcome.sentence)
                self.reporter.finished(scene.deployment, outcome)
        scene.journal.end()

    def _end(self, deployment: Deployment, journal: Journal, outcome: Outcome) -> None:
        """Write an end down, tell it and close its journal; on a full disk, or without a voice, that is for later."""
        try:
            if journal.outcome is None:
                journal.append("outcome", outcome=outcome.to_json())
            fail("deploy.outcome")
            if not self.tells:
                journal.end()
                return
            self.reporter.finished(deployment, outcome)
            fail("deploy.told")
        except OutOfSpace as error:
            log.warning("the end of a deployment cannot be told yet", deployment=deployment.id, reason=error.message)
            self._untold[deployment.id] = outcome
            journal.end()
            return
        self._untold.pop(deployment.id, None)
        self.journals.close(journal)

    def _resume(self, accepted: Accepted) -> Outcome:
        """Bring a journal that another process left to its end; truth is flags and containers, then the journal."""
        self.pulse.rest(LOOK)  # whoever looks carries a deployment out now, which has a pulse of its own
        ended = accepted.journal.outcome or self._untold.get(accepted.deployment.id)
        if ended is not None:
            try:
                self._end(accepted.deployment, accepted.journal, ended)
            finally:
                accepted.instance.release()
            return ended
        scene = self._scene(accepted)
        scene.receipt.recovered = True
        kept = accepted.journal.last("plan")
        scene.plan = Plan(**kept["plan"]) if kept else None
        if scene.plan:
            scene.receipt.digest_before = scene.plan.identity_before
            scene.receipt.image_id = scene.plan.image_id
        action = accepted.deployment.action
        return self._to_the_end(scene, _STEPS[action] if action in _AGAIN else pick_up)

    def _scene(self, accepted: Accepted) -> Scene:
        deployment = accepted.deployment
        policy = self.places.policy(deployment.service)
        network = self.networks.of(deployment.service, deployment.instance)
        return Scene(
            deployment=deployment,
            policy=policy,
            instance=accepted.instance,
            network=network,
            site=accepted.instance.front().site(policy, network),
            target=self.target,
            proxy=self.proxy,
            journal=accepted.journal,
            reporter=self.reporter,
            labels={**self.labels, names.LABEL_OWNER: f"agent:{self.agent}"},
            held=self.held,
            secrets=self.held.values(deployment),
            receipt=Receipt(deployment.container.strategy.value),
            alive=partial(self.pulse.beat, _part(deployment), _longest_silence(deployment, policy)),
        )


def _part(deployment: Deployment) -> str:
    return f"the deployment of {deployment.service}/{deployment.instance}"


def _longest_silence(deployment: Deployment, policy: ServicePolicy) -> float:
    """Return the seconds within which a deployment writes its next record: all that one phase may wait for."""
    container, canary = deployment.container, deployment.canary_hold * len(deployment.canary)
    asked = container.health.within + container.stop_timeout + container.release_timeout + canary
    return SLOW_ENGINE + asked + policy.drain + policy.watch


def _carried_out(scene: Scene, steps: Steps) -> Outcome:
    """Take the steps, or put everything back; whatever happens, an outcome with a receipt comes out."""
    try:
        ended = steps(scene)
    except KeepflowError as error:
        outcome = put_back(scene, error.code, error.message, getattr(error, "log_tail", ""))
    except Exception as error:
        log.broke("a deployment met a bug", error, deployment=scene.deployment.id)
        outcome = put_back(scene, "internal-error", f"a bug in keepflow: {type(error).__name__}: {error}")
    else:
        outcome = ended or conclude(scene)
    scene.end_phase()
    scene.stop_probing()
    return replace(outcome, receipt=scene.receipt.to_json())
