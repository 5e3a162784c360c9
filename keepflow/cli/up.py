"""`keepflow up`, `down`, `status`: master and local agent on this machine."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keepflow.cli.master import HOME, server_options
from keepflow.cli.output import as_json, print_json
from keepflow.errors import Refused, Unavailable

if TYPE_CHECKING:
    from keepflow.cli.wiring import Built
    from keepflow.config.home import Home
    from keepflow.tools.detached import Detached

_START_SECONDS = 30.0
_STOP_SECONDS = 15.0


@click.command()
@server_options
@click.option("--detach", is_flag=True, help="Go on in the background, and return once it is ready.")
def up(home: Path | None, listen: str | None, url: str | None, database: str | None, detach: bool) -> None:
    """Start the master and an agent on this machine, until SIGTERM or Ctrl-C.

    The agent obeys KEEPFLOW_HOME/local-agent.yml, which is written once and then is yours.
    """
    from keepflow.cli import logbook
    from keepflow.cli.serving import leave, serve
    from keepflow.config.master_settings import load_settings

    settings = load_settings(home=home, listen=listen, url=url, database=database)
    if detach:
        _detach(settings.place(), _flags(home=home, listen=listen, url=url, database=database))
        return
    logbook.configure()
    serve(settings, partial(_companion, settings.place()))
    leave()


@click.command()
@HOME
def down(home: Path | None) -> None:
    """Stop what `up --detach` started; harmless when nothing runs."""
    place = _place(home)
    stopped = _background(place).stop(_STOP_SECONDS)
    click.echo(f"stopped the master of {place.root}" if stopped else f"nothing to stop in {place.root}", err=True)


@click.command()
@HOME
@as_json
def status(home: Path | None, form: str) -> int:
    """Say whether the master on this machine is healthy; exit code 1 when it is not."""
    place = _place(home)
    found = _ask(place)
    if form == "json":
        print_json(found)
    else:
        click.echo(f"home    {place.root}")
        click.echo(f"url     {found['url'] or '–'}")
        why = "" if found["ready"] else f": {found['why']}"
        click.echo(f"master  {found['master']}{why}")
    return 0 if found["ready"] else 1


@contextlib.asynccontextmanager
async def _companion(home: Home, built: Built, address: str) -> AsyncIterator[None]:
    """Greet, then keep the local agent running beside the server."""
    import asyncio

    from keepflow.cli.local_agent import beside

    link = await asyncio.to_thread(_setup_link, built)
    click.echo(_banner(built.master.url(), home, link), err=True)
    async with beside(built, address, home):
        yield


def _setup_link(built: Built) -> str | None:
    from keepflow.engine import clock, signin

    master = built.master
    try:
        return master.writer.call(lambda tx: signin.make_setup_link(tx, master, clock.now()))
    except Refused:
        return None


def _banner(url: str, home: Home, link: str | None) -> str:
    lines = [
        f"keepflow is at {url}",
        f"data is in     {home.root}",
        f"the agent here obeys {home.local_agent_file}",
    ]
    if link:
        lines.append(f"make the first admin (the link works once): {link}")
    return "\n".join(lines)


def _flags(**given: object) -> list[str]:
    """Write options as a command line has them; the program in the background works in another directory."""
    if isinstance(given["home"], Path):
        given["home"] = given["home"].absolute()
    return [f"--{name}={value}" for name, value in given.items() if value is not None]


def _detach(home: Home, flags: list[str]) -> None:
    """Start the same in the background; return when it is ready."""
    home.make()
    background = _background(home)
    if background.pid() is not None or home.address_file.exists():
        known = _ask(home)
        if known["ready"]:
            raise Refused(f"{home.root}: a master runs already at {known['url']}", code="second-master")
    environment = {**os.environ, "KEEPFLOW_HOME": str(home.root)}
    background.start((sys.executable, "-m", "keepflow.cli.main", "up", *flags), environment)
    deadline = time.monotonic() + _START_SECONDS
    while not (found := _ask(home))["ready"]:
        if background.pid() is None or time.monotonic() > deadline:
            raise Unavailable(f"the master did not start; {home.log_file} ends with:\n{background.last_words()}")
        time.sleep(0.05)
    click.echo(f"keepflow is at {found['url']}; its log, with the link for the first admin: {home.log_file}", err=True)


def _background(home: Home) -> Detached:
    from keepflow.tools.detached import Detached

    return Detached(home.root / "keepflow.pid", home.log_file)


def _place(home: Path | None) -> Home:
    from keepflow.config.home import Home, default_home

    return Home.at(home or default_home())


def _ask(home: Home) -> dict[str, Any]:
    """Return {"url", "master", "ready", "why"} of the master that runs on a home, by its own answer."""
    import json

    import requests

    try:
        url = json.loads(home.address_file.read_bytes())["url"]
    except (OSError, ValueError, KeyError):
        return {"url": None, "master": "not running", "ready": False, "why": "start it with keepflow up"}
    try:
        answer = requests.get(f"{url}/readyz", timeout=(3, 10))
        ready = answer.status_code == 200
        why = "" if ready else answer.text[:500]
    except requests.RequestException as error:
        return {"url": url, "master": "does not answer", "ready": False, "why": str(error)[:300]}
    return {"url": url, "master": "ready" if ready else "not ready", "ready": ready, "why": why}
