"""What comes back by itself after a reboot, where systemd decides about that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from keepflow.agent.doctor.finding import Finding, ok, warning
from keepflow.agent.doctor.patient import Patient
from keepflow.tools import processes

SUBJECT = "reboot"
_SYSTEMD = Path("/run/systemd/system")
_STAYS_DOWN = ("disabled", "masked", "masked-runtime")


def look(patient: Patient) -> list[Finding]:
    """Ask systemd about the units that this host needs to serve again."""
    if not _SYSTEMD.is_dir():
        return []
    units = ["keepflow-agent"]
    if "deploy" in patient.file.capabilities:
        units.append("docker")
        units += ["nginx"] if patient.file.nginx.mode == "host" else []
    return judge({unit: _enabled(unit) for unit in units})


def judge(states: Mapping[str, str]) -> list[Finding]:
    """Say which units would stay down; `states` are what `systemctl is-enabled` says, "" for a unit that is not there.

    What is not there is not systemd's: an engine or an agent that somebody starts in another way.
    """
    down = [unit for unit, state in states.items() if state in _STAYS_DOWN]
    if down:
        return [warning(SUBJECT, f"{', '.join(down)} would not come back", f"systemctl enable {' '.join(down)}")]
    back = [unit for unit, state in states.items() if state not in ("", "not-found")]
    return [ok(SUBJECT, f"{', '.join(back)} would come back")] if back else []


def _enabled(unit: str) -> str:
    return processes.run(["systemctl", "is-enabled", unit], timeout=10, check=False).text.strip()
