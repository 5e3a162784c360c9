"""The pool of slot networks: is any of it free, and does somebody else route what was allotted."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path

from keepflow import errors
from keepflow.agent.doctor.finding import Finding, failed, ok, warning
from keepflow.agent.doctor.patient import Patient
from keepflow.agent.networks import host_routes
from keepflow.targets.docker import Docker

SUBJECT = "slot networks"
_MEND = "choose a pool that nobody uses: networks: in agent.yml; or remove the other network if it is a leftover"


def look(patient: Patient) -> list[Finding]:
    """Compare the pool with the kernel's routes and with the engine's networks."""
    if "deploy" not in patient.file.capabilities:
        return []
    pool = patient.file.networks
    allotted = _allotted(patient.state.root / "networks.json")
    taken = {str(route): f"a route to {route}" for route in host_routes() if route not in allotted}
    taken |= {subnet: f"the engine's network {name} ({subnet})" for name, subnet in _engine_networks(patient)}
    return judge(pool, allotted, taken)


def judge(pool: IPv4Network, allotted: list[IPv4Network], taken: dict[str, str]) -> list[Finding]:
    """Say what stands in the way; `taken` maps a subnet of somebody else to what it is."""
    foreign = {IPv4Network(subnet): what for subnet, what in taken.items()}
    clashes = [what for subnet, what in foreign.items() if any(subnet.overlaps(one) for one in allotted)]
    if clashes:
        sentence = f"what an instance here has as its network is taken: {', '.join(clashes)}"
        return [
            failed(SUBJECT, sentence, "remove the other network; docs/production-host.md says how to move an instance")
        ]
    within = {subnet: what for subnet, what in foreign.items() if subnet.overlaps(pool)}
    used = [*within, *allotted]
    free = next((part for part in pool.subnets(new_prefix=28) if not any(part.overlaps(one) for one in used)), None)
    if free is None:
        whose = f": {', '.join(within.values())}" if within else ""
        return [failed(SUBJECT, f"nothing of the pool {pool} is free{whose}", _MEND)]
    if within:
        sentence = f"instances get what is left of the pool {pool}: there is {', '.join(within.values())}"
        return [warning(SUBJECT, sentence, _MEND)]
    return [ok(SUBJECT, f"the pool {pool} is free; {len(allotted)} of its parts are allotted")]


def _allotted(path: Path) -> list[IPv4Network]:
    try:
        return [IPv4Network(subnet) for subnet in json.loads(path.read_bytes()).values()]
    except FileNotFoundError:
        return []


def _engine_networks(patient: Patient) -> list[tuple[str, str]]:
    engine = Docker(patient.file.docker.host)
    try:
        return [(name, subnet) for name, subnet, ours in engine.networks() if not ours and "." in subnet]
    except errors.KeepflowError:
        return []
    finally:
        engine.close()
