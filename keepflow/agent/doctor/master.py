"""The master: does it answer, is it the one this agent joined, does its clock agree, and is the agent linked."""

from __future__ import annotations

from keepflow import errors
from keepflow.agent.acquaintance import Acquaintance, meet
from keepflow.agent.clock import MOST_SKEW
from keepflow.agent.doctor.finding import Finding, failed, ok, warning
from keepflow.agent.doctor.patient import Patient
from keepflow.agent.standing import Standing
from keepflow.agent.state import Identity

SUBJECT = "master"
_REACH = "from here to there one outgoing connection is needed; look at address, name, firewall and certificate"
_NO_ROLE = "ask who runs the master before anything else; if it really has a new key: join anew"


def look(patient: Patient) -> list[Finding]:
    """Ask the master who it is, and compare."""
    identity = patient.identity()
    url = patient.file.master
    try:
        met = meet(url, identity.ca_pem if identity else patient.ca_pem)
    except errors.KeepflowError as error:
        return [failed(SUBJECT, error.message, _REACH), *_agent(patient, identity)]
    found = [_pinned(url, met, identity), _clock(met)]
    if identity is not None and identity.url != url:
        sentence = f"agent.yml says {url}, and this agent joined {identity.url}"
        found.append(warning(SUBJECT, sentence, "fine when the same master moved; its key is what counts"))
    return [*found, *_agent(patient, identity)]


def _pinned(url: str, met: Acquaintance, identity: Identity | None) -> Finding:
    if identity is None:
        return ok(SUBJECT, f"{url} answers: keepflow {met.version}, order key {met.key_id}")
    if any(met.holds(key) for key in identity.order_keys):
        return ok(SUBJECT, f"{url} answers: keepflow {met.version}, and holds the key this agent pinned")
    sentence = f"whoever answers at {url} does not hold the key this agent pinned when it joined"
    return failed(SUBJECT, sentence, _NO_ROLE)


def _clock(met: Acquaintance) -> Finding:
    ahead = f"{abs(met.ahead):.1f} s {'ahead of' if met.ahead > 0 else 'behind'} the master's"
    if abs(met.ahead) > MOST_SKEW:
        return warning("clock", f"this host's clock is {ahead}", "keep its time by NTP: timedatectl set-ntp true")
    return ok("clock", f"this host's clock is {ahead}")


def _agent(patient: Patient, identity: Identity | None) -> list[Finding]:
    if identity is None:
        if patient.before_join:
            return [ok("agent", "not joined yet")]
        return [failed("agent", "this host belongs to no master yet", f"keepflow agent join {patient.file.master}")]
    named = f"joined as {identity.agent}"
    if patient.state.holder() is None:
        return [warning("agent", f"{named}, and does not run", "systemctl enable --now keepflow-agent")]
    standing = Standing.read(patient.state)
    if standing is None or not standing.linked:
        why = standing.sentence if standing else "it has only just started"
        return [
            failed("agent", f"{named} and runs, but is not linked: {why}", "journalctl -u keepflow-agent tells more")
        ]
    return [ok("agent", f"{named}, runs, and is linked")]
