"""`keepflow master`: the master alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

HOME = click.option("--home", type=click.Path(path_type=Path, file_okay=False), help="Where all state lives.")
LISTEN = click.option("--listen", metavar="HOST:PORT", help="Where to listen (127.0.0.1:7070).")
URL = click.option("--url", help="The address people and forges use, when it is another one.")
DATABASE = click.option("--database", metavar="URL", help="postgresql+psycopg://… instead of SQLite in the home.")


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of every verb that starts a master."""
    for option in (DATABASE, URL, LISTEN, HOME):
        command = option(command)
    return command


@click.command()
@server_options
def master(home: Path | None, listen: str | None, url: str | None, database: str | None) -> None:
    """Run the master alone, until SIGTERM.

    Every option has an environment variable: KEEPFLOW_HOME, KEEPFLOW_LISTEN, KEEPFLOW_URL, KEEPFLOW_DATABASE (or
    KEEPFLOW_DATABASE_FILE), and KEEPFLOW_TRUSTED_PROXIES for addresses whose X-Forwarded-* are believed.
    """
    from keepflow.cli import logbook
    from keepflow.cli.serving import leave, serve
    from keepflow.config.master_settings import load_settings

    settings = load_settings(home=home, listen=listen, url=url, database=database)
    logbook.configure()
    serve(settings)
    leave()
