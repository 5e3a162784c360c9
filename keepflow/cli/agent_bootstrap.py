"""`keepflow agent bootstrap`: make another host an agent, over SSH."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keepflow.cli import output
from keepflow.cli.agent import text_of
from keepflow.cli.agent_doctor import print_findings
from keepflow.cli.places import terminal
from keepflow.core.names import is_name
from keepflow.core.text import one_line
from keepflow.errors import UsageError

if TYPE_CHECKING:
    from keepflow.cli.bootstrap.connection import Address, Login
    from keepflow.cli.bootstrap.course import Wanted

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
_PREFIX = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._-]+)+")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


@click.command()
@click.argument("where", metavar="USER@HOST")
@click.option("--port", type=click.IntRange(1, 65535), default=22, show_default=True, help="Where sshd listens.")
@click.option("--host-key", metavar="SHA256:…", help="The fingerprint the host must have (else you are asked once).")
@click.option("--key", type=_FILE, help="Sign in with this private key.")
@click.option("--ssh-agent", is_flag=True, help="Sign in with the keys of the SSH agent.")
@click.option("--ask-password", is_flag=True, help="Sign in with a password, asked for; it serves for sudo, too.")
@click.option("--config", type=_FILE, help="The agent.yml for the host.")
@click.option("--replace-config", is_flag=True, help="Also when the host has a different one.")
@click.option("--also", type=_FILE, multiple=True, help="A file to lay beside agent.yml, which names it; repeatable.")
@click.option("--name", help="The agent's name; the master is asked for a token for it.")
@click.option("--token-file", type=click.Path(path_type=Path), help="A join token instead of asking the master.")
@click.option("--ca-file", type=_FILE, help="The only certificate authority the agent is to trust for its master.")
@click.option("--wheel", type=_FILE, help="Install this wheel instead of this very keepflow.")
@click.option(
    "--wheelhouse",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="A directory of wheels it needs, for a host without a package index.",
)
@click.option("--python", default="python3", show_default=True, help="The Python to use there.")
@click.option("--prefix", default="", help="Install below this directory of the host.")
@click.option("--no-service", is_flag=True, help="Do not start the agent.")
def bootstrap(
    where: str,
    port: int,
    host_key: str | None,
    key: Path | None,
    ssh_agent: bool,
    ask_password: bool,
    config: Path | None,
    replace_config: bool,
    also: tuple[Path, ...],
    name: str | None,
    token_file: Path | None,
    ca_file: Path | None,
    wheel: Path | None,
    wheelhouse: Path | None,
    python: str,
    prefix: str,
    no_service: bool,
) -> int:
    """Install the agent on USER@HOST over SSH, join it, start it, and look whether it can deploy.

    Running it again changes nothing that is right already. The account must be root there, or become it by sudo.
    """
    from keepflow.cli.bootstrap import course
    from keepflow.cli.bootstrap.connection import Address, connected
    from keepflow.cli.bootstrap.host import Host, Layout
    from keepflow.cli.bootstrap.known_hosts import KnownHosts, default_path

    if prefix and not _PREFIX.fullmatch(prefix):
        raise UsageError("--prefix is an absolute directory of letters, digits and . _ -", code="bad-prefix")
    if name is not None and not is_name(name):
        raise UsageError("--name: 1 to 40 of a-z, 0-9 and '-', neither first nor last a '-'", code="bad-name")
    if taken := {path.name for path in also} & {"agent.yml", "master-ca.crt"}:
        raise UsageError(f"--also: {taken.pop()} is laid by --config and --ca-file", code="bad-file")
    address = Address.parse(where, port)
    wanted = course.Wanted(
        layout=Layout(prefix),
        wheel=_wheel(wheel),
        wheelhouse=tuple(sorted(wheelhouse.glob("*.whl"))) if wheelhouse else (),
        config=_checked_config(config),
        replace_config=replace_config,
        files={path.name: path.read_bytes() for path in also},
        ca_pem=ca_file.read_bytes() if ca_file else b"",
        name=name,
        service=not no_service,
        python=python,
    )
    login = _login(address, key, ssh_agent, ask_password)
    known = KnownHosts(default_path())

    def is_right(kind: str, fingerprint: str) -> bool:
        if host_key is not None:
            return fingerprint == _fingerprint(host_key)
        if known.key(address.known_as) is None:
            output.say(f"{address.known_as} shows the host key {fingerprint} ({kind})")
            output.ask_typed("type yes when that is its key", "yes", f"--host-key {fingerprint}")
        return True

    with connected(address, login, known, is_right) as connection:
        host = Host.of(connection, login.password or "")
        outcome = course.bootstrap(host, wanted, lambda: _token(wanted, token_file), _say)
    print_findings(outcome.findings)
    if outcome.left:
        output.say(outcome.left)
    return 1 if outcome.left or any(finding.state == "failed" for finding in outcome.findings) else 0


def _say(subject: str, what: str) -> None:
    output.say(f"{one_line(subject, 40).ljust(10)}  {one_line(what, 1000)}")


def _login(address: Address, key: Path | None, ssh_agent: bool, ask_password: bool) -> Login:
    from keepflow.cli.bootstrap.connection import Login

    if not (key or ssh_agent or ask_password):
        raise UsageError("say how to sign in: --key FILE, --ssh-agent or --ask-password", code="no-login")
    password = _hidden(f"password of {address.user} on {address.host}") if ask_password else None
    return Login(key, lambda: _hidden(f"passphrase of {key}"), ssh_agent, password)


def _hidden(what: str) -> str:
    """Ask for a secret; it is never taken from the command line, where every account could read it."""
    if not terminal(sys.stdin):
        raise UsageError(
            f"the {what} is asked for, and nobody can answer here; use --key or --ssh-agent", code="no-terminal"
        )
    return str(click.prompt(what, hide_input=True, err=True))


def _fingerprint(text: str) -> str:
    if not _FINGERPRINT.fullmatch(text):
        raise UsageError("--host-key is a fingerprint as `ssh-keygen -lf` prints it: SHA256:…", code="bad-host-key")
    return text


def _wheel(path: Path | None) -> tuple[str, bytes]:
    from keepflow.cli.bootstrap.wheel import own_wheel

    return (path.name, path.read_bytes()) if path else own_wheel()


def _checked_config(path: Path | None) -> bytes | None:
    from keepflow.config.agent_file import load_agent

    if path is None:
        return None
    load_agent(path.read_bytes(), str(path))
    return path.read_bytes()


def _token(wanted: Wanted, token_file: Path | None) -> str:
    """Return a join token: from the file, or made by the master that this command line talks to."""
    from keepflow.cli.client import connect

    if token_file is not None:
        return text_of(token_file).strip()
    if wanted.name is None:
        raise UsageError("name the agent (--name), so that the master makes a token for it; or give --token-file")
    return str(connect().post("/agents", {"name": wanted.name})["token"])
