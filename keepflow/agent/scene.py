"""Everything one deployment works with while it runs: its plan, its journal, its receipt, and the hands that act."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from keepflow.agent.deployment import Deployment, Reporter, ServicePolicy
from keepflow.agent.held_secrets import Held, HeldSecrets
from keepflow.agent.instances import Instance
from keepflow.agent.journal import Journal
from keepflow.agent.networks import SlotNetwork
from keepflow.agent.probing import Prober
from keepflow.agent.visitors import Limits, Tally, Visitors
from keepflow.core import names
from keepflow.core.states import PHASE_ORDER, Phase
from keepflow.errors import OutOfSpace
from keepflow.ports import ContainerFacts, Proxy, Site, Target, Traffic
from keepflow.tools.failpoints import fail


@dataclass(frozen=True, slots=True)
class Plan:
    """Who follows whom; written to the journal before anything is touched."""

    new: str  #: slot of the new container
    old: str | None = None  #: slot that serves and is alive; None = nothing to go back to
    old_container: str | None = None
    old_grace: float = 30.0  #: seconds the old container gets to stop
    served: str | None = None  #: slot that the flags named before, alive or not
    identity_before: str | None = None
    image_id: str = ""  #: what this engine calls the wanted image; "" until it is here
    container: str = ""  #: id of the new container; "" until it is created
    reused: bool = False  #: the new container is the hot one of an earlier deployment, not made by this one

    @property
    def before(self) -> Traffic:
        """The traffic to go back to."""
        return Traffic(self.served) if self.served else Traffic(None, maintenance=True)


@dataclass(slots=True)
class Receipt:
    """What a deployment can prove about itself. Durations in seconds."""

    strategy: str
    phases: dict[str, float] = field(default_factory=dict)
    digest_before: str | None = None
    digest_after: str | None = None
    image_id: str = ""
    slot: str | None = None
    pulled: bool = False
    hot_start: bool = False  #: the container was already running
    release_command: dict[str, Any] = field(default_factory=dict)  #: its `seconds` and `exit_code`; {} = not run
    gate: dict[str, Any] = field(default_factory=dict)
    serving_after: float | None = None  #: seconds from accepted until visitors got the new release
    maintenance: float = 0.0  #: seconds that visitors saw the maintenance page
    probes: dict[str, Any] = field(default_factory=dict)
    canary: list[dict[str, Any]] = field(default_factory=list)  #: steps that were gone through
    visitors: dict[str, Any] = field(default_factory=dict)  #: requests and failures in the old and the new slot
    sockets: dict[str, Any] = field(default_factory=dict)
    kept_hot_until: int | None = None  #: UTC microseconds
    recovered: bool = False  #: finished by another process than the one that began
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


@dataclass(slots=True)
class Scene:
    """One deployment on one host."""

    deployment: Deployment
    policy: ServicePolicy
    instance: Instance
    network: SlotNetwork
    site: Site
    target: Target
    proxy: Proxy
    journal: Journal
    reporter: Reporter
    labels: Mapping[str, str]  #: those every container and network of this host gets
    held: HeldSecrets
    secrets: Mapping[str, Held] = field(repr=False, default_factory=dict)
    receipt: Receipt = field(default_factory=lambda: Receipt(""))
    alive: Callable[[], None] = lambda: None  #: told with every record and word, so that a hung deployment is seen
    plan: Plan | None = None
    undoing: bool = False  #: from now on a full disk must not stop anything
    _prober: Prober | None = None
    _visitors: Visitors | None = None
    _began: float = field(default_factory=time.monotonic)
    _phase: tuple[Phase, float] | None = None
    _paused_at: float | None = None

    def enter(self, phase: Phase, detail: str = "") -> None:
        """Write the next phase to the journal, tell it, and keep the time of the one before.

        A phase that a dead process had already left behind is gone through again without a word.
        """
        self.end_phase()
        self._phase = (phase, time.monotonic())
        if PHASE_ORDER.index(phase) >= PHASE_ORDER.index(self.journal.phase):
            self.write("phase", phase=phase.value, detail=detail)
            self.reporter.phase(self.deployment, phase, detail)
        fail(f"deploy.{phase.value}")

    def write(self, kind: str, **facts: Any) -> None:
        """Write a record; raises OutOfSpace, but not while undoing."""
        self.alive()
        try:
            self.journal.append(kind, **facts)
        except OutOfSpace:
            if not self.undoing:
                raise

    def say(self, detail: str) -> None:
        """Tell more about the phase that is under way."""
        self.alive()
        if self._phase:
            self.reporter.phase(self.deployment, self._phase[0], detail)

    def end_phase(self) -> None:
        """Keep the time of the phase that is under way."""
        if self._phase:
            phase, began = self._phase
            spent = self.receipt.phases.get(phase.value, 0.0) + time.monotonic() - began
            self.receipt.phases[phase.value] = round(spent, 4)
            self._phase = None

    @contextmanager
    def act(self, name: str, **facts: Any) -> Iterator[None]:
        """Write what is meant, let it be done, write that it is done."""
        self.write("intent", act=name, **facts)
        fail(f"{name}.before")
        yield
        fail(f"{name}.after")
        self.write("done", act=name)

    def keep_plan(self, plan: Plan) -> None:
        """Make this the plan, on the disk first."""
        self.write("plan", plan=asdict(plan))
        self.plan = plan

    def known_plan(self) -> Plan:
        """Return the plan of a deployment that is past preflight."""
        if self.plan is None:
            raise RuntimeError("no plan yet")
        return self.plan

    def address(self, slot: str) -> str:
        """Return "address:port" of a slot."""
        return self.site.blue if slot == "blue" else self.site.green

    def holder(self, slot: str) -> ContainerFacts | None:
        """Return the container that has a slot's name, running or not."""
        return self.target.inspect(names.container(self.deployment.service, self.deployment.instance, slot))

    def is_ours(self, facts: ContainerFacts) -> bool:
        """Say whether a container belongs to this instance."""
        return (
            facts.labels.get(names.LABEL_SERVICE) == self.deployment.service
            and facts.labels.get(names.LABEL_INSTANCE) == self.deployment.instance
        )

    def remove_aside(self) -> None:
        """Remove the containers of this instance that have lost their slot's name to a newer one."""
        labels = {
            names.LABEL_SERVICE: self.deployment.service,
            names.LABEL_INSTANCE: self.deployment.instance,
        }
        slots = {names.container(self.deployment.service, self.deployment.instance, slot) for slot in names.SLOTS}
        for facts in self.target.mine(labels):
            if facts.name not in slots:
                self.target.remove(facts.id)

    def is_new(self, facts: ContainerFacts | None) -> bool:
        """Say whether a container was made by this deployment."""
        return facts is not None and facts.labels.get(names.LABEL_DEPLOYMENT) == self.deployment.id

    def start_probing(self, *, pause: bool) -> Prober:
        """Begin to ask the front door; the running prober when there is one."""
        if self._prober is None:
            health = self.deployment.container.health
            self._prober = Prober(self.proxy, self.site, health.path, max(health.timeout, 1.0), pause=pause)
        return self._prober

    @property
    def counted(self) -> bool:
        """Whether what visitors are answered is of interest."""
        return self.policy.watch > 0 or bool(self.deployment.canary)

    @property
    def net(self) -> bool:
        """Whether the old slot may answer for the new one."""
        return bool(self.known_plan().old) and not self.journal.has_act("stop-first") and self.policy.net

    def ask_slot(self, slot: str | None) -> None:
        """Have the probes ask for one slot, as long as visitors go to both; None: whoever the flags name."""
        if self._prober is not None:
            self._prober.slot = slot

    def visitors(self) -> Visitors:
        """Return how visitors fare, from the plan on."""
        if self._visitors is None:
            limits = Limits(self.policy.errors, self.policy.enough)
            history, plan = self.instance.history(), self.known_plan()
            same = history.slot == plan.served
            before = Tally(history.requests, history.errors) if same else Tally()
            self._visitors = Visitors(self.proxy, self.site, plan.new, limits, before)
        return self._visitors

    def stop_probing(self) -> None:
        """End the probes and put their counts, and those of visitors, on the receipt."""
        if self._visitors is not None:
            self.receipt.visitors = self._visitors.to_json()
        if self._prober is not None:
            self.receipt.probes = self._prober.stop()

    def pause_visitors(self) -> None:
        """Note that visitors see the maintenance page from now on."""
        self._paused_at = time.monotonic()
        self.start_probing(pause=True).pause = True

    def expect_page(self) -> None:
        """Note that the maintenance page is no failure from now on."""
        if self._prober is not None:
            self._prober.pause = True

    def visitors_are_back(self) -> None:
        """Note that visitors no longer see the maintenance page."""
        if self._paused_at is not None:
            self.receipt.maintenance = round(time.monotonic() - self._paused_at, 3)
            self._paused_at = None
        if self._prober is not None:
            self._prober.pause = False

    def since_accepted(self) -> float:
        """Return the seconds since this process took the deployment on."""
        return round(time.monotonic() - self._began, 4)
