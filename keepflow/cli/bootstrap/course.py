"""The course of a bootstrap, step by step; each step says what it did, or that it was so already.

A run that was broken off is carried on by the next one: what is there is looked at, never remembered.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from keepflow import errors
from keepflow.agent.accounts import add_account
from keepflow.agent.doctor.finding import Finding, State
from keepflow.cli.bootstrap import service
from keepflow.cli.bootstrap.host import Host, Layout
from keepflow.config.agent_file import AgentFile, load_agent
from keepflow.core.text import one_line
from keepflow.tools.failpoints import fail
from keepflow.tools.shipped import shipped

Say = Callable[[str, str], None]

_SHIPPED = ("install.sh", "keepflow-agent.service", "agent.example.yml")
_INSTALL_SECONDS = 900.0
_PYTHON = "import sys; print('%d.%d' % sys.version_info[:2]); import ensurepip, venv"
_OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a host is to become. `files` are bytes by the name they get beside agent.yml."""

    layout: Layout
    wheel: tuple[str, bytes] = field(repr=False)
    wheelhouse: tuple[Path, ...] = ()
    config: bytes | None = field(default=None, repr=False)
    replace_config: bool = False
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    ca_pem: bytes = b""
    name: str | None = None
    service: bool = True
    python: str = "python3"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went: what the doctor found, and what a person has to do still, "" when nothing."""

    findings: tuple[Finding, ...]
    left: str = ""


def bootstrap(host: Host, wanted: Wanted, token: Callable[[], str], say: Say) -> Outcome:
    """Make a host an agent; `token` is asked only when it has not joined yet. Raises KeepflowError with the reason."""
    say("system", _system(host))
    say("python", _python(host, wanted.python))
    file = _config(host, wanted)
    before = service.in_use(host, wanted.layout)
    changed = _install(host, wanted, say)
    fail("bootstrap.installed")
    changed |= _lay_files(host, wanted, say)
    if file.jobs_user is not None:
        say("account", _account(host, file.jobs_user))
    say("join", _join(host, wanted, file, token))
    fail("bootstrap.joined")
    left = _start(host, wanted, before, changed, say)
    return Outcome(_examined(host, wanted.layout), left)


# --- what is there ----------------------------------------------------------------------------------------------------


def _system(host: Host) -> str:
    told = (host.read(PurePosixPath("/etc/os-release")) or b"").decode(errors="replace")
    found = dict(line.partition("=")[::2] for line in told.splitlines())
    family = {found.get(key, "").strip('"') for key in ("ID",)} | set(found.get("ID_LIKE", "").strip('"').split())
    name = one_line(found.get("PRETTY_NAME", "an unknown system").strip('"'), 80)
    if not family & {"debian", "ubuntu"}:
        raise errors.Refused(
            f"the host runs {name}; keepflow installs itself on Debian and Ubuntu. agents/install.sh shows what to do "
            "by hand",
            code="other-system",
        )
    return name


def _python(host: Host, program: str) -> str:
    done = host.run((program, "-c", _PYTHON), check=False)
    version = done.text.strip()
    if not re.fullmatch(r"[0-9]+\.[0-9]+", version):
        raise errors.Refused(
            f"there is no {one_line(program, 80)} on the host: apt-get install python3 python3-venv", code="no-python"
        )
    if tuple(map(int, version.split("."))) < _OLDEST_PYTHON:
        raise errors.Refused(f"the host's Python is {version}; keepflow needs 3.11 or newer", code="old-python")
    if done.exit_code != 0:
        raise errors.Refused("the host's Python has no venv: apt-get install python3-venv", code="no-venv")
    return version


def _config(host: Host, wanted: Wanted) -> AgentFile:
    """Return what will be in force, before anything was changed."""
    path = wanted.layout.config
    there = host.read(path)
    if wanted.config is None and there is None:
        raise errors.UsageError(f"the host has no {path} yet: name one with --config", code="no-config")
    if there is not None and wanted.config not in (None, there) and not wanted.replace_config:
        raise errors.Refused(
            f"the host has another {path}; look at it, then --replace-config replaces it (and keeps it beside)",
            code="other-config",
        )
    return load_agent(wanted.config or there or b"", str(path))


# --- what is done -----------------------------------------------------------------------------------------------------


def _install(host: Host, wanted: Wanted, say: Say) -> bool:
    """Bring everything into a directory of the host and run its install.sh; True when something changed."""
    name, wheel = wanted.wheel
    incoming = wanted.layout.opt / "incoming"
    host.make_directory(incoming, 0o700)
    for each in _SHIPPED:
        host.lay(incoming / each, shipped("agents", each).read_bytes(), 0o600)
    host.lay(incoming / name, wheel, 0o600)
    arguments: list[str] = []
    if wanted.wheelhouse and not _installed(host, wanted):
        host.make_directory(incoming / "wheelhouse", 0o700)
        for path in wanted.wheelhouse:
            host.lay(incoming / "wheelhouse" / path.name, path.read_bytes(), 0o600)
        arguments += ["--wheelhouse", str(incoming / "wheelhouse")]
    if wanted.config is not None:
        host.lay(incoming / "agent.yml", wanted.config, 0o600)
        arguments += ["--config", str(incoming / "agent.yml")]
        arguments += ["--replace-config"] if wanted.replace_config else []
    fail("bootstrap.uploaded")
    settings = (f"ROOT={wanted.layout.prefix}", f"PYTHON={wanted.python}")
    script = ("env", *settings, "sh", str(incoming / "install.sh"), *arguments, str(incoming / name))
    told = host.run(script, timeout=_INSTALL_SECONDS).text
    changed = False
    for line in told.splitlines():
        subject, _, what = line.partition(": ")
        say(subject, what)
        changed |= not what.startswith("already")
    host.remove(incoming)
    return changed


def _installed(host: Host, wanted: Wanted) -> bool:
    """Say whether install.sh has an environment of this very wheel, and so needs no other wheels."""
    digest = hashlib.sha256(wanted.wheel[1]).hexdigest()[:16]
    return host.read(wanted.layout.opt / "venvs" / digest / "complete") is not None


def _lay_files(host: Host, wanted: Wanted, say: Say) -> bool:
    changed = False
    for name, data in wanted.files.items():
        path = wanted.layout.etc / name
        there = host.read(path)
        if there not in (None, data) and not wanted.replace_config:
            raise errors.Refused(f"the host has another {path}; --replace-config replaces it", code="other-config")
        fresh = host.lay(path, data, 0o600)
        say(name, f"wrote {path}" if fresh else f"already so, {path}")
        changed |= fresh
    return changed


def _account(host: Host, name: str) -> str:
    """Have the account that script jobs run as; the agent does not start without it."""
    if host.run(("id", "-u", name), check=False).exit_code == 0:
        return f"already so, {name}"
    host.run(add_account(name))
    return f"made {name}"


def _join(host: Host, wanted: Wanted, file: AgentFile, token: Callable[[], str]) -> str:
    layout = wanted.layout
    known = host.read(layout.state / "identity.json")
    if known is not None:
        return _joined_already(known, wanted, file)
    options = ["--state", str(layout.state)]
    options += ["--name", wanted.name] if wanted.name else []
    options += ["--insecure-http"] if file.insecure_http else []
    if wanted.ca_pem:
        host.lay(layout.etc / "master-ca.crt", wanted.ca_pem, 0o644)
        options += ["--ca-file", str(layout.etc / "master-ca.crt")]
    host.make_directory(layout.state.parent, 0o755)
    argv = (layout.program, "agent", "join", *options, "--", file.master)
    try:
        host.run(argv, input=f"{token()}\n".encode(), timeout=90)
    except errors.CommandFailed as error:
        raise errors.Refused(f"the host could not join: {one_line(error.tail, 500)}", code="not-joined") from None
    return f"joined {file.master}"


def _joined_already(known: bytes, wanted: Wanted, file: AgentFile) -> str:
    try:
        identity = json.loads(known)
        agent, url = str(identity["agent"]), str(identity["url"])
    except (ValueError, KeyError, TypeError):
        raise errors.RemoteError(f"{wanted.layout.state}/identity.json is unreadable", code="remote-file") from None
    if (wanted.name not in (None, agent)) or url != file.master:
        raise errors.Refused(
            f"the host is already agent {agent} of {url}; to join anew, stop it and move {wanted.layout.state} away",
            code="joined-already",
        )
    return f"already so, agent {agent} of {url}"


def _start(host: Host, wanted: Wanted, before: str, changed: bool, say: Say) -> str:
    """Have the service run where systemd does; return what a person has to do still."""
    layout = wanted.layout
    if not service.has_systemd(host, layout):
        command = service.by_hand(layout)
        say("service", f"not started; by hand: {command}")
        return f"no systemd there: start the agent yourself: {command}" if wanted.service else ""
    if not wanted.service:
        say("service", "left alone")
        return ""
    sentence, done = service.carry_over(host, layout, before, changed=changed)
    say("service", sentence)
    return "" if done else sentence


def _examined(host: Host, layout: Layout) -> tuple[Finding, ...]:
    """Run the doctor there and return what it found."""
    argv = (layout.program, "agent", "doctor", "--config", str(layout.config), "--state", str(layout.state), "--json")
    done = host.run(argv, timeout=180, check=False)
    try:
        return tuple(
            Finding(str(one["subject"]), State(one["state"]), str(one["sentence"]), str(one["mend"]))
            for one in json.loads(done.stdout)["findings"]
        )
    except (ValueError, KeyError, TypeError):
        words = one_line(done.stderr.decode(errors="replace"), 500)
        raise errors.RemoteError(
            f"the doctor there did not answer as it should: {words}", code="remote-doctor"
        ) from None
