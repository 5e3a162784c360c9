"""Deployments of this agent: orders come in, the deployer carries them out, what serves is looked at now and then."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict

from keepflow import errors
from keepflow.agent import by_hand, env_file, steering
from keepflow.agent.clock import Clock
from keepflow.agent.deployer import Deployer
from keepflow.agent.front import Front
from keepflow.agent.hand_socket import HandSocket
from keepflow.agent.held_secrets import HeldSecrets
from keepflow.agent.host_file import HostFile
from keepflow.agent.host_policies import HostPolicies
from keepflow.agent.images import MadeHere
from keepflow.agent.logs import Log, Reminder
from keepflow.agent.looks import Looks
from keepflow.agent.orders import DeployReports, Orders
from keepflow.agent.pins import Pins
from keepflow.agent.policy import Facts
from keepflow.agent.pulse import LOOK, Pulse
from keepflow.agent.reports import Reports
from keepflow.agent.state import State
from keepflow.agent.steering import Standpoint
from keepflow.config.agent_file import Service
from keepflow.ports import Target
from keepflow.tools.failpoints import fail
from keepflow.wire.messages import Deploy, Difference, KeptRelease, ServiceState, Steer

log = Log(__name__)
reminder = Reminder(log)

_TEND = 5.0  #: seconds between two looks at fronts and containers
_RETRY = 2.0  #: seconds between two tries to take up the journals while the engine does not answer


class Deploys:
    """Everything of this agent that deploys; an agent whose file does not allow it only refuses."""

    def __init__(
        self,
        state: State,
        pins: Pins,
        key_id: str,
        host_file: HostFile,
        engine: Target,
        made: MadeHere,
        reports: Reports,
        clock: Clock,
        pulse: Pulse,
        patience: float,
    ) -> None:
        """`patience`: seconds after which a look at the services that does not come back hangs."""
        file = host_file.now()
        self._pulse, self._allow = pulse, _TEND + patience
        if file.services and file.address != "container":
            raise errors.UsageError(
                f"agent.yml: address: {file.address} is not built yet; remove the line: slots get container addresses",
                code="not-yet",
            )
        self._pins, self._key_id = pins, key_id
        self._host_file, self._made, self._clock = host_file, made, clock
        self._fences: tuple[int, ...] = ()
        self._recovered = threading.Event()
        self._look = threading.Event()
        told = DeployReports(state.root / "adopted.json", reports, clock, pins.identity.agent, state.key())
        self._told = told
        front = Front(host_file, state.front_root)
        if file.services:
            front.proxy()  # what is wrong with it is said at the start
        held = HeldSecrets(state.root / "secrets", state.key().opening)
        self._deployer = Deployer(
            state.root,
            pins.identity.agent,
            engine,
            front,
            HostPolicies(host_file),
            told,
            held,
            str(file.networks),
            pulse=pulse,
        )
        self._looks = Looks(self._deployer.journals)
        self._hand = HandSocket(
            state.root, lambda say: by_hand.deployer(state, host_file, say, engine), ended=self._look.set
        )
        self._orders = Orders(
            state.directory("orders"),
            state.root / "refused.log",
            deployer=self._deployer,
            reports=told,
            facts=self._facts,
            ready=self._recovered,
            measured=clock.measured,
            changed=self._look.set,
        )

    @property
    def highest_fence(self) -> int:
        """The highest fence of an order that was accepted here."""
        return self._deployer.journals.highest_of_all()

    def recover(self) -> None:
        """Take up what the last process left, then keep an eye on everything; orders wait until the first is done."""
        if "deploy" in self._host_file.now().capabilities:
            threading.Thread(target=self._tend, name="tend", daemon=True).start()
        else:
            self._recovered.set()
        self._orders.recover()

    def take(self, message: Deploy) -> None:
        """Put an order on the disk; it is answered when its turn comes."""
        self._orders.take(message)

    def steer(self, message: Steer) -> None:
        """Hand a word about a canary to the deployment it is about, when this host obeys it."""
        running = {one.id: self._told.fence(one) for one in self._deployer.journals.open_deployments()}
        identity, now = self._pins.identity, self._clock.now()
        here = Standpoint(identity.agent, self._key_id, identity.pinned.for_orders(now), now, running)
        try:
            deployment, wish = steering.understood(message.envelope, here)
        except errors.Refused as error:
            log.warning("a word about a canary is not obeyed", code=error.code, why=error.message)
            return
        log.info("a word about a canary", deployment=deployment, word=wish.word, by=wish.by)
        self._deployer.wishes.put(deployment, wish)

    def services(self) -> tuple[ServiceState, ...]:
        """Return what served at the last look, without what has changed hands since."""
        return self._looks.fresh()

    def open_fences(self) -> tuple[int, ...]:
        """Return the fences of deployments that had not ended at the last look."""
        return self._fences

    def close(self, timeout: float) -> None:
        """Wait a moment for deployments that are about to end; the others go on from their journal, next time."""
        self._orders.wait_idle(timeout)

    def _tend(self) -> None:
        self._recover_until_done()
        while True:
            self._get_on()
            try:
                for trouble in self._deployer.tend():
                    reminder.warning("a service needs a look", trouble=trouble)
                self._observe()
            except errors.KeepflowError as error:
                reminder.warning("services cannot be looked at", reason=error.message)
            except Exception as error:  # what is wrong with one look must not end jobs, deployments and the link
                log.broke("a look at the services broke", error)
            self._look.wait(_TEND)
            self._look.clear()

    def _get_on(self) -> None:
        self._pulse.beat(LOOK, self._allow)
        fail("tend.turn")

    def _recover_until_done(self) -> None:
        while True:
            self._get_on()
            try:
                outcomes = self._deployer.recover()
                break
            except errors.KeepflowError as error:
                reminder.warning("deployments cannot be taken up yet", reason=error.message)
                time.sleep(_RETRY)
        for outcome in outcomes:
            log.warning("a deployment was taken up after a restart", outcome=outcome.outcome, reason=outcome.sentence)
        self._recovered.set()
        self._hand.start()

    def _observe(self) -> None:
        self._fences = tuple(deployment.fence for deployment in self._deployer.journals.open_deployments())
        services = self._host_file.now().services
        self._looks.take(
            ((name, instance) for name in services for instance in self._deployer.instances(name)),
            lambda name, instance: self._state(name, services[name], instance),
        )

    def _state(self, name: str, service: Service, instance: str) -> ServiceState:
        busy = self._deployer.journals.has_untold(name, instance)
        try:
            seen = self._deployer.serving(name, instance)
        except errors.KeepflowError as error:
            return ServiceState(service=name, instance=instance, environment=service.environment, note=error.message)
        return ServiceState(
            service=name,
            instance=instance,
            environment=service.environment,
            slot=seen.slot,
            identity=seen.identity,
            deployment=seen.deployment,
            since=seen.since,
            healthy=seen.healthy,
            note=seen.note,
            busy=busy,
            image_id=seen.image_id,
            container=seen.container_id,
            ours=seen.ours,
            differences=() if busy else tuple(Difference(**asdict(one)) for one in seen.differences),
            kept=tuple(
                KeptRelease(identity=one.identity, how=one.how, bytes=one.size, hot_until=one.hot_until)
                for one in self._deployer.inventory(name, instance)
            ),
            address=self._deployer.policies[name].address(instance) if service.front else "",
            given=_given(service),
        )

    def _facts(self) -> Facts:
        journals, identity, now = self._deployer.journals, self._pins.identity, self._clock.now()
        return Facts(
            agent=identity.agent,
            key_id=self._key_id,
            order_keys=identity.pinned.for_orders(now),
            receipt_keys=identity.pinned.for_receipts,
            file=self._host_file.now(),
            now=now,
            known=lambda deployment: journals.find(deployment) is not None,
            highest_fence=journals.highest_fence,
            made_here=lambda image_id: image_id in self._made,
            serving=lambda service, instance: self._deployer.serving(service, instance).identity,
        )


def _given(service: Service) -> tuple[str, ...] | None:
    """Return the names, never the values, that the host's env_file holds; None when it cannot be read."""
    try:
        return tuple(env_file.read(service.env_file)) if service.env_file else ()
    except errors.KeepflowError:
        return None
