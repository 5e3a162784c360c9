"""The whole look at a host, subject by subject."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from keepflow import errors
from keepflow.agent.doctor import (
    boot,
    directories,
    disk,
    doors,
    engine,
    front,
    host_file,
    master,
    registries,
    slot_networks,
)
from keepflow.agent.doctor.finding import Finding, failed
from keepflow.agent.doctor.patient import Patient
from keepflow.agent.state import State

_LOOKS: tuple[tuple[str, Callable[[Patient], list[Finding]]], ...] = (
    (host_file.SUBJECT, host_file.named_files),
    (directories.SUBJECT, directories.look),
    (engine.SUBJECT, engine.look),
    (disk.SUBJECT, disk.look),
    (front.SUBJECT, front.look),
    (doors.SUBJECT, doors.look),
    (slot_networks.SUBJECT, slot_networks.look),
    (registries.SUBJECT, registries.look),
    (master.SUBJECT, master.look),
    (boot.SUBJECT, boot.look),
)


def examine(config: Path, state: State, ca_pem: str = "", *, before_join: bool = False) -> list[Finding]:
    """Look at everything; what cannot be looked at is a failed finding, never an exception."""
    file, found = host_file.read(config)
    if file is None:
        return found
    patient = Patient(config, file, state, ca_pem, before_join)
    for subject, look in _LOOKS:
        found += _looked(subject, look, patient)
    return found


def _looked(subject: str, look: Callable[[Patient], list[Finding]], patient: Patient) -> list[Finding]:
    try:
        return look(patient)
    except errors.KeepflowError as error:
        return [failed(subject, error.message, "mend this first; what else there is to say needs it")]
    except OSError as error:
        return [failed(subject, f"cannot be looked at: {error}", "run this as the account of the agent, usually root")]
