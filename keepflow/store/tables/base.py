"""What all tables are made with: where they are gathered, and the columns and indexes that many have."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, text

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: 64-bit row id that SQLite still treats as its rowid.
Id = BigInteger().with_variant(Integer, "sqlite")


def row_id() -> Column[int]:
    """Return the column of the number that rows of a table are known by."""
    return Column("id", Id, primary_key=True, autoincrement=True)


def at(name: str, nullable: bool = True) -> Column[int]:
    """Return a column for a time: UTC microseconds, made by the master."""
    return Column(name, BigInteger, nullable=nullable)


def live_index(name: str, *columns: str) -> Index:
    """Index only the rows that have not ended: few, however long the history is."""
    still = text("finished_at IS NULL")
    return Index(name, *columns, sqlite_where=still, postgresql_where=still)
