"""The container engine: does it answer, and is it new enough."""

from __future__ import annotations

from keepflow import errors
from keepflow.agent.doctor.finding import Finding, failed, ok, warning
from keepflow.agent.doctor.patient import Patient
from keepflow.targets.docker import Docker

SUBJECT = "engine"
_OLDEST_API = (1, 41)  #: of Docker 20.10, the oldest engine that deploys are tried on


def look(patient: Patient) -> list[Finding]:
    """Ask the engine who it is."""
    engine = Docker(patient.file.docker.host)
    try:
        facts = engine.facts()
    except errors.KeepflowError as error:
        file = patient.file
        if "deploy" not in file.capabilities and not file.docker_for and not file.containers.flows:
            return [ok(SUBJECT, "none answers, and nothing on this host needs one")]
        return [failed(SUBJECT, error.message, "apt-get install docker.io; or name its socket: docker: {host: …}")]
    finally:
        engine.close()
    sentence = f"Docker {facts.version}, API {facts.api}, at {patient.file.docker.host}"
    if _numbers(facts.api) < _OLDEST_API:
        return [warning(SUBJECT, f"{sentence}: older than any that keepflow is tried on", "use Docker 20.10 or newer")]
    return [ok(SUBJECT, sentence)]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
