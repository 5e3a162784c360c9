"""The nginx in front: there, new enough, with files that it takes, and workers that see the flags."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from keepflow import errors
from keepflow.agent.doctor.finding import Finding, failed, ok, warning
from keepflow.agent.doctor.patient import Patient

SUBJECT = "nginx"
_INSTALL = "apt-get install nginx-light; or name the program: nginx: {binary: …}"
_BLIND = (
    "every directory on the way to the flags must be open (r-x) to nginx's workers; KEEPFLOW_FRONT names another place"
)


def look(patient: Patient) -> list[Finding]:
    """Look at the front that agent.yml asks for."""
    nginx = patient.file.nginx
    if nginx.mode == "none" or "deploy" not in patient.file.capabilities:
        return [ok(SUBJECT, "agent.yml asks for none")]
    from keepflow.proxies import _trial as trial  # its templates are 2 MB that an agent without services never needs

    program = str(nginx.binary)
    try:
        version = trial.version(program)
    except errors.KeepflowError as error:
        return [failed(SUBJECT, error.message, _INSTALL)]
    named = f"nginx {'.'.join(map(str, version))}"
    if version < trial.OLDEST:
        oldest = ".".join(map(str, trial.OLDEST))
        return [failed(SUBJECT, f"{named} is too old", f"keepflow needs {oldest} or newer")]
    if nginx.mode == "own":
        sites, pattern = patient.state.front_root / "nginx" / "sites", "*.conf"
        found = _own(patient, named, program)
    else:
        sites, pattern = nginx.include_dir, "keepflow-kf-*.conf"
        found = _host(patient, named, program)
    return [*found, *(_unused(path) for path in trial.out_of_force(sites, pattern))]


def _own(patient: Patient, named: str, program: str) -> list[Finding]:
    from keepflow.proxies import _trial as trial

    with patient.scratch() as place:
        try:
            trial.obeys_flags(place, program)
        except errors.KeepflowError as error:
            mend = _BLIND if error.code == "proxy-blind" else "mend what nginx says; try it by hand: nginx -t"
            return [failed(SUBJECT, f"{named}, tried beside the real one: {error.message}", mend)]
    return [ok(SUBJECT, f"{named}: one tried beside the real one obeys both flags")]


def _host(patient: Patient, named: str, program: str) -> list[Finding]:
    from keepflow.proxies import _trial as trial

    include_dir = patient.file.nginx.include_dir
    try:
        reading = trial.read_host(include_dir, program)
    except errors.KeepflowError as error:
        return [failed(SUBJECT, error.message, "mend the file that nginx names; until then no site of ours can come")]
    if not reading.included:
        sentence = f"{named} does not read {include_dir}/*.conf"
        mend = f"write `include {include_dir}/*.conf;` inside http {{}} of its main file, or name another include_dir"
        return [failed(SUBJECT, sentence, mend)]
    found = [ok(SUBJECT, f"{named} takes its whole configuration, and reads {include_dir}/*.conf")]
    if not _runs():
        found.append(warning(SUBJECT, "no nginx runs on this host", "systemctl enable --now nginx"))
    return [*found, *_workers(patient, reading.user)]


def _workers(patient: Patient, user: str) -> list[Finding]:
    from keepflow.proxies import _trial as trial

    if os.geteuid() != 0:
        return [warning(SUBJECT, "whether its workers see the flags only root can try", "run this as root")]
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return [failed(SUBJECT, f"its workers' user {user} does not exist here", "mend `user` in its main file")]
    with patient.scratch() as place:
        if not trial.sees_flags(place, (entry.pw_uid, entry.pw_gid)):
            return [failed(SUBJECT, f"{user}, its workers' user, does not see flags in {place.parent}", _BLIND)]
    return [ok(SUBJECT, f"its workers ({user}) see both flags")]


def _unused(path: Path) -> Finding:
    mend = "nginx -t, then reload it; the agent does so by itself within seconds when it runs"
    return failed(SUBJECT, f"the running nginx does not answer with {path}", mend)


def _runs() -> bool:
    return any(_title(entry).startswith(b"nginx: master process") for entry in Path("/proc").iterdir())


def _title(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # no process, or one that has just ended
        return b""
