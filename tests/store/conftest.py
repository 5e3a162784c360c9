"""Databases for the store's tests: every contract holds on SQLite and on PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepflow.store.database import Database
from keepflow.store.writer import Writer
from tests.store.clusters import cluster, fresh_database

_names = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The socket directory of a private PostgreSQL."""
    with cluster() as sockets:
        yield sockets


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/keepflow.db"
        return
    with fresh_database(request.getfixturevalue("postgres"), f"t{next(_names)}") as made:
        yield made


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """A migrated database."""
    made = Database(url)
    made.migrate()
    yield made
    made.dispose()


@pytest.fixture
def writer(database: Database) -> Iterator[Writer]:
    """A writer on it."""
    made = Writer(database)
    made.start()
    yield made
    made.close(10)
