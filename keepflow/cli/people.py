"""`keepflow user, group, role, token`."""

from __future__ import annotations

from typing import Any

import click

from keepflow.cli import output
from keepflow.cli.client import at, connect
from keepflow.cli.output import as_json, say
from keepflow.cli.runs import in_project, the_project

# --- users -----------------------------------------------------------------------------------------------------------


@click.group()
def user() -> None:
    """Add, list and disable users."""


@user.command("ls")
@as_json
def list_users(form: str) -> None:
    """List all users."""
    found = connect().get("/users")
    if form == "json":
        return output.print_json(found)
    rows = [(one["name"], _standing(one), "admin" if one["admin"] else "", one["email"]) for one in found["items"]]
    output.print_table(("USER", "STATE", "ADMIN", "MAIL"), rows)
    return None


def _standing(one: dict[str, Any]) -> str:
    return "disabled" if one["disabled"] else "active" if one["has_password"] else "invited"


@user.command("add")
@click.argument("name")
@click.option("--email", default="", help="Where to reach them.")
@click.option("--admin", is_flag=True, help="Admin of this server.")
def add_user(name: str, email: str, admin: bool) -> None:
    """Add a user and print the one-time link by which they set a password."""
    made = connect().post("/users", {"name": name, "email": email, "admin": admin})
    say(f"{name} sets a password here, once, within 24 hours:")
    click.echo(made["link"])


@user.command("link")
@click.argument("name")
def new_link(name: str) -> None:
    """Print a new one-time link by which a user sets a password."""
    click.echo(connect().post(at("users", name, "link"))["link"])


@user.command("disable")
@click.argument("name")
def disable(name: str) -> None:
    """Shut a user out at once, sessions and tokens too."""
    connect().post(at("users", name, "disabled"), {"disabled": True})
    say(f"{name} is shut out")


@user.command("enable")
@click.argument("name")
def enable(name: str) -> None:
    """Let a user in again."""
    connect().post(at("users", name, "disabled"), {"disabled": False})
    say(f"{name} may sign in again")


# --- groups ----------------------------------------------------------------------------------------------------------


@click.group()
def group() -> None:
    """List and set groups."""


@group.command("ls")
@as_json
def list_groups(form: str) -> None:
    """List all groups."""
    _print_groups(connect().get("/groups"), form)


@group.command("set")
@click.argument("name")
@click.argument("members", nargs=-1)
@as_json
def set_group(name: str, members: tuple[str, ...], form: str) -> None:
    """Make a group exist with exactly these members."""
    _print_groups(connect().put(at("groups", name), {"members": list(members)}), form)


@group.command("rm")
@click.argument("name")
@as_json
def remove_group(name: str, form: str) -> None:
    """Remove a group and every role it holds."""
    _print_groups(connect().delete(at("groups", name)), form)


def _print_groups(found: dict[str, Any], form: str) -> None:
    if form == "json":
        return output.print_json(found)
    rows = [(one["name"], "file" if one["managed"] else "pages", ", ".join(one["members"])) for one in found["items"]]
    output.print_table(("GROUP", "MANAGED BY", "MEMBERS"), rows)
    return None


# --- roles -----------------------------------------------------------------------------------------------------------


@click.group()
def role() -> None:
    """Give and take roles in a project."""


@role.command("ls")
@in_project
@as_json
def list_roles(project: str | None, form: str) -> None:
    """List the roles of a project."""
    client = connect()
    _print_roles(client.get(at("projects", the_project(client, project), "roles")), form)


@role.command("give")
@click.argument("role", type=click.Choice(["viewer", "developer", "tester", "release-manager", "admin"]))
@click.option("--user", default="", metavar="NAME", help="To this user.")
@click.option("--group", default="", metavar="NAME", help="To this group.")
@in_project
@as_json
def give_role(role: str, user: str, group: str, project: str | None, form: str) -> None:
    """Give a user or a group its role in a project."""
    client = connect()
    place = at("projects", the_project(client, project), "roles")
    _print_roles(client.post(place, {"role": role, "user": user, "group": group}), form)


@role.command("take")
@click.option("--user", default="", metavar="NAME", help="From this user.")
@click.option("--group", default="", metavar="NAME", help="From this group.")
@in_project
@as_json
def take_role(user: str, group: str, project: str | None, form: str) -> None:
    """Take a user's or a group's role in a project away."""
    client = connect()
    place = at("projects", the_project(client, project), "roles")
    _print_roles(client.post(place, {"role": None, "user": user, "group": group}), form)


def _print_roles(found: dict[str, Any], form: str) -> None:
    if form == "json":
        return output.print_json(found)
    rows = [(one["project"], one["role"], one["user"] or f"group {one['group']}") for one in found["items"]]
    output.print_table(("PROJECT", "ROLE", "HOLDER"), rows)
    return None


# --- tokens ----------------------------------------------------------------------------------------------------------


@click.group()
def token() -> None:
    """Make, list and revoke API tokens."""


@token.command("ls")
@as_json
def list_tokens(form: str) -> None:
    """List API tokens: your own, or as an admin everybody's."""
    found = connect().get("/tokens")
    if form == "json":
        return output.print_json(found)
    rows = [
        (
            str(one["id"]),
            one["user"],
            one["name"],
            ", ".join(one["scopes"]),
            "revoked" if one["revoked"] else output.when(one["expires_at"]) or "never",
            output.when(one["used_at"]),
        )
        for one in found["items"]
    ]
    output.print_table(("ID", "USER", "NAME", "SCOPES", "EXPIRES", "LAST USED"), rows)
    return None


@token.command("make")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(["read", "run", "test", "promote", "admin"]),
    help="What it may do; repeatable.",
)
@click.option("--user", default="", metavar="NAME", help="For this user (admins only).")
@click.option("--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="How long it lives.")
def make_token(name: str, scopes: tuple[str, ...], user: str, days: int) -> None:
    """Make an API token and print it, once."""
    body = {"name": name, "scopes": list(scopes), "user": user, "days": days}
    click.echo(connect().post("/tokens", body)["token"])


@token.command("revoke")
@click.argument("number", type=int)
def revoke_token(number: int) -> None:
    """Revoke an API token by its id."""
    connect().delete(at("tokens", number))
    say(f"token {number} opens nothing any more")
