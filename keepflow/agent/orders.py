"""Deploy orders on this host: kept as they came, checked when their turn comes, carried out one at a time per instance.

An order is on the disk before its arrival is confirmed, and answered before it leaves the inbox; a restart takes up
whatever is still there. What was accepted belongs to the deployer and its journal.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keepflow import errors
from keepflow.agent import policy
from keepflow.agent.clock import Clock
from keepflow.agent.deployer import Deployer
from keepflow.agent.deployment import Deployment, Outcome
from keepflow.agent.logs import Log
from keepflow.agent.policy import Accepted, Facts, Refusal, Repeated
from keepflow.agent.reports import Reports
from keepflow.core import deploys
from keepflow.core.states import Phase
from keepflow.core.text import one_line
from keepflow.crypto import dsse
from keepflow.crypto.keys import PrivateKey
from keepflow.tools.failpoints import fail
from keepflow.tools.files import write_atomic
from keepflow.wire import messages
from keepflow.wire.deployment_receipt import PAYLOAD_TYPE, DeploymentReceipt
from keepflow.wire.messages import Deploy
from keepflow.wire.orders import DeployOrder

log = Log(__name__)

_ADOPTED = 200


class DeployReports:
    """Tells the master how deployments go; fits `deployment.Reporter`: what it was told is on the disk on return."""

    def __init__(self, path: Path, reports: Reports, clock: Clock, agent: str, key: PrivateKey) -> None:
        """`key` is the agent's own; it signs what `agent` says of the end of a deployment."""
        self._path, self._reports, self._clock = path, reports, clock
        self._agent, self._key = agent, key
        self._lock = threading.Lock()
        self._adopted: dict[str, int] = json.loads(path.read_bytes()) if path.exists() else {}

    def phase(self, deployment: Deployment, phase: Phase, detail: str) -> None:
        """Report a phase, or more about it; what a person here asked for is reported whole, at its end."""
        if deployment.by:
            return
        body = messages.DeployPhase(
            fence=self.fence(deployment), deployment=deployment.id, at=self._clock.now(), phase=phase, detail=detail
        )
        self._reports.append(body)
        self._reports.sync()

    def finished(self, deployment: Deployment, outcome: Outcome) -> None:
        """Report the end; telling it twice is fine. Raises OutOfSpace when the report is not on the disk."""
        if deployment.by:
            self._reports.append(self._by_hand(deployment, outcome))
            self._reports.sync()
            return
        body = messages.DeployFinished(
            fence=self.fence(deployment),
            deployment=deployment.id,
            at=self._clock.now(),
            outcome=_on_the_wire(outcome.outcome),
            code=outcome.code,
            sentence=outcome.sentence,
            serving=outcome.serving,
            receipt=outcome.receipt,
            envelope=self._signed(deployment, outcome),
            log_tail=outcome.log_tail,
        )
        self._reports.append(body)
        if not self._reports.sync():
            raise errors.OutOfSpace("the end of a deployment cannot be put on the disk; free some space")

    def _by_hand(self, deployment: Deployment, outcome: Outcome) -> messages.HostRollback:
        asked_at = deployment.asked_at - int(self._clock.skew * 1_000_000)
        took = sum(outcome.receipt.get("phases", {}).values())
        return messages.HostRollback(
            fence=deployment.fence,
            deployment=deployment.id,
            asked_at=max(0, asked_at),
            at=max(0, asked_at + int(took * 1_000_000)),
            by=deployment.by,
            service=deployment.service,
            instance=deployment.instance,
            origin="registry" if deployment.digest else "local",
            repository=deployment.repository,
            image_id=deployment.image_id,
            digest=deployment.digest,
            description=deploys.to_json(deployment.container),
            outcome=_on_the_wire(outcome.outcome),
            code=outcome.code,
            sentence=outcome.sentence,
            serving=outcome.serving,
            receipt=outcome.receipt,
            log_tail=outcome.log_tail,
        )

    def now(self) -> int:
        """Return the master's time."""
        return self._clock.now()

    def answer(self, order: Deploy, accepted: bool, code: str = "", sentence: str = "") -> None:
        """Answer an order."""
        body = messages.DeployAnswer(
            fence=order.fence,
            deployment=order.deployment,
            at=self._clock.now(),
            accepted=accepted,
            code=code,
            sentence=sentence,
        )
        self._reports.append(body)
        self._reports.sync()

    def adopt(self, deployment: str, fence: int) -> None:
        """Report a deployment under a newer number from now on: the master asked again before it heard the answer."""
        with self._lock:
            self._adopted = dict(list({**self._adopted, deployment: fence}.items())[-_ADOPTED:])
            write_atomic(self._path, json.dumps(self._adopted).encode(), 0o600)

    def _signed(self, deployment: Deployment, outcome: Outcome) -> dict[str, Any]:
        receipt = DeploymentReceipt(
            agent=self._agent,
            environment=deployment.environment,
            service=deployment.service,
            instance=deployment.instance,
            deployment=deployment.id,
            fence=self.fence(deployment),
            action=deployment.action,
            approver=deployment.approver or deployment.by,
            identity=deployment.identity,
            outcome=_on_the_wire(outcome.outcome),
            code=outcome.code,
            sentence=outcome.sentence,
            serving=outcome.serving,
            at=self._clock.now(),
            evidence=outcome.receipt,
        )
        return dsse.seal(deploys.canonical(receipt.model_dump(mode="json")), PAYLOAD_TYPE, self._key)

    def fence(self, deployment: Deployment) -> int:
        """Return the number a deployment is reported under."""
        with self._lock:
            return max(deployment.fence, self._adopted.get(deployment.id, 0))


def _stands(phase: Phase, outcome: Outcome | None) -> str:
    return outcome.outcome.value if outcome is not None else phase.value


