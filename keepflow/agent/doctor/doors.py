"""The ports of fronts: free, or held by the nginx that is meant to hold them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from pathlib import Path

from keepflow.agent.doctor.finding import Finding, failed, ok, warning
from keepflow.agent.doctor.patient import Patient

SUBJECT = "ports"
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENING = "0A"


def look(patient: Patient) -> list[Finding]:
    """Try every address that a front listens on."""
    if patient.file.nginx.mode == "none":
        return []
    fronts = (service.front for service in patient.file.services.values())
    listens = sorted({front.listen for front in fronts if front is not None})
    return [_door(listen, patient) for listen in listens]


def _door(listen: str, patient: Patient) -> Finding:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((host, int(port)))
        except OSError as error:
            return _not_free(listen, int(port), error, patient)
    return ok(SUBJECT, f"{listen} is free")


def _not_free(listen: str, port: int, error: OSError, patient: Patient) -> Finding:
    if error.errno == errno.EADDRNOTAVAIL:
        return failed(SUBJECT, f"{listen}: this host has no such address", "change listen: in agent.yml")
    if error.errno == errno.EACCES:
        return warning(SUBJECT, f"{listen} cannot be tried by this account", "run this as root")
    if error.errno != errno.EADDRINUSE:
        return failed(SUBJECT, f"{listen}: {error.strerror}", "change listen: in agent.yml")
    return _judged(listen, holders_of(port), patient)


def _judged(listen: str, holders: Mapping[int, str], patient: Patient) -> Finding:
    """Say whether those who listen are the nginx that is meant to."""
    who = ", ".join(f"{name} (process {pid})" for pid, name in holders.items()) or "a process this account cannot see"
    if patient.file.nginx.mode == "host":
        if "nginx" in holders.values():
            return ok(SUBJECT, f"{listen} is held by nginx")
        return failed(SUBJECT, f"{listen} is held by {who}, not by nginx", "end it, or change listen: in agent.yml")
    from keepflow.proxies import _trial as trial  # see front.py

    if trial.own_master(patient.state.front_root / "nginx", str(patient.file.nginx.binary)) in holders:
        return ok(SUBJECT, f"{listen} is held by keepflow's own nginx")
    mend = "end it; or, when it is the host's nginx, use that one: nginx: {mode: host}"
    return failed(SUBJECT, f"{listen} is held by {who}, and keepflow's own nginx needs it", mend)


def holders_of(port: int) -> dict[int, str]:
    """Return the processes that listen on a port of this host, by their kernel names."""
    sockets = {inode for table in _TABLES if table.exists() for inode in _listening(table.read_text(), port)}
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _holds(entry, sockets):
            found[int(entry.name)] = (entry / "comm").read_text().strip()
    return found


def _listening(table: str, port: int) -> set[str]:
    rows = (line.split() for line in table.splitlines()[1:])
    return {row[9] for row in rows if row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port}


def _holds(process: Path, sockets: set[str]) -> bool:
    try:
        return any(_inode(descriptor) in sockets for descriptor in (process / "fd").iterdir())
    except OSError:  # it ended, or belongs to somebody else
        return False


def _inode(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]")
    except OSError:
        return ""
