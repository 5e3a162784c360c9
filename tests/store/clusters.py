"""A private PostgreSQL: own data directory, reached by a socket only, gone when the tests are."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.real.parts import missing


@contextmanager
def cluster() -> Iterator[str]:
    """Start a server and yield its socket directory; initdb refuses root, so root becomes `postgres` for it."""
    programs = _programs()
    place = Path(tempfile.mkdtemp(prefix="kf-pg-"))
    try:
        place.chmod(0o755)
        data, sockets = place / "data", place / "s"
        for directory in (data, sockets):
            directory.mkdir()
            if os.geteuid() == 0:
                shutil.chown(directory, "postgres", "postgres")
        _as_owner(programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "--encoding=UTF8")
        options = f"-k {sockets} -c listen_addresses='' -c fsync=off -c max_connections=60"
        _as_owner(programs / "pg_ctl", "-D", data, "-w", "-l", sockets / "log", "-o", options, "start")
        try:
            yield str(sockets)
        finally:
            _as_owner(programs / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def fresh_database(sockets: str, name: str) -> Iterator[str]:
    """Make a database of this name, yield its URL, and drop it."""
    with psycopg.connect(host=sockets, user="postgres", dbname="postgres", autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
        try:
            yield f"postgresql+psycopg://postgres@/{name}?host={sockets}"
        finally:
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path is None:
        missing("PostgreSQL (initdb) is not installed")
    return Path(on_path).parent


def _as_owner(*argv: object) -> None:
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*prefix, *map(str, argv)],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