def _on_the_wire(phase: Phase) -> Any:
    """Return an outcome as the wire spells it; anything that is none is unknown, never green."""
    return phase.value if phase in (Phase.DONE, Phase.FAILED, Phase.REVERTED) else "unknown"


class Orders:
    """The inbox. `facts` looks at the host when a turn comes; `changed` hears of ends.

    No turn comes before `ready`, nor before `measured`: an order's age is told by the master's clock.
    """

    def __init__(
        self,
        root: Path,
        refused_log: Path,
        *,
        deployer: Deployer,
        reports: DeployReports,
        facts: Callable[[], Facts],
        ready: threading.Event,
        measured: threading.Event,
        changed: Callable[[], object] = lambda: None,
    ) -> None:
        self._root, self._refused_log = root, refused_log
        self._deployer, self._reports = deployer, reports
        self._facts, self._ready, self._measured, self._changed = facts, ready, measured, changed
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._turns: dict[str, queue.SimpleQueue[Path]] = {}

    def take(self, message: Deploy) -> None:
        """Put an order into the inbox; it waits for its turn behind other orders for the same instance."""
        data = message.model_dump_json().encode()
        path = self._root / f"{hashlib.sha256(data).hexdigest()[:32]}.json"
        if not path.exists():
            write_atomic(path, data, 0o600)
            fail("order.kept")
            self._queue(path, message)

    def recover(self) -> None:
        """Take up the orders that were not answered when the last process ended; after the journals were taken up."""
        found = []
        for path in self._root.glob("*.json"):
            try:
                found.append((Deploy.model_validate_json(path.read_bytes()), path))
            except ValueError as error:
                log.broke("an order cannot be read and is put aside", error, file=str(path))
                path.rename(path.with_suffix(".unreadable"))
        for message, path in sorted(found, key=lambda pair: pair[0].fence):
            self._queue(path, message)

    def wait_idle(self, timeout: float) -> bool:
        """Wait until no order is being carried out; False when the time is up before."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._turns, max(0.0, timeout))

    def _queue(self, path: Path, message: Deploy) -> None:
        """Hand an order to the thread of its instance; who signed it is checked there, so any name may come by here."""
        key = _claimed_instance(message.envelope)
        with self._lock:
            known = key in self._turns
            turns = self._turns.setdefault(key, queue.SimpleQueue())
            turns.put(path)
            if not known:
                threading.Thread(target=self._serve, args=(key, turns), name=f"deploy-{key}", daemon=True).start()

    def _serve(self, key: str, turns: queue.SimpleQueue[Path]) -> None:
        """Carry out the orders of one instance, one after the other; the thread ends when none is left."""
        self._ready.wait()
        self._measured.wait()
        while True:
            path = turns.get()
            try:
                self._handle(path, Deploy.model_validate_json(path.read_bytes()))
            except Exception as error:
                log.broke("an order broke", error, file=path.name)
            self._changed()
            with self._idle:
                if turns.empty():
                    del self._turns[key]
                    self._idle.notify_all()
                    return

    def _handle(self, path: Path, message: Deploy) -> None:
        try:
            verdict = policy.check(message.envelope, self._facts())
        except errors.KeepflowError as error:  # the host cannot be looked at: then nothing is begun on it either
            verdict = Refusal(error.code, error.message)
        match verdict:
            case Accepted(deployment=deployment):
                self._accept(path, message, deployment)
            case Repeated(order=order):
                self._repeat(message, order)
                path.unlink()
            case Refusal():
                self._refuse(message, verdict)
                path.unlink()

    def _accept(self, path: Path, message: Deploy, deployment: Deployment) -> None:
        try:
            self._deployer.held.check(deployment, message.secrets)
            accepted = self._deployer.accept(deployment)
        except errors.KeepflowError as error:
            self._refuse(message, Refusal(error.code, error.message))
            path.unlink()
            return
        fail("order.accepted")
        if deployment.action not in ("adopt", "stage"):  # those make no container, so they bring none
            self._deployer.held.keep(deployment, message.secrets)
        self._reports.answer(message, accepted=True)
        fail("order.answered")
        path.unlink()
        log.info("an order was accepted", deployment=deployment.id, service=deployment.service, fence=deployment.fence)
        self._changed()
        outcome = self._deployer.carry_out(accepted)
        log.info("a deployment ended", deployment=deployment.id, outcome=outcome.outcome, reason=outcome.sentence)

    def _repeat(self, message: Deploy, order: DeployOrder) -> None:
        """Say again how an accepted deployment stands."""
        found = self._deployer.journals.find(order.deployment)
        if found is None:
            return
        deployment, phase, outcome = found
        if order.fence > deployment.fence:
            self._reports.adopt(deployment.id, order.fence)
        self._reports.answer(message, accepted=True, sentence=f"accepted before, now {_stands(phase, outcome)}")
        if outcome is not None:
            self._reports.finished(deployment, outcome)

    def _refuse(self, message: Deploy, refusal: Refusal) -> None:
        log.warning("an order was refused", deployment=one_line(message.deployment), code=refusal.code)
        line = {
            "at": self._reports.now(),
            "deployment": message.deployment,
            "fence": message.fence,
            "code": refusal.code,
            "sentence": refusal.sentence,
        }
        with self._refused_log.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._reports.answer(message, accepted=False, code=refusal.code, sentence=refusal.sentence)


def _claimed_instance(envelope: Mapping[str, Any]) -> str:
    """Return which instance an envelope says it is for, or "" for one that is not readable."""
    try:
        fields = json.loads(base64.b64decode(envelope.get("payload", "")))
        return f"{fields['service']}/{fields['instance']}"[:100]
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        return ""
