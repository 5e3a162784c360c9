"""Verbs on the agent's own machine: join a master, run, say how it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from keepflow.agent.standing import Standing
from keepflow.agent.state import DEFAULT, State
from keepflow.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])


def _place(
    flag: str, name: str, variable: str, default: Path, about: str, *, directory: bool
) -> Callable[[Command], Command]:
    kind = click.Path(path_type=Path, file_okay=not directory, dir_okay=directory)
    return click.option(flag, name, type=kind, envvar=variable, default=default, show_default=True, help=about)


STATE = _place("--state", "root", "KEEPFLOW_AGENT_STATE", DEFAULT, "The agent's own directory.", directory=True)
CONFIG = _place(
    "--config",
    "config",
    "KEEPFLOW_AGENT_CONFIG",
    Path("/etc/keepflow/agent.yml"),
    "What this host allows.",
    directory=False,
)


@click.group()
def agent() -> None:
    """Run, join, list and revoke agents."""


@agent.command()
@click.argument("url")
@click.option("--name", help="Refuse a token that was made for another name.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the join token (default: stdin).")
@click.option("--ca-file", type=click.Path(path_type=Path), help="The only certificate authority to trust for URL.")
@click.option("--insecure-http", is_flag=True, help="Take an http:// address of another machine, unencrypted.")
@STATE
def join(
    url: str, name: str | None, token_file: Path | None, ca_file: Path | None, insecure_http: bool, root: Path
) -> None:
    """Join the master at URL with a one-time token (`keepflow agent token NAME` on the master makes one)."""
    from keepflow.agent import enrol

    token = enrol.JoinToken.parse(_token(token_file))
    state = State(root)
    state.claim()
    try:
        ca_pem = text_of(ca_file) if ca_file else ""
        identity = enrol.join(state, _url(url), token, ca_pem, name, insecure_http=insecure_http)
    finally:
        state.release()
    click.echo(f"joined {identity.url} as agent {identity.agent}", err=True)
    click.echo(f"its key is {state.key().public.key_id}; next: write agent.yml and start keepflow agent run", err=True)


@agent.command()
@CONFIG
@STATE
@click.option("--log-format", type=click.Choice(["auto", "text", "json"]), default="auto", help="Lines on stderr.")
def run(config: Path, root: Path, log_format: str) -> int:
    """Run the agent until SIGTERM."""
    from keepflow.agent.daemon import Daemon
    from keepflow.agent.host_file import HostFile
    from keepflow.agent.logs import configure

    host_file = HostFile(config)
    state = State(root)
    state.claim()
    try:
        daemon = Daemon(state, host_file)
        configure(as_json=log_format == "json" or (log_format == "auto" and not sys.stderr.isatty()))
        return daemon.run()
    finally:
        state.release()


@agent.command()
@STATE
def status(root: Path) -> int:
    """Say who this agent is and whether it runs; exit code 1 when it does not."""
    state = State(root)
    identity = state.identity()
    holder = state.holder()
    click.echo(f"agent   {identity.agent}")
    click.echo(f"master  {identity.url}")
    click.echo(f"key     {state.key().public.key_id}")
    click.echo(f"state   {root}")
    click.echo(f"running {f'yes, process {holder}' if holder else 'no'}")
    standing = Standing.read(state)
    if holder and standing:
        click.echo(f"link    {'up' if standing.linked else standing.sentence}")
    return 0 if holder else 1


def _token(path: Path | None) -> str:
    if path is not None:
        return text_of(path)
    if sys.stdin.isatty():
        click.echo("the join token, then Enter:", err=True)
        return sys.stdin.readline()
    return sys.stdin.read(10_000)


def text_of(path: Path) -> str:
    """Return the text of a file a person named; raises UsageError `unreadable`."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}", code="unreadable") from None


def _url(text: str) -> str:
    if not text.startswith(("https://", "http://")):
        raise UsageError(f"{text!r}: write the master's address with https://", code="bad-url")
    return text
