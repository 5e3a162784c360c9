"""The agent's directory and the place of nginx's flags: who owns them, who may enter, who the agent is."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from keepflow import errors
from keepflow.agent.accounts import jobs_account
from keepflow.agent.doctor.finding import Finding, failed, ok, warning
from keepflow.agent.doctor.patient import Patient
from keepflow.agent.front import refuse_hidden

SUBJECT = "directories"
_SECRET = ("key.pem", "identity.json")


def look(patient: Patient) -> list[Finding]:
    """Look at modes and owners; a directory that does not exist yet is made by the agent's first start."""
    root = patient.state.root
    if not root.exists():
        found = [ok(SUBJECT, f"{root} does not exist yet; joining makes it")]
    else:
        found = _wrong(root) or [ok(SUBJECT, f"{root} is the agent's alone")]
    return [*found, *_front(patient), *_jobs_user(patient)]


def _wrong(root: Path) -> list[Finding]:
    places = [root, *(path for name in _SECRET if (path := root / name).exists())]
    return [finding for place in places if (finding := _too_open(place))]


def _too_open(place: Path) -> Finding | None:
    seen = place.stat()
    if seen.st_uid != os.geteuid():
        owner, me = _name(seen.st_uid), _name(os.geteuid())
        return failed(
            SUBJECT, f"{place} belongs to {owner}, not to {me}", f"chown {me} {place}, or run this as {owner}"
        )
    if seen.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(seen.st_mode)
        return failed(SUBJECT, f"others may enter or read {place} (mode {mode:04o})", f"chmod go-rwx {place}")
    return None


def _front(patient: Patient) -> list[Finding]:
    if patient.file.nginx.mode == "none" or not patient.file.services:
        return []
    try:
        refuse_hidden(patient.state.front_root)
    except errors.UsageError as error:
        return [failed(SUBJECT, error.message, "nginx's workers are another account, and must reach their flags")]
    return []


def _jobs_user(patient: Patient) -> list[Finding]:
    if "run" not in patient.file.capabilities:
        return []
    try:
        account = jobs_account(patient.file)
    except errors.UsageError as error:
        return [failed("script jobs", error.message, "make the account, or take jobs_user out of agent.yml")]
    weak = account.warnings(patient.file.docker_for)
    return [warning("script jobs", sentence, "docs/production-host.md says how") for sentence in weak]


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"account {uid}"
