"""Users, groups, roles, sessions, tokens and links, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from keepflow.store import credentials, people, projects
from keepflow.store.database import Database
from keepflow.store.people import User
from keepflow.store.writer import Writer

NOW = 1_772_000_000_000_000


@pytest.fixture
def ann(writer: Writer, database: Database) -> User:
    """A person."""
    added = writer.call(lambda tx: people.add_user(tx.conn, "ann", "ann@example.org", False, NOW))
    with database.read() as conn:
        found = people.user_by_id(conn, added)
    assert found is not None
    return found


@pytest.fixture
def project(writer: Writer) -> int:
    """A project's id."""
    return writer.call(lambda tx: projects.add(tx.conn, NOW, "keepwork", "https://example.org/x.git", "github"))


def test_a_user_is_what_was_added(ann: User, database: Database) -> None:
    assert ann == User(ann.id, "ann", "ann@example.org", False, None, False, NOW)
    with database.read() as conn:
        assert people.user_by_name(conn, "ann") == ann
        assert people.all_users(conn) == [ann]
        assert people.any_user(conn) is True
        assert people.password_hash(conn, ann.id) is None
        assert people.user_by_name(conn, "Ann") is None


def test_two_users_never_have_one_name(ann: User, writer: Writer) -> None:
    with pytest.raises(IntegrityError):
        writer.call(lambda tx: people.add_user(tx.conn, ann.name, "", True, NOW))


def test_a_password_and_a_disabling_are_remembered(ann: User, writer: Writer, database: Database) -> None:
    writer.call(lambda tx: people.set_password(tx.conn, ann.id, "$argon2id$…"))
    writer.call(lambda tx: people.set_disabled(tx.conn, ann.id, NOW + 1))
    with database.read() as conn:
        found = people.user_by_id(conn, ann.id)
        assert found is not None
        assert (found.has_password, found.disabled_at) == (True, NOW + 1)
        assert people.password_hash(conn, ann.id) == "$argon2id$…"


def test_roles_come_directly_and_through_groups(ann: User, project: int, writer: Writer, database: Database) -> None:
    writer.call(lambda tx: people.set_group(tx.conn, "testers", ["ann", "not-yet-here"], managed=True))
    with database.read() as conn:
        group = people.group_id(conn, "testers")
    writer.call(lambda tx: people.set_role(tx.conn, project, "tester", user=None, group=group))
    writer.call(lambda tx: people.set_role(tx.conn, project, "viewer", user=ann.id, group=None))
    writer.call(lambda tx: people.set_role(tx.conn, project, "developer", user=ann.id, group=None))
    with database.read() as conn:
        assert people.roles_of(conn, ann, project) == {"tester", "developer"}, "a second role replaces the first"
        assert people.projects_of(conn, ann) == {project}
        assert people.in_groups(conn, "ann", ["none", "testers"]) is True
        assert people.in_groups(conn, "ann", []) is False
        assert people.all_groups(conn) == [people.Group("testers", True, ("ann", "not-yet-here"))]
        assert people.all_roles(conn, project) == [
            people.RoleGrant("keepwork", "developer", "ann", None),
            people.RoleGrant("keepwork", "tester", None, "testers"),
        ]
    writer.call(lambda tx: people.set_group(tx.conn, "testers", ["bo"], managed=False))
    writer.call(lambda tx: people.set_role(tx.conn, project, None, user=ann.id, group=None))
    with database.read() as conn:
        assert people.roles_of(conn, ann, project) == frozenset()
        assert people.all_groups(conn) == [people.Group("testers", False, ("bo",))]


def test_a_removed_group_takes_its_roles_along(project: int, writer: Writer, database: Database) -> None:
    writer.call(lambda tx: people.set_group(tx.conn, "testers", [], managed=False))
    with database.read() as conn:
        group = people.group_id(conn, "testers")
    writer.call(lambda tx: people.set_role(tx.conn, project, "tester", user=None, group=group))
    for _ in range(2):
        writer.call(lambda tx: people.remove_group(tx.conn, "testers"))
    with database.read() as conn:
        assert (people.all_groups(conn), people.all_roles(conn)) == ([], [])


