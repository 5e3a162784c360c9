"""The service on the host: started, restarted when it runs something else, put back when the new one does not start."""

from __future__ import annotations

import json
import time
from pathlib import PurePosixPath

from keepflow import errors
from keepflow.cli.bootstrap.host import Host, Layout
from keepflow.core.text import one_line

NAME = "keepflow-agent"
_LINK_SECONDS = 20.0
_PUT_BACK = 'ln -s "$2" "$1/.bin-back" && mv -T "$1/.bin-back" "$1/bin"'


def by_hand(layout: Layout) -> str:
    """Return the command that starts the agent where there is no systemd."""
    return f"{layout.program} agent run --config {layout.config} --state {layout.state}"


def has_systemd(host: Host, layout: Layout) -> bool:
    """Say whether services are systemd's there; one below a prefix is nobody's."""
    return not layout.prefix and host.run(("test", "-d", "/run/systemd/system"), check=False).exit_code == 0


def in_use(host: Host, layout: Layout) -> str:
    """Return the environment that programs are taken from, as the link says it; "" when there is none yet."""
    return host.run(("readlink", str(layout.opt / "bin")), check=False).text.strip()


def carry_over(host: Host, layout: Layout, before: str, *, changed: bool) -> tuple[str, bool]:
    """Have the service run what is installed; return a sentence, and whether that is so now.

    `before` is what was in use before; it is put back when the new one does not start, which raises Refused
    `not-started`. A deployment that is being carried out is never interrupted by an update.
    """
    enabled, active = (
        host.run(("systemctl", word, "--quiet", NAME), check=False).exit_code == 0
        for word in ("is-enabled", "is-active")
    )
    changed |= active and not runs_what_is_in_use(host, layout, _main_pid(host))
    if active and changed and _deploys(host, layout):
        again = f"run this again when it has ended, or: systemctl restart {NAME}"
        return f"a deployment is being carried out, so the service was not restarted; {again}", False
    commands = service_commands(enabled=enabled, active=active, changed=changed)
    try:
        for argv in commands:
            host.run(argv, timeout=120)
    except errors.CommandFailed as error:
        raise _put_back(host, layout, before, error) from None
    if commands:
        _await_link(host, layout)
    return " and ".join(argv[1] for argv in commands) if commands else "already so, enabled and active", True


def service_commands(*, enabled: bool, active: bool, changed: bool) -> list[tuple[str, ...]]:
    """Return what makes the service run what is installed. A restart interrupts nothing that serves."""
    commands: list[tuple[str, ...]] = []
    if not enabled:
        commands.append(("systemctl", "enable", NAME))
    if not active:
        commands.append(("systemctl", "start", NAME))
    elif changed:
        commands.append(("systemctl", "restart", NAME))
    return commands


def runs_what_is_in_use(host: Host, layout: Layout, pid: str) -> bool:
    """Say whether a process is of the environment in use: a run that was broken off may have left it with another."""
    program = host.read(PurePosixPath(f"/proc/{pid}/cmdline")) if pid.isdigit() else None
    there = host.run(("readlink", "-f", str(layout.opt / "bin"))).text.strip()
    return program is not None and program.startswith(f"{there}/".encode())


def _main_pid(host: Host) -> str:
    return host.run(("systemctl", "show", "--property=MainPID", "--value", NAME), check=False).text.strip()


def _deploys(host: Host, layout: Layout) -> bool:
    return bool(host.run(("ls", "-A", str(layout.state / "journal" / "open")), check=False).text.strip())


def _put_back(host: Host, layout: Layout, before: str, error: errors.CommandFailed) -> errors.Refused:
    why = f"the agent does not start: {one_line(error.tail, 300)}; journalctl -u {NAME} on the host tells more"
    if before in ("", in_use(host, layout)):
        return errors.Refused(why, code="not-started")
    host.run(("sh", "-c", _PUT_BACK, "sh", str(layout.opt), before))
    host.run(("systemctl", "restart", NAME), timeout=120, check=False)
    return errors.Refused(f"{why}. The one before is in use again", code="not-started")


def _await_link(host: Host, layout: Layout) -> None:
    """Give an agent that was just started a moment to be linked, so that the doctor does not look too early."""
    deadline = time.monotonic() + _LINK_SECONDS
    while time.monotonic() < deadline:
        if json.loads(host.read(layout.state / "link.json") or b"{}").get("linked"):
            return
        time.sleep(0.5)
