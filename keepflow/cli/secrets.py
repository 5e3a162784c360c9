"""`keepflow secret set|ls|rm`: values of environments, typed unseen or read from stdin, never from the command line."""

from __future__ import annotations

import sys

import click

from keepflow.cli import output
from keepflow.cli.client import at, connect
from keepflow.cli.output import as_json, say
from keepflow.errors import UsageError


@click.group()
def secret() -> None:
    """Set, list and remove the secrets of an environment."""


@secret.command("set")
@click.argument("environment", metavar="PROJECT/ENVIRONMENT")
@click.argument("name")
def put(environment: str, name: str) -> None:
    """Give a secret a value: typed unseen, or read from stdin, where one newline at the end is dropped."""
    place = _place(environment)
    if sys.stdin.isatty():
        value = str(click.prompt(f"Value of {name}", hide_input=True, err=True))
    else:
        value = _from_stdin(name)
    if not value:
        raise UsageError(f"the value of {name} is empty; give it on stdin", code="bad-value")
    stored = connect().put(at(*place, name), {"value": value})
    say(f"{environment} has {stored['name']} version {stored['version']}; the next deploy there takes it along")


@secret.command("ls")
@click.argument("environment", metavar="PROJECT/ENVIRONMENT")
@as_json
def ls(environment: str, form: str) -> None:
    """List the names and versions of an environment's secrets; nobody is shown a value."""
    found = connect().get(at(*_place(environment)))
    if form == "json":
        return output.print_json(found)
    rows = [(one["name"], str(one["version"]), output.when(one["at"]), one["set_by"]) for one in found["items"]]
    output.print_table(("NAME", "VERSION", "SET", "BY"), rows)
    return None


@secret.command("rm")
@click.argument("environment", metavar="PROJECT/ENVIRONMENT")
@click.argument("name")
def remove(environment: str, name: str) -> None:
    """Remove a secret; hosts forget it with the next deploy that names it."""
    connect().delete(at(*_place(environment), name))
    say(f"{environment} has no {name} any more")


def _from_stdin(name: str) -> str:
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise UsageError(f"the value of {name} is not UTF-8 text; encode it first", code="bad-value") from None


def _place(environment: str) -> tuple[str, ...]:
    project, slash, name = environment.partition("/")
    if not (slash and project and name):
        raise UsageError(f"{environment!r}: write PROJECT/ENVIRONMENT, like shop/production")
    return ("projects", project, "environments", name, "secrets")
