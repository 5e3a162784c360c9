"""`keepflow backup` and `keepflow restore`."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import click

from keepflow import errors
from keepflow.cli.master import HOME
from keepflow.cli.output import say

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("file", type=_FILE)
@click.option("--export-key", is_flag=True, help="Write the master key instead; it is on the master's machine only.")
@HOME
def backup(file: Path, export_key: bool, home: Path | None) -> None:
    """Write database, logs and sealed secrets of the running master to FILE.

    The key that opens the secrets is not in it: `keepflow backup --export-key FILE` writes that one. Keep both, apart.
    """
    if file.exists():
        raise errors.Refused(f"{file} exists; name a new file", code="exists")
    if export_key:
        return _export_key(file, home)
    from keepflow.cli.client import connect
    from keepflow.engine.restoring import inspect

    client, part = connect(), file.with_name(f"{file.name}.part")
    try:
        with open(part, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as target:
            for piece in client.download("/backup"):
                target.write(piece)
            target.flush()
            os.fsync(target.fileno())
        found = inspect(part)
        part.rename(file)
    except OSError as error:
        raise errors.UsageError(f"cannot write {file}: {error.strerror}", code="unwritable") from None
    finally:
        part.unlink(missing_ok=True)
    say(f"{file}: {found.files} files, {found.size / 1e6:.1f} MB, of {found.url}")
    return None


def _export_key(file: Path, home: Path | None) -> None:
    from keepflow.config.home import Home, default_home
    from keepflow.tools.files import read_private, write_atomic

    place = Home.at(home or default_home())
    try:
        write_atomic(file, read_private(place.master_key), 0o600, replace=False)
    except OSError as error:
        raise errors.UsageError(f"cannot write {file}: {error.strerror}", code="unwritable") from None
    say(f"{file}: whoever has this and a backup has every secret; keep them apart")


@click.command()
@click.argument("file", type=_FILE)
@click.option("--key", "key", required=True, type=_FILE, help="The key that `backup --export-key` wrote.")
@HOME
def restore(file: Path, key: Path, home: Path | None) -> None:
    """Put a backup into an empty home; start the master afterwards.

    Numbers of attempts skip 1,000,000 and numbers of runs 1,000, so that none that was given out since is given again.
    """
    from keepflow.cli.wiring import claim
    from keepflow.config.master_settings import load_settings
    from keepflow.engine import clock
    from keepflow.engine.restoring import restore as put_back

    settings = load_settings(home=home)
    if settings.database is not None:
        raise errors.UsageError("a backup is of SQLite; restore PostgreSQL with pg_restore", code="not-sqlite")
    database = claim(settings)
    try:
        found = put_back(file, key, settings.place().root, clock.now())
    finally:
        database.dispose()
    made = datetime.fromtimestamp(found.made_at / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    say(f"{settings.place().root} is the master of {made} again; start it, then look at the environments for drift")
