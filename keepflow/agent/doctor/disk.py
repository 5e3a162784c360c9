"""Room on the disks that a deployment writes to."""

from __future__ import annotations

import shutil
from pathlib import Path

from keepflow import errors
from keepflow.agent.doctor.finding import Finding, failed, ok, warning
from keepflow.agent.doctor.patient import Patient, nearest
from keepflow.agent.rollout import RESERVE
from keepflow.targets.docker import Docker

SUBJECT = "disk"
_FEW_IMAGES = 2 << 30  #: bytes; below it the next image may not fit


def look(patient: Patient) -> list[Finding]:
    """Compare what is free with what a deployment keeps in reserve."""
    found = [_room("the agent's state", nearest(patient.state.root), RESERVE)]
    engine_root = _engine_root(patient)
    if engine_root is not None:
        found.append(_room("images", nearest(engine_root), _FEW_IMAGES))
    return found


def _room(what: str, place: Path, wanted: int) -> Finding:
    free = shutil.disk_usage(place).free
    sentence = f"{free >> 20} MiB are free for {what} at {place}"
    if free < RESERVE:
        short = f"{sentence}; below {RESERVE >> 20} MiB no deployment is begun"
        return failed(SUBJECT, short, "free some space, or give it a bigger disk")
    if free < wanted:
        return warning(
            SUBJECT, f"{sentence}; the next image may not fit", "free some space, or lower keep: of services"
        )
    return ok(SUBJECT, sentence)


def _engine_root(patient: Patient) -> Path | None:
    engine = Docker(patient.file.docker.host)
    try:
        return Path(engine.facts().root)
    except errors.KeepflowError:
        return None
    finally:
        engine.close()
