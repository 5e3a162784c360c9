"""Users, groups, roles and API tokens."""

from __future__ import annotations

from keepflow.engine import people as rules
from keepflow.engine import signin
from keepflow.errors import Denied
from keepflow.store import credentials, people
from keepflow.store.writer import Tx
from keepflow.web.answers import server as answers
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.state import caller, current_project, reading, web
from keepflow.wire import api

endpoints = Endpoints("People")


@endpoints.add("GET", "/whoami", "enter", api.WhoAmI)
def whoami() -> api.WhoAmI:
    """Say who the caller is."""
    who = caller()
    return api.WhoAmI(name=who.user.name, admin=who.user.admin, scopes=list(who.scopes))


@endpoints.add("GET", "/users", "administer", api.Users)
def users() -> api.Users:
    """List all users."""
    return api.Users(items=[answers.user(found) for found in people.all_users(reading())])


@endpoints.add("POST", "/users", "administer", api.Invited, body=api.NewUser, status=201)
def add_user(body: api.NewUser) -> api.Invited:
    """Add a user and make the one-time link by which they set a password."""
    master, now, by = web().master, web().now(), caller().user.name

    def add(tx: Tx) -> tuple[people.User, str]:
        added = rules.add_user(tx, body.name, body.email, body.admin, by, now)
        return added, signin.make_password_link(tx, master, added, by, now)

    user, link = master.writer.call(add)
    return api.Invited(user=answers.user(user), link=link)


@endpoints.add("POST", "/users/<name>/link", "administer", api.Invited, status=201)
def new_link(name: str) -> api.Invited:
    """Make a new one-time link by which a user sets a password."""
    master, now, by = web().master, web().now(), caller().user.name
    user = rules.existing_user(reading(), name)
    link = master.writer.call(lambda tx: signin.make_password_link(tx, master, user, by, now))
    return api.Invited(user=answers.user(user), link=link)


@endpoints.add("POST", "/users/<name>/disabled", "administer", api.User, body=api.SetDisabled)
def set_disabled(name: str, body: api.SetDisabled) -> api.User:
    """Shut a user out at once, or let them in again."""
    now, by = web().now(), caller().user.name

    def change(tx: Tx) -> people.User:
        rules.set_disabled(tx, name, body.disabled, by, now)
        return rules.existing_user(tx.conn, name)

    return answers.user(web().master.writer.call(change))


@endpoints.add("GET", "/groups", "administer", api.Groups)
def groups() -> api.Groups:
    """List all groups with their members."""
    return api.Groups(items=answers.groups(reading()))


@endpoints.add("PUT", "/groups/<name>", "administer", api.Groups, body=api.SetGroup)
def set_group(name: str, body: api.SetGroup) -> api.Groups:
    """Make a group exist with exactly these members."""
    now, by = web().now(), caller().user.name
    web().master.writer.call(lambda tx: rules.set_group(tx, name, body.members, by, now))
    return _groups_now()


@endpoints.add("DELETE", "/groups/<name>", "administer", api.Groups)
def remove_group(name: str) -> api.Groups:
    """Remove a group and every role it holds."""
    now, by = web().now(), caller().user.name
    web().master.writer.call(lambda tx: rules.remove_group(tx, name, by, now))
    return _groups_now()


def _groups_now() -> api.Groups:
    with web().master.database.read() as conn:
        return api.Groups(items=answers.groups(conn))


@endpoints.add("GET", "/projects/<project>/roles", "roles", api.Roles)
def roles() -> api.Roles:
    """List the roles of a project."""
    return api.Roles(items=answers.roles(reading(), current_project()))


@endpoints.add("POST", "/projects/<project>/roles", "roles", api.Roles, body=api.SetRole)
def set_role(body: api.SetRole) -> api.Roles:
    """Give a user or a group its role in a project, or take it away."""
    place, now, by = current_project(), web().now(), caller().user.name
    web().master.writer.call(
        lambda tx: rules.set_role(tx, place.id, body.role, user=body.user, group=body.group, by=by, now=now)
    )
    with web().master.database.read() as conn:
        return api.Roles(items=answers.roles(conn, place))


@endpoints.add("GET", "/tokens", "tokens", api.Tokens)
def tokens() -> api.Tokens:
    """List one's own API tokens; admins see everybody's."""
    who = caller().user
    found = credentials.tokens(reading(), None if who.admin else who.id)
    return api.Tokens(items=[answers.token(stored) for stored in found])


@endpoints.add("POST", "/tokens", "tokens", api.MadeToken, body=api.NewToken, status=201)
def make_token(body: api.NewToken) -> api.MadeToken:
    """Make an API token for oneself, or as an admin for somebody else."""
    who, now = caller().user, web().now()
    if body.user and body.user != who.name and not who.admin:
        raise Denied("only an admin of this server makes tokens for others")
    owner = rules.existing_user(reading(), body.user) if body.user else who
    made = web().master.writer.call(
        lambda tx: rules.make_token(tx, owner, body.name, body.scopes, body.days, who.name, now)
    )
    return api.MadeToken(token=made)


@endpoints.add("DELETE", "/tokens/<int:token>", "tokens", api.Tokens)
def revoke_token(token: int) -> api.Tokens:
    """Revoke an API token."""
    who, now = caller().user, web().now()
    web().master.writer.call(lambda tx: rules.revoke_token(tx, token, who, now))
    with web().master.database.read() as conn:
        found = credentials.tokens(conn, None if who.admin else who.id)
    return api.Tokens(items=[answers.token(stored) for stored in found])
