"""The schema is what the tables say, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from keepflow import errors
from keepflow.store import migrations
from keepflow.store.database import Database
from keepflow.store.tables import metadata


def test_a_migrated_database_has_exactly_the_tables_of_the_code(database: Database) -> None:
    with database.read() as conn:
        differences = compare_metadata(MigrationContext.configure(conn, opts={"compare_type": True}), metadata)
    assert differences == []


def test_the_foreign_keys_of_the_code_are_in_the_database(database: Database) -> None:
    from sqlalchemy import inspect

    wanted = {
        (table.name, key.parent.name, key.column.table.name)
        for table in metadata.tables.values()
        for key in table.foreign_keys
    }
    with database.read() as conn:
        found = {
            (table, key["constrained_columns"][0], key["referred_table"])
            for table in metadata.tables
            for key in inspect(conn).get_foreign_keys(table)
        }
    assert found == wanted


def test_migrating_again_changes_nothing(database: Database) -> None:
    database.migrate()
    with database.read() as conn:
        assert migrations.current(conn) == migrations.HEAD


def test_the_head_that_is_checked_first_is_the_newest_revision(database: Database) -> None:
    with database.read() as conn:
        assert ScriptDirectory.from_config(migrations.config(conn)).get_current_head() == migrations.HEAD


def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    with database.writing() as conn, conn.begin():
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(errors.Unavailable, match="newer keepflow") as caught:
        database.migrate()
    assert caught.value.code == "newer-schema"


def test_a_second_master_on_one_database_is_refused(url: str) -> None:
    first, second = Database(url), Database(url)
    first.lock()
    with pytest.raises(errors.Refused, match="another master") as caught:
        second.lock()
    assert caught.value.code == "second-master"
    first.dispose()
    second.lock()
    second.dispose()


def test_a_damaged_file_is_refused_at_the_start(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/keepflow.db")
    database.migrate()
    database.dispose()
    path = tmp_path / "keepflow.db"
    broken = bytearray(path.read_bytes())
    broken[4096:12288] = bytes(8192)
    path.write_bytes(broken)
    with pytest.raises(errors.Unavailable, match="restore") as caught:
        Database(f"sqlite:///{path}").check()
    assert caught.value.code == "damaged"


@pytest.mark.parametrize("url", ["nonsense", "mysql://u:hidden@127.0.0.1/x", "postgresql://u:hidden@127.0.0.1/x"])
def test_an_address_of_no_database_we_know_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        Database(url)
    assert "postgresql+psycopg://" in caught.value.message
    assert "hidden" not in caught.value.message


def test_a_database_that_does_not_answer_is_told_without_its_password() -> None:
    with pytest.raises(errors.Unavailable) as caught:
        Database("postgresql+psycopg://u:hidden@127.0.0.1:1/x").lock()
    assert "hidden" not in caught.value.message


def test_every_sqlite_connection_keeps_commits_through_a_power_cut_and_readers_cannot_write(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/keepflow.db")
    database.migrate()
    with database.read() as reader, database.writing() as writing:
        for conn, read_only in ((reader, 1), (writing, 0)):
            found = {
                name: conn.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("synchronous", "journal_mode", "foreign_keys", "query_only")
            }
            assert found == {"synchronous": 2, "journal_mode": "wal", "foreign_keys": 1, "query_only": read_only}
    database.dispose()