@pytest.mark.parametrize("both", [True, False])
def test_a_role_has_exactly_one_holder(both: bool, ann: User, project: int, writer: Writer) -> None:
    writer.call(lambda tx: people.set_group(tx.conn, "testers", [], managed=False))
    user, group = (ann.id, 1) if both else (None, None)
    with pytest.raises(IntegrityError):
        writer.call(lambda tx: people.set_role(tx.conn, project, "viewer", user=user, group=group))


def test_sessions_are_found_touched_and_ended(ann: User, writer: Writer, database: Database) -> None:
    for name in ("a", "b", "c"):
        writer.call(lambda tx, name=name: credentials.add_session(tx.conn, name, ann.id, "csrf", NOW))
    writer.call(lambda tx: credentials.touch_session(tx.conn, "b", NOW + 5))
    writer.call(lambda tx: credentials.end_session(tx.conn, "a"))
    with database.read() as conn:
        assert credentials.session(conn, "a") is None
        assert credentials.session(conn, "b") == credentials.Session("b", ann.id, "csrf", NOW, NOW + 5)
    writer.call(lambda tx: credentials.end_sessions_of(tx.conn, ann.id))
    with database.read() as conn:
        assert credentials.session(conn, "c") is None


def test_the_sweep_takes_what_is_old_and_nothing_else(ann: User, writer: Writer, database: Database) -> None:
    def fill(tx: object) -> None:
        conn = tx.conn  # type: ignore[attr-defined]  # a Tx
        credentials.add_session(conn, "long ago", ann.id, "x", NOW - 100)
        credentials.add_session(conn, "idle", ann.id, "x", NOW - 20)
        credentials.add_session(conn, "busy", ann.id, "x", NOW - 20)
        credentials.touch_session(conn, "busy", NOW)
        credentials.add_link(conn, "dead", "setup", None, NOW - 1, NOW - 50)
        credentials.add_link(conn, "alive", "setup", None, NOW + 1, NOW - 50)

    writer.call(fill)
    writer.call(lambda tx: credentials.sweep(tx.conn, NOW - 50, NOW - 10, NOW))
    with database.read() as conn:
        assert [credentials.session(conn, name) is not None for name in ("long ago", "idle", "busy")] == [0, 0, 1]
        assert [credentials.link(conn, name) is not None for name in ("dead", "alive")] == [False, True]


def test_tokens_are_listed_newest_first_and_revoked_once(ann: User, writer: Writer, database: Database) -> None:
    first = writer.call(lambda tx: credentials.add_token(tx.conn, "h1", ann.id, "ci", ["read"], None, NOW))
    second = writer.call(lambda tx: credentials.add_token(tx.conn, "h2", ann.id, "phone", ["run"], NOW + 9, NOW))
    writer.call(lambda tx: credentials.touch_token(tx.conn, first, NOW + 1))
    assert writer.call(lambda tx: credentials.revoke_token(tx.conn, second, NOW + 2)) is True
    assert writer.call(lambda tx: credentials.revoke_token(tx.conn, second, NOW + 3)) is False
    with database.read() as conn:
        assert credentials.tokens(conn, ann.id) == [
            credentials.ApiToken(second, ann.id, "ann", "phone", ("run",), NOW, NOW + 9, None, NOW + 2),
            credentials.ApiToken(first, ann.id, "ann", "ci", ("read",), NOW, None, NOW + 1, None),
        ]
        assert credentials.tokens(conn, ann.id + 1) == []
        assert credentials.token(conn, "h1") == credentials.tokens(conn)[1]
        assert credentials.token(conn, "nothing") is None


def test_a_link_is_burnt_once_and_only_unused_ones_are_dropped(ann: User, writer: Writer, database: Database) -> None:
    for name, user in (("mine", ann.id), ("used", ann.id), ("anybody", None)):
        writer.call(
            lambda tx, name=name, user=user: credentials.add_link(tx.conn, name, "password", user, NOW + 9, NOW)
        )
    assert writer.call(lambda tx: credentials.burn_link(tx.conn, "used", NOW + 1)) is True
    assert writer.call(lambda tx: credentials.burn_link(tx.conn, "used", NOW + 2)) is False
    writer.call(lambda tx: credentials.drop_links(tx.conn, "password", ann.id))
    with database.read() as conn:
        assert credentials.link(conn, "mine") is None
        assert credentials.link(conn, "used") == credentials.Link("password", ann.id, NOW + 9, NOW + 1)
        assert credentials.link(conn, "anybody") is not None
