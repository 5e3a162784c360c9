"""agent.yml: readable, valid, nobody else's to change, and the files it names."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from keepflow import errors
from keepflow.agent import env_file
from keepflow.agent.doctor.finding import Finding, failed, ok, warning
from keepflow.agent.doctor.patient import Patient
from keepflow.config.agent_file import AgentFile, load_agent
from keepflow.tools.files import read_private

SUBJECT = "agent file"
_EXAMPLE = "keepflow lint --kind agent {} shows every mistake with its place; agents/agent.example.yml is an example"


def read(config: Path) -> tuple[AgentFile | None, list[Finding]]:
    """Read the file; without it nothing else can be looked at."""
    try:
        text = config.read_bytes()
        mode = config.stat().st_mode
    except OSError as error:
        sentence = f"{config} cannot be read: {error.strerror}"
        return None, [failed(SUBJECT, sentence, "write it, or name another one with --config")]
    try:
        file = load_agent(text, str(config))
    except errors.ConfigError as error:
        return None, [failed(SUBJECT, str(problem), _EXAMPLE.format(config)) for problem in error.problems]
    found = [ok(SUBJECT, f"{config} is valid: {', '.join(file.capabilities)}, {_count(len(file.services))}")]
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        sentence = (
            f"{config} can be changed by other accounts (mode {stat.S_IMODE(mode):04o}): they decide what runs here"
        )
        found.append(failed(SUBJECT, sentence, f"chmod go-w {config}"))
    if file.insecure_http:
        sentence = "insecure_http: anybody on the way to the master reads and changes what passes"
        found.append(warning(SUBJECT, sentence, "give the master a certificate, write https:// and take the line out"))
    return file, found


def named_files(patient: Patient) -> list[Finding]:
    """Read the files that agent.yml names as the agent will read them."""
    return [finding for what, path, read_it in _named(patient.file) if (finding := _unreadable(what, path, read_it))]


def _named(file: AgentFile) -> Iterator[tuple[str, Path | None, Callable[[Path], object]]]:
    for address, registry in file.registries.items():
        yield f"password of {address}", registry.password_file, read_private
        yield f"authority of {address}", registry.ca_file, Path.read_bytes
    for name, service in file.services.items():
        yield f"env_file of {name}", service.env_file, env_file.read
        if service.front is not None and service.front.tls is not None:
            yield f"certificate of {name}", service.front.tls.certificate, Path.read_bytes
            yield f"certificate's key of {name}", service.front.tls.key, Path.read_bytes


def _unreadable(what: str, path: Path | None, read_it: Callable[[Path], object]) -> Finding | None:
    if path is None:
        return None
    try:
        read_it(path)
    except errors.KeepflowError as error:
        return failed(SUBJECT, f"{what}: {error.message}", f"put {path} there as agent.yml says, or change agent.yml")
    except OSError as error:
        sentence = f"{what}: {path} cannot be read: {error.strerror}"
        return failed(SUBJECT, sentence, f"put {path} there, or change agent.yml")
    return None


def _count(services: int) -> str:
    return "1 service" if services == 1 else f"{services} services"
