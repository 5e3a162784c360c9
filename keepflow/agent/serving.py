"""What an instance serves right now, read from flags, container and front door; memory only adds since when."""

from __future__ import annotations

from keepflow.agent import drift
from keepflow.agent.deployment import ServicePolicy, Serving
from keepflow.agent.drift import answering, is_ours
from keepflow.agent.instances import History, Served
from keepflow.core import names
from keepflow.errors import DeployFailed
from keepflow.ports import Proxy, Site, Target, Traffic

_PROBE_SECONDS = 2.0


def look(policy: ServicePolicy, history: History, site: Site, target: Target, proxy: Proxy) -> Serving:
    """Look at one instance; raises Unavailable when the engine does not answer."""
    state = proxy.state(site)
    if state is None or state.slot is None:
        note = "nothing was deployed yet" if state else "the flag directory is not readable"
        lost = drift.differences(history, state, None)
        return Serving(site.service, site.instance, policy.environment, None, None, note=note, differences=lost)
    facts = answering(site, state.slot, target)
    differences = drift.differences(history, state, facts)
    if facts is None:
        note = "the container of the serving slot is gone"
        return Serving(
            site.service,
            site.instance,
            policy.environment,
            state.slot,
            None,
            healthy=False,
            note=note,
            differences=differences,
        )
    remembered = history.current if history.slot == state.slot else None
    answers = facts.running and _answers(proxy, site, state, remembered)
    obeyed = not answers or proxy.sees_flags(site)
    return Serving(
        service=site.service,
        instance=site.instance,
        environment=policy.environment,
        slot=state.slot,
        identity=facts.labels.get(names.LABEL_IDENTITY),
        container_id=facts.id,
        image_id=facts.image_id,
        deployment=remembered.deployment if remembered else facts.labels.get(names.LABEL_DEPLOYMENT),
        since=remembered.since if remembered else None,
        healthy=answers and obeyed,
        restarts=facts.restarts,
        note=_note(paused=state.maintenance, running=facts.running, answers=answers, obeyed=obeyed),
        ours=is_ours(facts, site),
        differences=differences,
    )


def _note(*, paused: bool, running: bool, answers: bool, obeyed: bool) -> str:
    """Say what is wrong with what visitors get, "" when nothing is."""
    if paused:
        return "visitors see the maintenance page"
    if not running:
        return "the container of the serving slot does not run"
    if not answers:
        return "the front door does not answer from the serving slot"
    if not obeyed:
        return "the proxy cannot read the flag directory, so whichever container is alive answers; see its rights"
    return ""


def _answers(proxy: Proxy, site: Site, state: Traffic, served: Served | None) -> bool:
    path = served.container.health.path if served else "/"
    try:
        answer = proxy.probe(site, path, _PROBE_SECONDS, state.slot if state.canary else None)
    except DeployFailed:
        return False
    return answer.slot == state.slot and answer.status < 500
